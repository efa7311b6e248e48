"""One download for everybody: many streams, two servers on one home, and what becomes of them when a server ends."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openscans.errors import ModelInUse
from openscans.progress import ignore_progress
from tests.live_server import LiveServer, eventually, live_server, parsed
from tests.model_homes import MR, last, online
from tests.release_server import release_zip, write_release
from tests.slow_release import PIECE_BYTES, SlowRelease

AUDITED = ("-m", "tests.audited_server")

STREAMS = 20
OVER = {"complete", "error", "cancelled"}
DOWNLOAD = "/api/models/download/vertebrae_mr"
HALF_BYTES = 20 * PIECE_BYTES
"""More than half of a release's zip here."""


@pytest.fixture
def release(tmp_path: Path) -> Iterator[SlowRelease]:
    with SlowRelease.over(write_release(tmp_path / "release"), pause_s=0.01) as running:
        yield running


@pytest.fixture
def env(release: SlowRelease) -> dict[str, str]:
    return {"OPENSCANS_WEIGHTS_URL": release.url}


def assert_true_story(events: list[dict[str, Any]]) -> None:
    progress = [event["progress"] for event in events]
    assert progress == sorted(progress)
    assert [event["status"] in OVER for event in events] == [False] * (len(events) - 1) + [True]


def followed(server: LiveServer, path: str) -> list[dict[str, Any]]:
    with server.events("GET", path) as events:
        return list(events)


def hold_in_the_middle(release: SlowRelease, path_end: str) -> None:
    """Close the gate once more than half of the file was sent."""
    assert eventually(lambda: sent(release, path_end) >= HALF_BYTES, within_s=20)
    release.gate.clear()


def sent(release: SlowRelease, path_end: str) -> int:
    return sum(count for path, count in release.sent_bytes.items() if path.endswith(path_end))


def test_twenty_streams_and_a_second_server_fetch_each_file_once(
    release: SlowRelease, home: Path, env: dict[str, str]
) -> None:
    with live_server(home, env) as server, live_server(home, env) as second, ThreadPoolExecutor(STREAMS + 5) as pool:
        stories = [pool.submit(followed, server, "/api/models/download/vertebrae") for _ in range(STREAMS)]
        stories += [pool.submit(followed, second, "/api/models/download/vertebrae") for _ in range(5)]
        for story in stories:
            assert_true_story(story.result())
            assert story.result()[-1]["status"] == "complete"
        assert second.get("/api/models/status?task=vertebrae").json()["state"] == "ready"
    assert len(release.asked) == len(release.sent_bytes) == 3
    for number in (292, 297, 298):
        zip_path = release_zip(release.folder, number)
        assert sent(release, zip_path.name) == zip_path.stat().st_size


def test_who_comes_in_the_middle_begins_with_the_true_progress(
    release: SlowRelease, home: Path, env: dict[str, str]
) -> None:
    # Slow beside the tenth of a second for which a state may be out of date.
    release.pause_s = 0.03
    with live_server(home, env) as server, live_server(home, env) as second:
        with server.events("POST", DOWNLOAD):
            # Left at once; that stops nothing.
            pass
        hold_in_the_middle(release, f"{MR}.zip")
        for late in (server, second):
            with late.events("POST", DOWNLOAD) as events:
                seen = next(event for event in events if event["status"] == "downloading")
                assert 0.35 < seen["progress"] < 0.95
                assert seen["downloaded_mb"] == pytest.approx(HALF_BYTES / 1e6, abs=0.1)
                assert seen["total_mb"] == pytest.approx(0.3, abs=0.05)
            assert late.get("/api/models/status?task=vertebrae_mr").json()["state"] == "downloading"
        assert second.delete("/api/models/vertebrae_mr").json()["code"] == "model_in_use"
        release.gate.set()
        assert followed(second, DOWNLOAD)[-1]["status"] == "complete"
    assert len(release.asked) == 1


def test_a_second_server_goes_on_where_the_first_was_killed(
    release: SlowRelease, home: Path, env: dict[str, str]
) -> None:
    with (
        live_server(home, env) as server,
        live_server(home, env) as second,
        server.events("POST", DOWNLOAD),
        second.events("POST", DOWNLOAD) as events,
    ):
        hold_in_the_middle(release, f"{MR}.zip")
        assert any(event.get("downloaded_mb", 0) > 0.1 for event in events)
        server.kill()
        release.gate.set()
        rest = list(events)
        assert_true_story(rest)
        assert rest[-1]["status"] == "complete"
    assert release.asked[1][1] >= HALF_BYTES // 2


