"""SECURITY.md against the tests that it names: each of them is there, and no point stands without any."""

import re
from pathlib import Path

from tests.live_server import ROOT

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")

NAME, PATH = re.compile(r"\btest_\w+(?!\w*\.py)\b"), re.compile(r"`(tests/[\w/]+\.\w+)`")

POINT = re.compile(r"^- .*(?:\n  .*)*", re.MULTILINE)

NONE = re.compile(r"\(No test: \w+.*\)")
"""Of what cannot be shown, or is not promised; with the reason."""


def defined() -> set[str]:
    texts = (file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in texts for name in re.findall(r"^ *(?:async )?def (test_\w+)", text, re.MULTILINE)}


def test_every_test_that_is_named_is_there() -> None:
    named = set(NAME.findall(PAGE))
    assert len(named) > 100
    assert named - defined() == set()


def test_every_file_that_is_named_is_there() -> None:
    assert [path for path in PATH.findall(PAGE) if not Path(ROOT, path).is_file()] == []


def test_every_point_names_its_tests_or_says_why_none_can() -> None:
    points = POINT.findall(PAGE)
    assert len(points) > 40
    assert [point for point in points if not (NAME.search(point) or NONE.search(" ".join(point.split())))] == []
