"""Enhanced multi-frame DICOM: one file, whose functional groups say where each frame lies."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from openscans import errors
from phantom.files import DicomStyle, write_dicom_series
from tests.enhanced import merged
from tests.phantom.test_files import axial_affine, some_voxels
from tests.reading import read_volume

SHUFFLED = [3, 0, 4, 1, 2]
"""The order of the frames in the file; they lie in another."""


def write_enhanced(folder: Path, syntax: UID, order: list[int] = SHUFFLED, intercept_step: int = 0) -> Path:
    """One multi-frame file of the slices that the plain writer makes; ``folder`` keeps only that file."""
    files = write_dicom_series(folder, some_voxels(), axial_affine(), DicomStyle(transfer_syntax=syntax))
    return merged(files, order, intercept_step=intercept_step)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless], ids=lambda syntax: syntax.keyword
)
def test_frames_are_sorted_by_where_they_lie(tmp_path: Path, syntax: UID) -> None:
    volume = read_volume(write_enhanced(tmp_path, syntax))
    np.testing.assert_array_equal(volume.voxels, some_voxels())
    np.testing.assert_allclose(volume.affine_lps, axial_affine())
    assert [instance.frame for instance in volume.instances] == list(np.argsort(SHUFFLED))


def test_every_frame_has_its_own_intercept(tmp_path: Path) -> None:
    write_enhanced(tmp_path, ExplicitVRLittleEndian, intercept_step=100)
    added: NDArray[Any] = np.argsort(SHUFFLED)[:, None, None] * 100
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, some_voxels() + added)


def test_progress_counts_frames(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    read_volume(write_enhanced(tmp_path, JPEG2000Lossless), report=lambda done, total: heard.append((done, total)))
    assert heard[-1] == (5, 5)


def test_two_frames_at_one_place_are_several_volumes(tmp_path: Path) -> None:
    with pytest.raises(errors.SeveralVolumes):
        read_volume(write_enhanced(tmp_path, ExplicitVRLittleEndian, order=[0, 1, 2, 3, 4, 1]))


def test_frames_without_groups_of_their_own_have_no_place(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path, ExplicitVRLittleEndian)
    whole = pydicom.dcmread(path)
    del whole.PerFrameFunctionalGroupsSequence
    whole.save_as(path)
    with pytest.raises(errors.InconsistentGeometry):
        read_volume(path)


def test_frames_that_were_cut_off_are_a_corrupt_file(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path, ExplicitVRLittleEndian)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(errors.CorruptFile):
        read_volume(path)
