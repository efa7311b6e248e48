"""The words that have a fixed list, against those that the product uses; and numbers as they are told."""

import ast
import re
from dataclasses import replace
from typing import get_args

from openscans.jobs.detector import STAGE_WEIGHTS
from openscans.server.schemas import round_numbers
from openscans.types import Alternative, DownloadStatus, JobStatus, Point, WarningCode
from openscans.weights.download_task import SPANS
from tests.sample_vertebra import SAMPLE
from tests.test_architecture import ROOT, module_of, product_files

LAST = {"complete", "error", "cancelled"}


def warned_of() -> dict[str, str]:
    """What is given as the code of every warning in the product, as it is written there."""
    return {
        f"{module_of(path)}:{node.lineno}": ast.unparse(node.args[0] if node.args else node.keywords[0].value)
        for path in product_files()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ResultWarning")
    }


def test_every_warning_has_a_code_of_the_list_and_every_code_has_a_warning() -> None:
    assert set(warned_of().values()) == {f"WarningCode.{code.name}" for code in WarningCode}


def test_the_readme_says_what_every_warning_means() -> None:
    rows = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = {code for row in rows for code in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    assert {code.value for code in WarningCode} <= told


def test_a_code_is_named_as_it_is_told() -> None:
    assert [code.name.lower() for code in WarningCode] == sorted(code.value for code in WarningCode)


def test_a_detection_has_a_status_for_every_stage() -> None:
    assert set(get_args(JobStatus)) == {"queued", *STAGE_WEIGHTS} | LAST


def test_a_download_has_a_status_for_every_stage() -> None:
    assert set(get_args(DownloadStatus)) == {"starting", *SPANS} | LAST


def test_a_vertebra_s_numbers_are_told_with_the_decimals_that_mean_something() -> None:
    found = replace(
        SAMPLE,
        center=Point(1 / 3, 2.0005, -0.00049),
        confidence=0.99996,
        alternatives=(Alternative("L2", 0.070049),),
        center_mm=Point(-1e-5, 123456.78949, 7.0),
        volume_ml=35.65049,
    )
    told = round_numbers(found)
    assert (told.center.x, told.center.z) == (0.333, 0.0)
    assert (told.center_mm, told.volume_ml, told.confidence) == (Point(0.0, 123456.789, 7.0), 35.65, 1.0)
    assert told.alternatives == (Alternative("L2", 0.07),)
    assert (told.label, told.bounds, told.slice) == (found.label, found.bounds, None)


def test_what_names_no_decimals_is_told_in_full() -> None:
    assert round_numbers(Point(0.712890625, 1 / 3, 3.0)) == Point(0.712890625, 1 / 3, 3.0)
