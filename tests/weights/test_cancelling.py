"""A cancel stops what brings the task, whoever began it for what, and nothing that somebody else asked for besides."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live_server import LiveServer, eventually, live_server
from tests.release_server import PIECE_BYTES, Fault, ReleaseServer, write_release

CUT = 40 * PIECE_BYTES
"""About half of a release's zip here."""


@pytest.fixture
def release(tmp_path: Path) -> Iterator[ReleaseServer]:
    with ReleaseServer.over(write_release(tmp_path / "release", 292, 297, 298)) as running:
        yield running


@pytest.fixture
def server(release: ReleaseServer, home: Path) -> Iterator[LiveServer]:
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": release.url}) as running:
        yield running


def state(server: LiveServer, task: str) -> str:
    return str(server.get(f"/api/models/status?task={task}").json()["state"])


def test_cancelling_a_task_stops_the_download_that_brings_it_for_another(
    server: LiveServer, release: ReleaseServer
) -> None:
    release.faults.append(Fault(stall_after=CUT))
    with server.events("POST", "/api/models/download/vertebrae") as events:
        assert release.stalled.wait(10)
        assert eventually(lambda: any(path.stat().st_size for path in server.home.rglob("*.part")))
        assert state(server, "total_body") == "downloading"
        assert server.delete("/api/models/download/total_body").json()["success"]
        assert state(server, "total_body") == "partial"
        assert list(events)[-1]["status"] == "cancelled"
    assert state(server, "vertebrae") == "absent"
    assert len(release.requests) == 1


def test_cancelling_what_has_come_already_stops_nothing(server: LiveServer, release: ReleaseServer) -> None:
    release.faults += [Fault(), Fault(), Fault(stall_after=CUT)]
    with server.events("POST", "/api/models/download/vertebrae") as events:
        assert release.stalled.wait(20)
        assert state(server, "total_body") == "ready"
        assert not server.delete("/api/models/download/total_body").json()["success"]
        release.resume.set()
        assert list(events)[-1]["status"] == "complete"


def test_cancelling_a_task_leaves_what_it_needs_to_who_asked_for_that(
    server: LiveServer, release: ReleaseServer
) -> None:
    release.faults.append(Fault(stall_after=CUT))
    with server.events("POST", "/api/models/download/total_body") as events:
        assert release.stalled.wait(10)
        with server.events("POST", "/api/models/download/vertebrae") as others:
            assert server.delete("/api/models/download/vertebrae").json()["success"]
            assert list(others)[-1]["status"] == "cancelled"
        assert state(server, "total_body") == "downloading"
        release.resume.set()
        assert list(events)[-1]["status"] == "complete"
