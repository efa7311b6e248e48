"""A disk that is too small, or becomes it, ends a download with figures; what came stays, and is enough to go on."""

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openscans.errors import DiskFull
from openscans.system import files
from openscans.weights import download
from openscans.weights.partial_file import PartialFile
from openscans.weights.retry_policy import RetryPolicy
from tests.live_server import eventually
from tests.release_server import PIECE_BYTES, Fault, ReleaseServer

CONTENT = random.Random(9).randbytes(3 * download.LOOK_EVERY_BYTES)
CUT = 1_000 * PIECE_BYTES
DISK_BYTES = files.RESERVE_BYTES + len(CONTENT) + 2_000_000
BRISK = RetryPolicy(stall_s=10, first_pause_s=0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReleaseServer]:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "a.zip").write_bytes(CONTENT)
    with ReleaseServer.over(folder) as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Room for the file, the reserve and hardly more."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by an administrator of Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def take(folder: Path, all_but_bytes: int) -> Path:
    """A file that leaves only so much free."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - all_but_bytes)
    return filler


def fetched(server: ReleaseServer, target: Path) -> bytes:
    return download.fetch([f"{server.url}/a.zip"], target, retry_policy=BRISK).path.read_bytes()


def test_a_file_too_large_for_the_disk_is_not_begun(server: ReleaseServer, tmp_path: Path) -> None:
    server.always = Fault(announce=10**15)
    with pytest.raises(DiskFull, match=r"1000000\d\d\d MB are needed on the disk; \d+ MB are free"):
        fetched(server, tmp_path / "home" / "a.zip")
    assert PartialFile(tmp_path / "home" / "a.zip").size_bytes == 0


def test_a_file_that_leaves_no_room_for_what_it_holds_is_not_begun(server: ReleaseServer, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    sizes = shutil.disk_usage(tmp_path).free / len(CONTENT)
    with pytest.raises(DiskFull, match="needed"):
        download.fetch([f"{server.url}/a.zip"], target, retry_policy=BRISK, room_after=sizes)
    assert PartialFile(target).size_bytes == 0


@pytest.mark.parametrize("left_bytes", [files.RESERVE_BYTES, 1_000_000], ids=["noticed", "written to its end"])
def test_a_disk_that_becomes_full_keeps_what_came(server: ReleaseServer, small_disk: Path, left_bytes: int) -> None:
    target = small_disk / "a.zip"
    server.faults.append(Fault(stall_after=CUT))
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(fetched, server, target)
        try:
            assert eventually(lambda: PartialFile(target).size_bytes == CUT)
            filler = take(small_disk, left_bytes)
        finally:
            server.resume.set()
        with pytest.raises(DiskFull) as caught:
            fetching.result()
    figures = re.fullmatch(r"(\d+) MB are needed on the disk; (\d+) MB are free\.", caught.value.message)
    assert figures is not None
    assert int(figures[1]) > int(figures[2])
    kept_bytes = PartialFile(target).size_bytes
    assert kept_bytes > CUT
    filler.unlink()
    assert fetched(server, target) == CONTENT
    assert server.requests[-1].range == f"bytes={kept_bytes}-"
