"""A disk that is too small: an error with figures, the partial file kept, and success once there is room."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from openscans.system.files import RESERVE_BYTES
from tests.live_server import eventually, live_server
from tests.model_homes import last, online
from tests.release_server import release_zip, write_release
from tests.slow_release import PIECE_BYTES, SlowRelease
from tests.small_disks import disk_of

DISK_BYTES = RESERVE_BYTES + 20_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of(DISK_BYTES, tmp_path / "disk") as folder:
        yield folder


@pytest.fixture
def release(tmp_path: Path) -> Iterator[SlowRelease]:
    with SlowRelease.over(write_release(tmp_path / "release", 756)) as running:
        yield running


def fill(disk: Path, leaving_bytes: int) -> Path:
    """A file of another program that leaves that much room."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - leaving_bytes)
    return ballast


def begun(home: Path, release: SlowRelease) -> int:
    """How many bytes an interrupted download has left."""
    models = online(home, release.url)
    release.pause_s = 0.02
    download = models.download("vertebrae_mr")
    assert eventually(lambda: release.total_bytes() > 5 * PIECE_BYTES)
    models.cancel("vertebrae_mr")
    release.pause_s = 0
    assert last(download).status == "cancelled"
    assert eventually(lambda: not is_growing(home))
    return part_bytes(home)


def part_bytes(home: Path) -> int:
    return next(home.rglob("*.part")).stat().st_size


def is_growing(home: Path) -> bool:
    return online(home, "http://127.0.0.1:9").status("vertebrae_mr").state == "downloading"


def test_without_room_a_download_ends_with_figures_and_goes_on_when_there_is_some(
    small_disk: Path, release: SlowRelease
) -> None:
    home = small_disk / "home"
    kept_bytes = begun(home, release)
    ballast = fill(small_disk, leaving_bytes=100_000)
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": release.url}) as server:
        with server.events("POST", "/api/models/download/vertebrae_mr") as events:
            refused = list(events)[-1]
        assert (refused["status"], refused["code"]) == ("error", "disk_full")
        assert "MB are needed" in refused["error"] or "MB more are needed" in refused["error"]
        assert part_bytes(home) == kept_bytes
        ballast.unlink()
        with server.events("POST", "/api/models/download/vertebrae_mr") as events:
            assert list(events)[-1]["status"] == "complete"
    assert release.asked[-1][1] == kept_bytes


def test_without_room_an_import_is_507_and_leaves_nothing(small_disk: Path, release: SlowRelease) -> None:
    home = small_disk / "home"
    home.mkdir()
    fill(small_disk, leaving_bytes=200_000)
    with live_server(home, {"OPENSCANS_OFFLINE": "1"}) as server:
        path = str(release_zip(release.folder, 756))
        answer = server.post("/api/models/import/vertebrae_mr", {"file_path": path})
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
        assert server.get("/api/models/status?task=vertebrae_mr").json()["state"] == "absent"
    assert not list(home.rglob("*.unpacking"))
