"""The keys of an error, wherever one is told: by a status, in an event, of a job, and where nothing was to be done."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from openscans import errors
from tests.live_server import LiveServer, live_server

SCRIPTED = ("-m", "tests.scripted_server")

CODES = {kind.code for kind in errors.kinds_of(errors.OpenScansError)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_OFFLINE": "1"}, program=SCRIPTED) as running:
        yield running


def is_error(told: Mapping[str, Any], code: str) -> bool:
    """Whether ``told`` has all keys of an error, and they say something."""
    assert code in CODES
    told_well = told["error"] == told["detail"] != "" != told["hint"]
    return told["success"] is False and told_well and told["code"] == code


@pytest.mark.parametrize(("act", "code"), [("bad", "too_few_slices"), ("bug", "internal_error")])
def test_a_detection_that_fails_tells_all_of_it_in_its_last_event_and_of_its_job(
    server: LiveServer, tmp_path: Path, act: str, code: str
) -> None:
    (tmp_path / act).touch()
    with server.detection_events(tmp_path / act) as stream:
        events = list(stream)
    assert is_error(events[-1], code)
    assert not [event for event in events[:-1] if "success" in event]
    assert is_error(server.get(f"/api/jobs/{events[-1]['job_id']}").json(), code)
    assert is_error(server.get("/api/jobs").json()["jobs"][-1], code)
    assert is_error(server.detect(tmp_path / act).json(), code)


def test_a_detection_that_is_cancelled_tells_all_of_it(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "long").touch()
    with server.detection_events(tmp_path / "long") as stream:
        job_id = next(event["job_id"] for event in stream if event["status"] == "segmenting")
        server.delete(f"/api/jobs/{job_id}")
        assert is_error(list(stream)[-1], "cancelled")
    assert is_error(server.get(f"/api/jobs/{job_id}").json(), "cancelled")


def test_a_download_that_fails_tells_all_of_it(server: LiveServer) -> None:
    with server.events("POST", "/api/models/download/vertebrae_mr") as stream:
        assert is_error(list(stream)[-1], "model_missing")


def test_a_download_that_is_cancelled_tells_all_of_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mirror:
        url = {"OPENSCANS_WEIGHTS_URL": f"http://127.0.0.1:{mirror.getsockname()[1]}"}
        with live_server(tmp_path, url) as server, server.events("GET", "/api/models/download/vertebrae_mr") as stream:
            assert "success" not in next(stream)
            cancelled = server.delete("/api/models/download/vertebrae_mr").json()
            assert set(cancelled) == {"success", "message"}
            assert is_error(list(stream)[-1], "cancelled")


@pytest.mark.parametrize(
    ("path", "code"), [("/api/models/vertebrae", "model_missing"), ("/api/models/download/vertebrae", "not_found")]
)
def test_where_there_was_nothing_to_do_the_answer_is_no_error_but_has_its_keys(
    server: LiveServer, path: str, code: str
) -> None:
    answer = server.delete(path)
    assert answer.status_code == 200
    assert is_error(answer.json(), code)
    assert answer.json()["message"] == answer.json()["error"]
