"""The executable end to end, as a viewer uses it: spawned with pipes that nobody reads, and killed without a word.

Once as it is, and once where there is no Python on the machine; what is started once only, there.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from openscans.version import version
from phantom import drawing, grid, spine
from phantom.demo import WEIGHTS
from phantom.files import DicomStyle, write_dicom_series, write_nifti
from tests.executable import NAME, built
from tests.live_server import LiveServer, are_gone, children_of, live_server
from tests.release_server import ReleaseServer

PHANTOM = spine.describe(7)
LABELS = [*drawing.truth(PHANTOM)]

NO_PYTHON = {"PATH": "/nowhere", "PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere", "VIRTUAL_ENV": "/nowhere"}
"""What an executable that wanted any Python but its own would stumble over."""


@pytest.fixture(scope="module")
def executable() -> Path:
    return built()


@pytest.fixture(scope="module")
def scan() -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    shape, affine = grid.axial(PHANTOM, (1.2, 1.2, 1.5))
    return drawing.render(PHANTOM, shape, affine, seed=12)[0], affine


@pytest.fixture(scope="module")
def nifti(scan: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nifti") / "image.nii.gz"
    write_nifti(path, *scan)
    return path


@pytest.fixture(scope="module")
def air(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image in which a detection has little to do."""
    path = tmp_path_factory.mktemp("air") / "air.nii.gz"
    write_nifti(path, np.full((40, 40, 40), -1000, np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    return path


@pytest.fixture(scope="module", params=[{}, NO_PYTHON], ids=["", "without any Python"])
def server(
    request: pytest.FixtureRequest,
    executable: Path,
    trained_release: ReleaseServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveServer]:
    """The executable serving, with weights that it has downloaded."""
    env = {"OPENSCANS_WEIGHTS_URL": trained_release.url, **request.param}
    with live_server(tmp_path_factory.mktemp("home"), env, program=(), interpreter=executable) as live:
        with live.events("POST", "/api/models/download/vertebrae") as events:
            assert [*events][-1]["status"] == "complete"
        yield live


def labels(answer: Mapping[str, Any]) -> list[str]:
    return [vertebra["label"] for vertebra in answer["vertebrae"]]


def test_health_tells_the_version_that_the_file_is_named_after(server: LiveServer, executable: Path) -> None:
    assert server.get("/api/health").json()["version"] == version()
    assert executable.name.removesuffix(".exe") == NAME


def test_a_series_in_jpeg_2000_gives_every_vertebra(server: LiveServer, scan: tuple[Any, Any], tmp_path: Path) -> None:
    paths = write_dicom_series(tmp_path, *scan, DicomStyle(transfer_syntax=JPEG2000Lossless))
    assert labels(server.detect(paths[40], use_cache=False).json()) == LABELS


@pytest.mark.parametrize(
    "syntax", [JPEGLosslessSV1, JPEGLSLossless, RLELossless, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_every_other_decoder_is_there(server: LiveServer, scan: tuple[Any, Any], tmp_path: Path, syntax: UID) -> None:
    voxels, affine = scan
    paths = write_dicom_series(tmp_path, voxels[:40], affine, DicomStyle(transfer_syntax=syntax))
    response = server.detect(paths[0], fast_mode=True, use_cache=False)
    assert response.status_code == 200, response.text
    assert response.json()["image"]["size"]["z"] == 40


def test_nifti_gives_every_vertebra(server: LiveServer, nifti: Path) -> None:
    assert labels(server.detect(nifti, use_cache=False).json()) == LABELS


def test_fast_mode_gives_every_vertebra(server: LiveServer, nifti: Path) -> None:
    answer = server.detect(nifti, fast_mode=True, use_cache=False).json()
    assert (labels(answer), answer["fast_mode"]) == (LABELS, True)


def test_a_card_that_is_asked_for_and_not_there_is_a_warning(server: LiveServer, air: Path) -> None:
    answer = server.detect(air, device="cuda:7", use_cache=False).json()
    assert answer["device"] == "cpu"
    assert "device_fallback" in [warning["code"] for warning in answer["warnings"]]


def test_nrrd_is_a_sentence(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "image.nrrd").write_bytes(b"NRRD0004\n")
    response = server.detect(tmp_path / "image.nrrd")
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_file")
    assert "SimpleITK" in response.json()["error"]


def test_a_cancelled_detection_ends_and_the_next_one_runs(server: LiveServer, nifti: Path, air: Path) -> None:
    with server.detection_events(nifti, use_cache=False) as events:
        job_id = next(event for event in events if event["status"] == "segmenting")["job_id"]
        server.delete(f"/api/jobs/{job_id}")
        assert [*events][-1]["status"] == "cancelled"
    assert server.detect(air, use_cache=False).status_code == 200


def test_a_worker_that_is_killed_is_told_and_replaced(server: LiveServer, nifti: Path, air: Path) -> None:
    with server.detection_events(nifti, use_cache=False) as events:
        next(event for event in events if event["status"] == "segmenting")
        psutil.Process(worker_of(server.process.pid)).kill()
        assert [*events][-1]["code"] == "worker_crashed"
    assert server.detect(air, use_cache=False).status_code == 200


def worker_of(pid: int) -> int:
    """Beside it runs the small process in which `multiprocessing` counts what is shared."""
    [worker] = (child for child in children_of(pid) if "--multiprocessing-fork" in command_of(child))
    return worker


def command_of(pid: int) -> list[str]:
    return psutil.Process(pid).cmdline()


VIEWER = f"""
import os, subprocess, sys
server = subprocess.Popen(
    [sys.argv[1], "--parent-pid", str(os.getpid())], text=True, env=os.environ | {NO_PYTHON!r},
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
)
print(server.stdout.readline(), end="", flush=True)
server.wait()
"""
"""Holds the server's streams and reads nothing but the first line."""

SIGNS = [sign for sign in signal.Signals if sign.name in ("SIGKILL", "SIGTERM")]


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.name)
def test_a_viewer_that_is_killed_during_a_detection_takes_all_along(
    server: LiveServer, executable: Path, nifti: Path, sign: signal.Signals
) -> None:
    with live_server(server.home, {"DEBUG": "1"}, program=("-c", VIEWER), flags=(str(executable),)) as spawned:
        with spawned.client() as client:
            # More than the 64 kB that a pipe holds.
            assert {client.get("/api/nothing?" + 1000 * "x").status_code for _ in range(200)} == {404}
        with spawned.detection_events(nifti, use_cache=False) as events:
            next(event for event in events if event["status"] == "segmenting")
            pid = int(spawned.get("/api/health").json()["pid"])
            processes = {pid, *children_of(pid)}
            assert worker_of(pid) in processes
            spawned.process.send_signal(sign)
            assert are_gone(processes, within_s=2)


def moved(executable: Path, to: Path) -> Path:
    """The whole folder of the executable as ``to``, of links to the same files where the disk allows it."""
    shutil.copytree(executable.parent, to, symlinks=True, copy_function=linked)
    return to / executable.name


def linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def state_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Whoever may write everywhere is found out by the folder's state."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    before = state_of(folder)
    for path in folders:
        path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)
    assert state_of(folder) == before


@pytest.mark.parametrize("way", ["from another folder", "through a link", "spaces and other letters", "read-only"])
def test_server_and_worker_start_wherever_the_folder_lies(
    executable: Path, air: Path, tmp_path: Path, way: str
) -> None:
    path = executable
    if way == "through a link":
        path = tmp_path / "vertebrae"
        path.symlink_to(executable)
    elif way != "from another folder":
        path = moved(executable, tmp_path / "Räume & Säle — 脊椎")
    with read_only(path.parent) if way == "read-only" else nullcontext(), started(path, tmp_path / "home") as server:
        for task in ("total_body", "vertebrae"):
            assert server.post(f"/api/models/import/{task}", {"file_path": str(WEIGHTS)}).status_code == 200
        response = server.detect(air)
        assert response.status_code == 200, response.text
        assert worker_of(server.process.pid)


def started(path: Path, home: Path) -> AbstractContextManager[LiveServer]:
    return live_server(home, NO_PYTHON, program=(), interpreter=path)


def test_the_version_is_told(executable: Path) -> None:
    command = [executable, "--version"]
    said = subprocess.run(command, env=os.environ | NO_PYTHON, capture_output=True, text=True, check=True)
    assert said.stdout == f"{version()}\n"


def test_the_demonstration_is_part_of_it(executable: Path, tmp_path: Path) -> None:
    command = [executable, "demo", "--folder", str(tmp_path / "demo")]
    env = os.environ | NO_PYTHON
    said = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "demo" / "vertebrae.png").read_bytes().startswith(b"\x89PNG")


def test_health_answers_within_a_second_and_a_half_of_a_warm_start_in_little_memory(
    executable: Path, tmp_path: Path
) -> None:
    seconds, resident_mb = [], []
    for _ in range(3):
        began_s = time.monotonic()
        with started(executable, tmp_path) as server:
            assert server.get("/api/health").status_code == 200
            seconds.append(time.monotonic() - began_s)
            resident_mb.append(psutil.Process(server.process.pid).memory_info().rss / 2**20)
    assert min(seconds) < 1.5
    assert max(resident_mb) < 90
