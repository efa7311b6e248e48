"""A browser whose stream ended or broke asks again by itself; that starts nothing, and comes to an end.

`Browser` asks as an EventSource does: with the id of the last event that it got, until it is answered 204.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live_server import LiveServer, eventually, live_server, parsed
from tests.release_server import Fault, ReleaseServer, write_release

SCRIPTED = ("-m", "tests.scripted_server")
DOWNLOAD = "/api/models/download/vertebrae_mr"
STATUS = "/api/models/status?task=vertebrae_mr"


@dataclass
class Browser:
    """``events`` are all that came, over all the streams; ``last_id`` is that of the last."""

    server: LiveServer
    method: str
    path: str
    body: object = None
    last_id: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)

    def listen(self, *, events: int | None = None) -> int:
        """Ask once and read the stream to its end, or so many events of it: the answer's status."""
        headers = {"Accept": "text/event-stream"}
        if self.last_id is not None:
            headers["Last-Event-ID"] = self.last_id
        with (
            self.server.client(timeout_s=60) as client,
            client.stream(self.method, self.path, json=self.body, headers=headers) as response,
        ):
            self._read(response, events)
            return response.status_code

    def _read(self, response: httpx.Response, most: int | None) -> None:
        for line in response.iter_lines():
            if line.startswith("id: "):
                self.last_id = line.removeprefix("id: ")
            self.events += parsed(iter([line]))
            if self.events:
                self.begun.set()
            if not line and most is not None and len(self.events) >= most:
                return

    @property
    def statuses(self) -> list[str]:
        return [event["status"] for event in self.events]


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReleaseServer]:
    with ReleaseServer.over(write_release(tmp_path_factory.mktemp("release"), 756)) as running:
        yield running


@pytest.fixture(scope="module")
def server(mirror: ReleaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_WEIGHTS_URL": mirror.url}) as running:
        yield running


@pytest.fixture
def release(server: LiveServer, mirror: ReleaseServer) -> ReleaseServer:
    """As before the first test, and no model there."""
    server.delete("/api/models/vertebrae_mr")
    mirror.faults.clear()
    mirror.requests.clear()
    mirror.stalled.clear()
    mirror.resume.clear()
    mirror.always = Fault()
    return mirror


@pytest.mark.usefixtures("release")
def test_every_event_has_an_id_of_its_own(server: LiveServer) -> None:
    answer = server.post(DOWNLOAD)
    ids = [line.removeprefix("id: ") for line in answer.text.splitlines() if line.startswith("id: ")]
    assert len(ids) == len(set(ids)) == answer.text.count("data: ")
    assert len({name.partition(".")[0] for name in ids}) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_after_the_end_of_a_download_nothing_is_begun_anew(
    server: LiveServer, release: ReleaseServer, method: str
) -> None:
    browser = Browser(server, method, DOWNLOAD)
    assert browser.listen() == 200
    assert browser.statuses[-1] == "complete"
    server.delete("/api/models/vertebrae_mr")
    assert browser.listen() == 204
    assert server.get(STATUS).json()["state"] == "absent"
    assert len(release.requests) == 1


def test_after_a_failed_download_nothing_is_begun_anew(server: LiveServer, release: ReleaseServer) -> None:
    release.always = Fault(status=404)
    browser = Browser(server, "GET", DOWNLOAD)
    assert browser.listen() == 200
    assert browser.statuses[-1] == "error"
    assert browser.listen() == 204
    assert len(release.requests) == 1
    # Who did not come back by itself begins a new one.
    assert Browser(server, "GET", DOWNLOAD).listen() == 200
    assert len(release.requests) == 2


def test_a_stream_that_broke_joins_the_download_that_runs(server: LiveServer, release: ReleaseServer) -> None:
    release.faults.append(Fault(stall_after=100_000))
    browser = Browser(server, "GET", DOWNLOAD)
    browser.listen(events=1)
    assert release.stalled.wait(10)
    release.resume.set()
    assert browser.listen() == 200
    assert browser.statuses[-1] == "complete"
    assert len({sent.path for sent in release.requests}) == len(release.requests) == 1
    assert browser.listen() == 204


def test_a_download_that_was_cancelled_while_the_stream_was_broken_is_told_so_and_not_begun_anew(
    server: LiveServer, release: ReleaseServer
) -> None:
    release.faults.append(Fault(stall_after=100_000))
    browser = Browser(server, "GET", DOWNLOAD)
    browser.listen(events=1)
    assert release.stalled.wait(10)
    assert server.delete(DOWNLOAD).json()["success"]
    assert [browser.listen(), browser.statuses[-1], browser.listen()] == [200, "cancelled", 204]
    assert len(release.requests) == 1


def test_what_another_server_began_is_not_begun_here(release: ReleaseServer, tmp_path: Path) -> None:
    with live_server(tmp_path / "home", {"OPENSCANS_WEIGHTS_URL": release.url}) as restarted:
        assert Browser(restarted, "GET", DOWNLOAD, last_id=f"{'0' * 32}.3").listen() == 204
        assert (release.requests, restarted.get(STATUS).json()["state"]) == ([], "absent")


def test_who_heard_of_a_download_at_another_server_joins_what_runs(server: LiveServer, release: ReleaseServer) -> None:
    stranger = Browser(server, "GET", DOWNLOAD, last_id=f"{'0' * 32}.3")
    release.faults.append(Fault(stall_after=100_000))
    Browser(server, "GET", DOWNLOAD).listen(events=1)
    assert release.stalled.wait(10)
    release.resume.set()
    assert [stranger.listen(), stranger.statuses[-1], stranger.listen()] == [200, "complete", 204]


def test_an_unknown_task_stays_unknown(server: LiveServer) -> None:
    assert Browser(server, "GET", "/api/models/download/lungs", last_id=f"{'0' * 32}.last").listen() == 404


# Detections


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), program=SCRIPTED) as running:
        yield running


