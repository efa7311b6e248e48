"""Detections over HTTP against the real server and worker, with a pipeline that does what the file's name says."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.live_server import LiveServer, eventually, live_server
from tests.sample_vertebra import SAMPLE_TOLD

SCRIPTED = ("-m", "tests.scripted_server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), program=SCRIPTED) as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for act in ("fine", "die", "bad", "memory", "bug", "long", "hang", "minutes", "seemingly"):
        (tmp_path / act).touch()
    for number in (1, 2):
        (tmp_path / f"fine-{number}").touch()
    return tmp_path


def worker_of(answer: httpx.Response) -> int:
    return int(answer.json()["vertebrae"][0]["center"]["z"])


def status_of(server: LiveServer, job_id: str) -> str:
    return str(server.get(f"/api/jobs/{job_id}").json()["status"])


def becomes(server: LiveServer, job_id: str, status: str) -> bool:
    return eventually(lambda: status_of(server, job_id) == status)


def test_the_answer_has_the_keys_of_the_contract(server: LiveServer, images: Path) -> None:
    answer = server.detect(images / "fine", fast_mode=False)
    worker = worker_of(answer)
    body = answer.json()
    assert len(body.pop("job_id")) == 32
    assert body.pop("processing_time_ms") >= 0
    assert answer.status_code == 200
    assert body == {
        "success": True,
        "vertebrae": [SAMPLE_TOLD | {"center": {"x": 3.0, "y": 4.0, "z": worker}}],
        "device": "cpu",
        "precision": "float32",
        "fast_mode": False,
        "cached": False,
        "warnings": [],
        "image": {
            "modality": "CT",
            "size": {"x": 10, "y": 10, "z": 10},
            "spacing_mm": {"x": 0.8, "y": 0.8, "z": 1.0},
            "series_instance_uid": None,
            "study_instance_uid": None,
            "frame_of_reference_uid": None,
            "values": {"min": -1000.0, "max": 1500.0, "unit": "HU"},
        },
        "detected_at": "2026-01-02T03:04:05+00:00",
        "model": {
            "task": "vertebrae",
            "datasets": ["Dataset292_paper", "Dataset298_paper"],
            "weights_sha256": ["0" * 64, "0" * 64],
        },
        "timings_ms": {"read": 1},
    }
    assert list(body["vertebrae"][0]) == list(SAMPLE_TOLD)


@pytest.mark.parametrize(
    ("options", "task", "datasets", "warnings"),
    [
        ({"fast_mode": True}, "total_body", [297, 298], []),
        ({"series_uid": "MR"}, "vertebrae_mr", [756], []),
        ({"series_uid": "MR", "fast_mode": True}, "vertebrae_mr", [756], ["fast_mode_unavailable"]),
        ({"model": "vertebrae_mr"}, "vertebrae_mr", [756], []),
        ({"series_uid": "MR", "model": "vertebrae"}, "vertebrae", [292, 298], []),
        ({"an_unknown_key": {"is": "ignored"}}, "vertebrae", [292, 298], ["unknown_keys"]),
    ],
)
def test_the_model_follows_request_and_modality(
    server: LiveServer, images: Path, options: dict[str, object], task: str, datasets: list[int], warnings: list[str]
) -> None:
    body = server.detect(images / "fine", **options).json()
    assert body["model"]["task"] == task
    assert body["model"]["datasets"] == [f"Dataset{number}_paper" for number in datasets]
    assert [warning["code"] for warning in body["warnings"]] == warnings


@pytest.mark.parametrize(
    ("act", "status", "code"),
    [
        ("bad", 422, "too_few_slices"),
        ("memory", 507, "out_of_memory"),
        ("bug", 500, "internal_error"),
        ("die", 500, "worker_crashed"),
        ("missing", 404, "file_not_found"),
    ],
)
def test_what_goes_wrong_is_that_requests_error_and_the_next_is_served(
    server: LiveServer, images: Path, act: str, status: int, code: str
) -> None:
    answer = server.detect(images / act)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert server.detect(images / "fine").status_code == 200


def test_a_worker_that_is_killed_fails_its_detection_and_a_fresh_one_serves_the_next(
    server: LiveServer, images: Path
) -> None:
    worker = worker_of(server.detect(images / "fine"))
    with server.detection_events(images / "long") as events:
        for event in events:
            if event["status"] == "segmenting":
                os.kill(worker, signal.SIGKILL)
                break
        last = list(events)[-1]
    assert (last["status"], last["code"]) == ("error", "worker_crashed")
    assert worker_of(server.detect(images / "fine")) != worker


def test_a_stream_tells_progress_that_never_falls_and_ends_with_the_result(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "fine") as stream:
        events = list(stream)
    progress = [event["progress"] for event in events]
    assert all(before <= after for before, after in itertools.pairwise(progress))
    assert [event["status"] in {"complete", "error", "cancelled"} for event in events].count(True) == 1
    assert events[-1]["status"] == "complete"
    assert events[-1]["progress"] == 1.0
    assert set(events[-1]["result"]) == set(server.detect(images / "fine").json())
    assert events[-1]["result"]["vertebrae"][0]["label"] == "L1"
    assert {event["job_id"] for event in events} == {events[-1]["result"]["job_id"]}


def test_an_error_ends_a_stream_with_code_and_hint(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "bad") as events:
        last = list(events)[-1]
    assert (last["status"], last["code"], last["error"]) == ("error", "too_few_slices", "Found one slice.")
    assert last["hint"]


def test_what_is_wrong_before_the_work_begins_is_json_even_for_a_stream(server: LiveServer, images: Path) -> None:
    for body, code in (
        ({"file_path": "/missing"}, "file_not_found"),
        ({"file_path": "/", "model": "x"}, "unknown_task"),
    ):
        answer = server.post("/api/detect-vertebrae", body, headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_deleting_a_job_cancels_it_for_those_who_wait(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "long") as events, ThreadPoolExecutor(1) as other:
        job_id = next(events)["job_id"]
        waiting = other.submit(server.detect, images / "long")
        while next(events)["status"] != "segmenting":
            continue
        assert server.delete(f"/api/jobs/{job_id}").status_code == 200
        assert list(events)[-1]["status"] == "cancelled"
        answer = waiting.result(10)
    assert (answer.status_code, answer.json()["code"]) == (409, "cancelled")
    assert status_of(server, job_id) == "cancelled"


def test_a_stream_that_is_left_cancels_its_detection(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "long") as events:
        job_id = next(event["job_id"] for event in events if event["status"] == "segmenting")
    assert becomes(server, job_id, "cancelled")


def test_a_caller_without_a_stream_who_leaves_cancels_too(server: LiveServer, images: Path) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/api/detect-vertebrae", json={"file_path": str(images / "long")}, timeout=1)
    job_id = server.get("/api/jobs").json()["jobs"][-1]["job_id"]
    assert becomes(server, job_id, "cancelled")


def test_one_who_leaves_does_not_cancel_what_another_waits_for(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "long") as staying:
        with server.detection_events(images / "long") as leaving:
            job_id = next(event["job_id"] for event in leaving if event["status"] == "segmenting")
        assert job_id == next(staying)["job_id"]
        heard = [next(staying)["progress"] for _ in range(5)]
        assert heard[-1] > heard[0]
        assert status_of(server, job_id) == "segmenting"


def test_health_answers_within_50_ms_while_a_detection_runs(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "long") as events, server.client() as client:
        next(event for event in events if event["status"] == "segmenting")
        seconds = []
        for _ in range(50):
            began_s = time.perf_counter()
            assert client.get("/api/health").json()["worker"] == "busy"
            seconds.append(time.perf_counter() - began_s)
    assert sorted(seconds)[-2] < 0.05


def test_a_model_that_a_detection_uses_cannot_be_deleted(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "long") as events:
        next(event for event in events if event["status"] == "segmenting")
        for task in ("vertebrae", "total_body"):
            answer = server.delete(f"/api/models/{task}")
            assert (answer.status_code, answer.json()["code"]) == (409, "model_in_use")
        assert server.delete("/api/models/vertebrae_mr").status_code == 200


def test_an_unknown_job_is_404(server: LiveServer) -> None:
    for answer in (server.get("/api/jobs/none"), server.delete("/api/jobs/none")):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


def test_a_finished_job_is_shown_with_its_result_and_listed_without(server: LiveServer, images: Path) -> None:
    job_id = server.detect(images / "fine").json()["job_id"]
    shown = server.get(f"/api/jobs/{job_id}").json()
    listed = server.get("/api/jobs").json()["jobs"][-1]
    assert shown["result"]["job_id"] == job_id
    assert listed == {key: value for key, value in shown.items() if key != "result"}


def test_a_slow_reader_of_a_stream_holds_nobody_up(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "fine-1") as unread:
        assert server.detect(images / "fine-2").status_code == 200
        assert list(unread)[-1]["status"] == "complete"


def test_only_files_under_the_allowed_roots_are_read(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    for folder in (allowed, other):
        folder.mkdir()
        (folder / "fine").touch()
    (allowed / "link").symlink_to(other / "fine")
    with live_server(tmp_path / "home", {"OPENSCANS_ALLOWED_ROOTS": str(allowed)}, program=SCRIPTED) as server:
        assert server.detect(allowed / "fine").status_code == 200
        for path in (other / "fine", allowed / "link", allowed / ".." / "other" / "fine", other / "missing"):
            answer = server.detect(path)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_path")


def test_the_worker_starts_at_the_first_detection_and_goes_when_it_idles(images: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "home", {"OPENSCANS_KEEP_WARM_S": "0"}, program=SCRIPTED) as server:
        assert server.get("/api/health").json()["worker"] == "cold"
        assert server.detect(images / "fine").status_code == 200
        assert eventually(lambda: server.get("/api/health").json()["worker"] == "cold")


SLOW = {
    "code": "slow_detection",
    "message": "A detection in this image takes about 10 minutes on this machine; fast_mode takes less.",
}


def test_a_stream_tells_the_time_that_remains_and_warns_before_the_first_patch(
    server: LiveServer, images: Path
) -> None:
    with server.detection_events(images / "minutes") as events:
        event = next(event for event in events if event["status"] == "localising")
        assert event["eta_s"] == 600.0
        assert event["warnings"] == [SLOW]
        job = server.get(f"/api/jobs/{event['job_id']}").json()
        assert (job["eta_s"], job["warnings"]) == (600.0, [SLOW])


def test_the_answer_holds_the_warning_too(server: LiveServer, images: Path) -> None:
    answer = server.detect(images / "seemingly", fast_mode=False).json()
    assert answer["warnings"] == [SLOW]


def test_where_nothing_is_to_be_warned_of_no_event_has_warnings(server: LiveServer, images: Path) -> None:
    with server.detection_events(images / "fine") as events:
        assert [event for event in events if "warnings" in event] == []