def test_a_download_is_cancelled_within_a_second_for_all_and_keeps_its_bytes(
    release: SlowRelease, home: Path, env: dict[str, str]
) -> None:
    with live_server(home, env) as server, ThreadPoolExecutor(3) as pool:
        stories = [pool.submit(followed, server, DOWNLOAD) for _ in range(3)]
        assert eventually(lambda: sent(release, ".zip") >= HALF_BYTES, within_s=20)
        began_s = time.monotonic()
        assert server.delete(DOWNLOAD).json()["success"]
        assert {story.result()[-1]["status"] for story in stories} == {"cancelled"}
        assert time.monotonic() - began_s < 1
        kept_bytes = next(home.rglob("*.part")).stat().st_size
        assert kept_bytes > 0
        assert followed(server, DOWNLOAD)[-1]["status"] == "complete"
    assert release.asked[1][1] >= kept_bytes


def test_asked_to_end_a_server_ends_its_downloads_streams_with_a_last_event(
    release: SlowRelease, home: Path, env: dict[str, str]
) -> None:
    with live_server(home, env) as server, ThreadPoolExecutor(3) as pool:
        stories = [pool.submit(followed, server, DOWNLOAD) for _ in range(3)]
        hold_in_the_middle(release, f"{MR}.zip")
        began_s = time.monotonic()
        server.ask_to_end()
        assert time.monotonic() - began_s < 3
        for story in stories:
            assert_true_story(story.result())
            assert story.result()[-1]["status"] == "cancelled"
    assert next(home.rglob("*.part")).stat().st_size > 0


@pytest.mark.parametrize("thread", ["AnyIO worker thread", "download", "response"])
def test_a_thread_that_cannot_start_leaves_no_dead_download(
    release: SlowRelease, home: Path, env: dict[str, str], tmp_path: Path, thread: str
) -> None:
    sign = tmp_path / "threadless"
    sign.touch()
    with live_server(home, {**env, "AUDIT_THREADLESS": f"{thread} {sign}"}, program=AUDITED) as server:
        assert refusal(server)["code"] == "busy"
        assert release.asked == []
        sign.unlink()
        assert server.get("/api/models/status?task=vertebrae_mr").json()["state"] == "absent"
        assert followed(server, DOWNLOAD)[-1]["status"] == "complete"


def refusal(server: LiveServer) -> dict[str, Any]:
    """Why a download did not come to its end: told before there is a stream, or by its last event."""
    answer = server.post(DOWNLOAD)
    return dict(answer.json() if answer.status_code == 503 else [*parsed(iter(answer.text.splitlines()))][-1])


def test_a_detection_waits_for_the_download_that_runs(release: SlowRelease, home: Path) -> None:
    models = online(home, release.url)
    running = models.download("vertebrae_mr")
    told: list[int] = []
    with models.ready("vertebrae_mr", lambda done, total: told.append(done), download=True):
        pass
    assert last(running).status == "complete"
    assert told == sorted(told)
    assert (len(release.asked), told[-1]) == (1, 1000)


def test_the_warning_of_another_digest_reaches_the_clients(home: Path, env: dict[str, str]) -> None:
    with live_server(home, env) as server:
        done = followed(server, DOWNLOAD)[-1]
    assert done["status"] == "complete"
    assert "unexpected_digest" in [warning["code"] for warning in done["warnings"]]


def test_events_come_at_most_five_times_a_second(home: Path, env: dict[str, str]) -> None:
    with live_server(home, env) as server, server.events("POST", DOWNLOAD) as events:
        arrivals_s = [time.monotonic() for _ in events]
    assert len(arrivals_s) <= 5 * (arrivals_s[-1] - arrivals_s[0]) + 2


def test_a_detection_and_a_deletion_exclude_each_other(release: SlowRelease, home: Path) -> None:
    models, other = online(home, release.url), online(home, release.url)
    assert last(models.download("vertebrae_mr")).status == "complete"
    entered, leave = threading.Event(), threading.Event()

    def detect() -> None:
        with models.ready("vertebrae_mr", ignore_progress, download=False):
            entered.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        detection = pool.submit(detect)
        assert entered.wait(10)
        with pytest.raises(ModelInUse, match="detection"):
            other.delete("vertebrae_mr")
        leave.set()
        detection.result()
    assert other.delete("vertebrae_mr").removed