def detecting(server: LiveServer, image: Path, last_id: str | None = None) -> Browser:
    image.touch()
    return Browser(server, "POST", "/api/detect-vertebrae", {"file_path": str(image)}, last_id)


def jobs(server: LiveServer) -> list[dict[str, Any]]:
    return list(server.get("/api/jobs").json()["jobs"])


def test_after_the_end_of_a_detection_nothing_is_begun_anew(scripted: LiveServer, tmp_path: Path) -> None:
    browser = detecting(scripted, tmp_path / "fine")
    assert browser.listen() == 200
    assert browser.statuses[-1] == "complete"
    before = jobs(scripted)
    assert browser.listen() == 204
    assert jobs(scripted) == before


def test_a_stream_that_broke_hears_how_its_detection_ended(scripted: LiveServer, tmp_path: Path) -> None:
    browser = detecting(scripted, tmp_path / "fine")
    browser.listen()
    before, broken = jobs(scripted), detecting(scripted, tmp_path / "fine", f"{browser.events[-1]['job_id']}.1")
    assert broken.listen() == 200
    assert broken.events == browser.events[-1:]
    assert broken.listen() == 204
    assert jobs(scripted) == before


def test_who_joins_a_detection_keeps_it_alive_when_the_first_leaves(scripted: LiveServer, tmp_path: Path) -> None:
    image = tmp_path / "slow"
    image.touch()
    with scripted.detection_events(image) as events:
        job_id = next(events)["job_id"]
        joined = detecting(scripted, image, f"{job_id}.1")
        listening = threading.Thread(target=joined.listen)
        listening.start()
        assert joined.begun.wait(20)
    listening.join()
    assert joined.statuses[-1] == "complete"
    assert {event["job_id"] for event in joined.events} == {job_id}


def test_a_detection_that_is_not_known_begins_nothing(scripted: LiveServer, tmp_path: Path) -> None:
    before = jobs(scripted)
    assert detecting(scripted, tmp_path / "fine", f"{'0' * 32}.1").listen() == 204
    assert eventually(lambda: jobs(scripted) == before)
