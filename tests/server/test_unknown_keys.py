"""Keys of a request that nobody knows: ignored as ever, and told with the key that may have been meant."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from openscans.server.schemas import DetectBody
from openscans.server.unknown_keys import MOST_NAMED, describe_unknown, suggest
from tests import pipelines
from tests.live_server import LiveServer, live_server

SCRIPTED = ("-m", "tests.scripted_server")

KNOWN = tuple(DetectBody.model_fields)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_OFFLINE": "1"}, program=SCRIPTED) as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "fine").touch()
    return tmp_path / "fine"


def unknown_keys_in(answer: Mapping[str, Any]) -> list[str]:
    return [warning["message"] for warning in answer["warnings"] if warning["code"] == "unknown_keys"]


def test_unknown_keys_are_ignored_and_told_with_the_nearest_that_is_known(server: LiveServer, image: Path) -> None:
    answer = server.detect(image, fast_mod=True, seriesUID="1.2.3", colour="purple").json()
    assert (answer["success"], answer["fast_mode"]) == (True, False)
    (message,) = unknown_keys_in(answer)
    assert "fast_mod: did you mean fast_mode?" in message
    assert "seriesUID: did you mean series_uid?" in message
    assert "colour" in message
    assert "1.2.3" not in message
    assert "purple" not in message


def test_they_are_told_to_who_sent_them_alone_and_in_a_stream_too(server: LiveServer, image: Path) -> None:
    with server.detection_events(image, priority=1) as stream:
        events = list(stream)
    assert unknown_keys_in(events[-1]["result"]) == unknown_keys_in(events[0]) != []
    assert unknown_keys_in(server.detect(image).json()) == []


def test_what_is_no_plain_word_is_counted_and_never_said(server: LiveServer, image: Path) -> None:
    keys = {f"/data/{pipelines.PATIENT}/1.dcm": 1, "a" * 100: 2, "two words": 3, "": 4, "<b>": 5, "naïve": 6}
    (message,) = unknown_keys_in(server.detect(image, **keys).json())
    assert message.endswith("(6 unnamed).")


def test_only_the_first_few_are_named(server: LiveServer, image: Path) -> None:
    (message,) = unknown_keys_in(server.detect(image, **{f"zzz{number}": 0 for number in range(5000)}).json())
    assert [f"zzz{number}" in message for number in range(MOST_NAMED + 1)] == [True] * MOST_NAMED + [False]
    assert f"{5000 - MOST_NAMED} unnamed" in message
    assert len(message) < 300


@pytest.mark.parametrize("path", ["/api/detect-vertebrae", "/api/models/import/vertebrae"])
@pytest.mark.parametrize("slip", ["file_paht", "filePath", "filepath", "path", "FILE_PATH"])
def test_a_key_that_is_needed_and_misspelt_is_refused_with_the_right_one(
    server: LiveServer, path: str, slip: str
) -> None:
    answer = server.post(path, {"colour": "red", slip: f"/data/{pipelines.PATIENT}"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert f"{slip}: did you mean file_path?" in answer.json()["error"]
    assert pipelines.PATIENT not in answer.text


def test_a_key_that_is_needed_and_has_nothing_near_is_refused_without_a_guess(server: LiveServer) -> None:
    error = server.post("/api/detect-vertebrae", {"colour": "red", pipelines.PATIENT: 1}).json()["error"]
    assert "file_path" in error
    assert "did you mean" not in error
    assert pipelines.PATIENT not in error


def test_the_page_that_the_hint_names_lists_every_key(server: LiveServer) -> None:
    answer = server.post("/api/detect-vertebrae", {}).json()
    assert "/docs" in answer["hint"]
    page = server.get("/docs").text
    assert all(f"<code>{key}</code>" in page for key in KNOWN)
    described = server.get("/openapi.json").json()["components"]["schemas"]["DetectBody"]["properties"]
    assert list(described) == list(KNOWN)


def test_what_is_described_is_what_was_sent() -> None:
    assert describe_unknown(["fast"], KNOWN) == "fast: did you mean fast_mode?"
    assert describe_unknown(["x", "not plain"], KNOWN) == "x; 1 unnamed"
    assert suggest("file_path", ["File_Path", "x"]) == "File_Path: did you mean file_path?"
    assert suggest("file_path", json.loads('["x"]')) is None
