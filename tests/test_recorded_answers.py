"""All that a caller sees is as it was recorded: every answer, event, exit code and file, byte for byte.

`python -m tests.recording --write` records anew; a change that is meant is named in `MEANT` until then.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import recording
from tests.live_server import MAIN
from tests.recorded.differences import Difference, Meant, differences, explains, unmeant

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="recorded with Linux's paths and sentences")

RECORDED: dict[str, Any] = json.loads(recording.FILE.read_text(encoding="utf-8"))

MEANT: Meant = {}
"""(pattern of scenarios, pattern of key paths) → why callers see something else now."""


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    # As JSON holds it, where a tuple is a list.
    made = recording.everything(Path(MAIN[0]), tmp_path_factory.mktemp("recording"))
    return json.loads(json.dumps(made))


@pytest.mark.parametrize("scenario", RECORDED)
def test_an_answer_is_as_it_was_recorded(today: dict[str, Any], scenario: str) -> None:
    assert scenario in today, "this is no longer asked"
    found = unmeant(scenario, [*differences(RECORDED[scenario], today[scenario])], MEANT)
    if found:
        pytest.fail("\n".join([f"{scenario}: callers see something else", *map(str, found)]), pytrace=False)


def test_all_that_is_asked_is_recorded(today: dict[str, Any]) -> None:
    assert sorted(set(today) - set(RECORDED)) == []


def test_no_difference_is_called_meant_that_is_not_there(today: dict[str, Any]) -> None:
    found = [(name, one) for name in RECORDED for one in differences(RECORDED[name], today.get(name))]
    assert [entry for entry in MEANT if not any(explains(entry, *one) for one in found)] == []


VERTEBRA = {"center": {"x": 1.0}, "confidence": 0.9, "volume_ml": 20.0}


@pytest.mark.parametrize(
    ("now", "paths"),
    [
        ({"center": {"x": 1.04}, "confidence": 0.905, "volume_ml": 20.1}, []),
        ({"center": {"x": 1.06}, "confidence": 0.9, "volume_ml": 20.0}, ["answer.center.x"]),
        ({"center": {"x": 1}, "confidence": 0.9, "volume_ml": 20.0}, ["answer.center.x"]),
        ({"center": {"x": 1.0}, "confidence": 0.88, "volume_ml": 20.3}, ["answer.confidence", "answer.volume_ml"]),
        ({"center": {"x": 1.0}, "volume_ml": 20.0, "confidence": 0.9}, ["answer (order of its keys)"]),
        ({"center": {}, "confidence": 0.9, "volume_ml": 20.0}, ["answer.center.x"]),
        ([VERTEBRA], ["answer"]),
    ],
)
def test_a_difference_is_told_by_its_place_and_rounding_is_none(now: object, paths: list[str]) -> None:
    assert [one.path for one in differences(VERTEBRA, now)] == paths


def test_a_vertebra_may_gain_a_number() -> None:
    was, now = ({"vertebrae": [VERTEBRA | more], "warnings": []} for more in ({}, {"height_mm": 27.0}))
    assert [*differences(was, now)] == []
    assert [one.path for one in differences(now, was)] == ["answer.vertebrae.0.height_mm"]


def test_what_is_meant_is_told_no_more() -> None:
    found = [Difference("answer.body.error", "'a'", "'b'"), Difference("answer.status", "404", "410")]
    meant = {("path: *", "answer.body.*"): "a better sentence"}
    assert unmeant("path: missing", found, meant) == found[1:]
    assert unmeant("run: help", found, meant) == found
