"""The phantom's files as other libraries read them: SimpleITK's GDCM, pydicom and nibabel."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from phantom.files import DicomStyle, reorient, write_dicom_series, write_nifti

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLosslessSV1,
    RLELossless,
)


def some_voxels(seed: int = 0, shape_zyx: tuple[int, int, int] = (5, 17, 22)) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-1024, 3072, shape_zyx).astype(np.int16)


def axial_affine(column_mm: float = 0.7, row_mm: float = 0.8, step_mm: float = 2.5) -> NDArray[np.float64]:
    affine = np.diag([column_mm, row_mm, step_mm, 1.0])
    affine[:3, 3] = (-30.5, 12.25, -400.0)
    return affine


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_another_reader_decodes_what_was_written(tmp_path: Path, syntax: UID, signed: bool) -> None:
    sitk = pytest.importorskip("SimpleITK")
    voxels = some_voxels()
    files = write_dicom_series(tmp_path, voxels, axial_affine(), DicomStyle(transfer_syntax=syntax, signed=signed))
    assert pydicom.dcmread(files[0]).file_meta.TransferSyntaxUID == syntax
    image = sitk.ReadImage([str(file) for file in files])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels)


def test_another_reader_finds_the_place_that_was_written(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    affine = axial_affine()
    image = sitk.ReadImage([str(file) for file in write_dicom_series(tmp_path, some_voxels(), affine)])
    np.testing.assert_allclose(image.GetSpacing(), (0.7, 0.8, 2.5))
    np.testing.assert_allclose(image.GetOrigin(), affine[:3, 3])


def test_nobody_takes_it_for_a_patient(tmp_path: Path) -> None:
    header = pydicom.dcmread(write_dicom_series(tmp_path, some_voxels(), axial_affine())[0])
    assert header.PatientName == "PHANTOM^SYNTHETIC"
    assert header.PatientID == "PHANTOM"


def test_shuffled_names_hide_the_order_and_the_paths_keep_it(tmp_path: Path) -> None:
    style = DicomStyle(shuffle_seed=3, suffix="", reversed_numbers=True)
    files = write_dicom_series(tmp_path, some_voxels(), axial_affine(), style)
    heights = [float(pydicom.dcmread(file).ImagePositionPatient[2]) for file in files]
    numbers = [int(pydicom.dcmread(file).InstanceNumber) for file in files]
    assert heights == sorted(heights)
    assert numbers == [5, 4, 3, 2, 1]
    assert files != sorted(files)
    assert {file.suffix for file in files} == {""}


def test_slice_thickness_may_lie(tmp_path: Path) -> None:
    style = DicomStyle(slice_thickness_mm=4.0)
    header = pydicom.dcmread(write_dicom_series(tmp_path, some_voxels(), axial_affine(step_mm=2.5), style)[0])
    assert header.SliceThickness == 4.0


def test_two_series_differ_unless_told(tmp_path: Path) -> None:
    one, other = (
        pydicom.dcmread(write_dicom_series(tmp_path / name, some_voxels(), axial_affine())[0]) for name in ("a", "b")
    )
    empty = write_dicom_series(tmp_path / "c", some_voxels(), axial_affine(), DicomStyle(series_uid=""))
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert pydicom.dcmread(empty[0]).SeriesInstanceUID == ""


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        write_dicom_series(tmp_path, np.full((3, 4, 4), -1025, np.int16), axial_affine(), DicomStyle(signed=False))


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_nifti_stores_x_first_in_ras(tmp_path: Path, name: str) -> None:
    voxels, affine = some_voxels(), axial_affine()
    write_nifti(tmp_path / name, voxels, affine)
    image = nib.load(tmp_path / name)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), voxels.transpose(2, 1, 0))
    np.testing.assert_allclose(image.affine, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, rtol=1e-6)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "ASL"])
def test_a_turned_image_runs_towards_the_letters_it_was_given(axes: str) -> None:
    _, affine = reorient(some_voxels(), axial_affine(), axes)
    assert "".join(nib.aff2axcodes(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)) == axes


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR", "ASL"])
def test_a_turned_image_keeps_every_voxel_in_its_place(axes: str) -> None:
    voxels, affine = some_voxels(), axial_affine()
    turned, turned_affine = reorient(voxels, affine, axes)
    for z, y, x in [(0, 0, 0), (4, 3, 21), (2, 16, 5)]:
        there = np.linalg.solve(turned_affine, affine @ (x, y, z, 1))[:3]
        assert turned[tuple(np.rint(there[::-1]).astype(int))] == voxels[z, y, x]
