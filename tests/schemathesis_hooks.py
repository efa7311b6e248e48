"""Loaded by schemathesis: lets every second detection that is described as valid name an image that is there."""

import os
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext

IMAGE = os.environ.get("OPENSCANS_TEST_IMAGE", "")


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    valid = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    path = case.body.get("file_path") if isinstance(case.body, dict) else None
    if valid and isinstance(path, str) and len(path) % 2 == 0:
        case.body |= {"file_path": IMAGE, "series_uid": None}
