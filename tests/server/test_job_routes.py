"""Many callers at once, callers who leave, a worker that hangs or is wanted early: over HTTP, against real processes.

The pipeline does what the image's name says.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.live_server import LiveServer, eventually, live_server
from tests.release_server import write_release
from tests.slow_release import SlowRelease
from tests.staged import followed, living_worker, worker_of

SCRIPTED = ("-m", "tests.scripted_server")

HANG_S = 3
"""A scripted worker loads in some tenths of a second, on a busy machine in one or two."""

CALLERS = 50
QUEUE = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    with live_server(home, {"OPENSCANS_HANG_S": str(HANG_S)}, program=SCRIPTED) as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("long", "fine", "hang", *(f"fine-{number}" for number in range(CALLERS))):
        (tmp_path / name).touch()
    return tmp_path


def counts(server: LiveServer) -> dict[str, int]:
    return dict(server.get("/api/health").json()["jobs"])


def number_in(answer: httpx.Response) -> float:
    return float(answer.json()["vertebrae"][0]["center"]["x"])


def test_of_fifty_at_once_eight_wait_and_are_answered_rightly_and_the_rest_are_told_to_come_again(
    server: LiveServer, images: Path
) -> None:
    running = followed(server, images / "long")
    assert running.reaches("segmenting")
    start = threading.Barrier(CALLERS)

    def ask(number: int) -> tuple[int, httpx.Response]:
        start.wait()
        return number, server.detect(images / f"fine-{number}")

    with ThreadPoolExecutor(CALLERS) as callers:
        sent = [callers.submit(ask, number) for number in range(CALLERS)]
        assert eventually(lambda: sum(call.done() for call in sent) == CALLERS - QUEUE, within_s=20)
        refused = [call.result()[1] for call in sent if call.done()]
        waiting = [call for call in sent if not call.done()]
        assert counts(server) == {"running": 1, "queued": QUEUE}
        server.delete(f"/api/jobs/{running.job_id}")
        served = [call.result(20) for call in waiting]
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "busy")}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert [answer.status_code for _, answer in served] == [200] * QUEUE
    assert [number_in(answer) for _, answer in served] == [number for number, _ in served]


def test_the_same_request_ten_times_at_once_runs_once(server: LiveServer, images: Path) -> None:
    running = followed(server, images / "long")
    with ThreadPoolExecutor(10) as callers:
        sent = [callers.submit(followed, server, images / "fine") for _ in range(10)]
        same = [call.result(20) for call in sent]
        assert counts(server) == {"running": 1, "queued": 1}
        server.delete(f"/api/jobs/{running.job_id}")
        assert {one.last["status"] for one in same} == {"complete"}
    assert len({one.job_id for one in same}) == 1


def test_of_ten_who_wait_for_the_same_nine_may_leave_and_the_tenth_cancels(server: LiveServer, images: Path) -> None:
    with ExitStack() as tenth:
        with ExitStack() as nine:
            streams = [nine.enter_context(server.detection_events(images / "long")) for _ in range(9)]
            streams.append(tenth.enter_context(server.detection_events(images / "long")))
            [job_id] = {next(stream)["job_id"] for stream in streams}
        staying = streams[-1]
        before = next(event for event in staying if event["status"] == "segmenting")
        assert next(event for event in staying if event["progress"] > before["progress"])
    assert eventually(lambda: server.get(f"/api/jobs/{job_id}").json()["status"] == "cancelled")


def test_a_worker_that_hangs_fails_its_detection_alone_and_a_fresh_one_serves_the_next(
    server: LiveServer, images: Path
) -> None:
    assert server.detect(images / "fine").status_code == 200
    stopped = living_worker(server)
    detection = followed(server, images / "long")
    assert detection.reaches("segmenting")
    stopped.suspend()
    waiting = followed(server, images / "fine-1")
    assert server.get("/api/health").json()["worker"] == "busy"
    assert (detection.last["status"], detection.last["code"]) == ("error", "worker_crashed")
    assert f"no progress for {HANG_S} s" in detection.last["error"]
    assert waiting.last["status"] == "complete"
    assert living_worker(server) != stopped


def test_a_worker_that_does_not_heed_a_cancel_is_ended(server: LiveServer, images: Path) -> None:
    assert server.detect(images / "fine").status_code == 200
    stopped = living_worker(server)
    detection = followed(server, images / "long")
    assert detection.reaches("segmenting")
    stopped.suspend()
    server.delete(f"/api/jobs/{detection.job_id}")
    assert detection.last["status"] == "cancelled"
    assert worker_of(server) is None
    assert server.detect(images / "fine").status_code == 200


def test_wanted_early_the_worker_is_ready_without_any_detection(tmp_path: Path) -> None:
    with live_server(tmp_path, {"OPENSCANS_WARM_UP": "1"}, program=SCRIPTED) as server:
        assert eventually(lambda: server.get("/api/health").json()["worker"] == "ready", within_s=20)


def test_a_detection_that_waits_for_its_model_is_cancelled_and_the_download_goes_on(tmp_path: Path) -> None:
    image = tmp_path / "image.nii"
    image.touch()
    release = write_release(tmp_path / "release", 756)
    with (
        SlowRelease.over(release, pause_s=0.05) as slow,
        live_server(tmp_path / "home", {"OPENSCANS_WEIGHTS_URL": slow.url}) as server,
        server.detection_events(image, model="vertebrae_mr") as events,
    ):
        job_id = next(event["job_id"] for event in events if event["status"] == "downloading")
        server.delete(f"/api/jobs/{job_id}")
        assert list(events)[-1]["status"] == "cancelled"
        assert eventually(lambda: bool(server.get("/api/models/status?task=vertebrae_mr").json()["downloaded"]))
