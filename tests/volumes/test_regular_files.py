"""Files in whose place a pipe is put, between the moment when they are found and that when they are opened."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from openscans.errors import CorruptFile
from openscans.system.regular_files import open_regular
from openscans.volumes.itk import open_itk
from phantom.files import write_dicom_series
from tests.live_server import ROOT, LiveServer, live_server
from tests.phantom.test_files import axial_affine, some_voxels

AUDITED = ("-m", "tests.audited_server")

SWAPPED = "swapped.nii"

SOON_S = 3.0
"""A reading takes a fraction of a second; who waits for a pipe waits for ever."""


def test_a_pipe_a_folder_and_a_device_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null"), tmp_path / "missing"):
        with pytest.raises(OSError, match=r"regular|No such"):
            open_regular(path)


def test_a_file_is_read_whether_through_a_link_or_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in (tmp_path / "file", str(tmp_path / "link")):
        with open_regular(path) as buffered, open_regular(path, buffering=0) as raw:
            assert buffered.read() == raw.read() == b"content"
            assert not os.get_inheritable(raw.fileno())


def nifti(folder: Path, name: str) -> Path:
    kind = nib.Nifti1Pair if name.endswith(".hdr") else nib.Nifti1Image
    nib.save(kind(some_voxels().T, np.eye(4)), folder / name)
    return folder / name


def series(folder: Path) -> list[Path]:
    return write_dicom_series(folder, some_voxels(), axial_affine())


def deflate(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(file)


def readings(image: Path, file: Path) -> list[str]:
    """How reading ``image`` ends when ``file`` is a pipe from its first opening on, from its second on, and so on."""
    command = [sys.executable, "-m", "tests.piped_reader", str(image), str(file)]
    return list(json.loads(subprocess.check_output(command, cwd=ROOT, timeout=60)))


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_whenever_a_nifti_file_becomes_a_pipe_reading_ends(tmp_path: Path, name: str) -> None:
    found = readings(*[nifti(tmp_path, name)] * 2)
    assert len(found) > 2
    assert set(found) <= {"file_not_found", "corrupt_file"}


@pytest.mark.parametrize("suffix", [".hdr", ".img"])
def test_whenever_one_of_a_pair_becomes_a_pipe_reading_ends(tmp_path: Path, suffix: str) -> None:
    image = nifti(tmp_path, "image.hdr")
    found = readings(image, image.with_suffix(suffix))
    assert len(found) > 1
    assert set(found) <= {"file_not_found", "corrupt_file"}


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "slice"])
@pytest.mark.parametrize("deflated", [True, False], ids=["deflated", "native"])
def test_whenever_a_slice_becomes_a_pipe_reading_ends(tmp_path: Path, whole: bool, deflated: bool) -> None:
    """While headers are read, the others make a volume; after that it is told as damaged."""
    first, *_, last = series(tmp_path / "series")
    if deflated:
        deflate(last)
    found = readings(tmp_path / "series" if whole else first, last)
    slices, rows, columns = some_voxels().shape
    assert found[0] == str((slices - 1, rows, columns))
    assert set(found) == {found[0], "corrupt_file"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One without weights, whose worker runs; what has a certain name becomes a pipe when it is opened."""
    env = {"OPENSCANS_OFFLINE": "1", "AUDIT_PIPE": SWAPPED}
    home = tmp_path_factory.mktemp("home")
    with live_server(home, env, program=AUDITED) as running:
        assert asked(running, nifti(tmp_path_factory.mktemp("image"), "fine.nii"), within_s=60) == READ
        yield running


def asked(server: LiveServer, path: Path, *, use_cache: bool = True, within_s: float = SOON_S) -> tuple[int, str]:
    began_s = time.monotonic()
    body = {"file_path": str(path), "use_cache": use_cache}
    answer = httpx.post(f"{server.url}/api/detect-vertebrae", json=body, timeout=within_s, trust_env=False)
    assert time.monotonic() - began_s < within_s
    return answer.status_code, answer.json()["code"]


READ = (503, "model_missing")
"""The answer to an image whose modality was told."""


@pytest.mark.parametrize("use_cache", [True, False], ids=["in the server", "in the worker"])
def test_an_image_that_becomes_a_pipe_is_not_found_and_the_next_is_served(
    server: LiveServer, tmp_path: Path, use_cache: bool
) -> None:
    for _ in range(5):
        swapped = nifti(tmp_path, SWAPPED)
        assert asked(server, swapped, use_cache=use_cache) == (404, "file_not_found")
        assert swapped.is_fifo()
        swapped.unlink()
        assert asked(server, nifti(tmp_path, "fine.nii"), use_cache=use_cache) == READ
    assert server.get("/api/health").json()["worker"] == "ready"


@pytest.mark.parametrize(
    ("whole", "use_cache"),
    # The modality of one slice is told by itself.
    [(True, True), (True, False), (False, True)],
    ids=["folder, in the server", "folder, in the worker", "slice, in the server"],
)
def test_without_a_slice_that_becomes_a_pipe_a_folder_is_read(
    server: LiveServer, tmp_path: Path, whole: bool, use_cache: bool
) -> None:
    first, *_, last = series(tmp_path / "series")
    swapped = last.rename(last.with_name(SWAPPED))
    assert asked(server, tmp_path / "series" if whole else first, use_cache=use_cache) == READ
    assert swapped.is_fifo()
    assert asked(server, nifti(tmp_path, "fine.nii"), use_cache=use_cache) == READ


def test_a_file_for_simpleitk_that_became_a_pipe_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    os.mkfifo(tmp_path / "image.mha")
    with pytest.raises(CorruptFile):
        open_itk(tmp_path / "image.mha", lambda done, total: None)
