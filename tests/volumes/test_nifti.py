"""NIfTI files in every orientation and number format, against nibabel."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from openscans import errors, volumes
from phantom.files import reorient, write_nifti
from tests.phantom.test_files import axial_affine, some_voxels
from tests.reading import read_volume
from tests.volumes.test_dicom import oblique

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def saved(path: Path, values_xyz: NDArray[np.generic], affine_ras: NDArray[np.float64] | None = None) -> Path:
    nib.save(nib.Nifti1Image(values_xyz, np.eye(4) if affine_ras is None else affine_ras), path)
    return path


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "ASL", "SRA", "IPL"])
def test_the_axes_stay_as_they_are_stored(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "turned.nii.gz"
    write_nifti(path, *reorient(some_voxels(), axial_affine(), axes))
    volume, image = read_volume(path), nib.load(path)
    np.testing.assert_array_equal(volume.voxels.transpose(2, 1, 0), np.asanyarray(image.dataobj))
    np.testing.assert_array_equal(volume.affine_lps, LPS_FROM_RAS @ image.affine)


def test_a_voxel_keeps_its_place_in_every_orientation(tmp_path: Path) -> None:
    voxels = np.zeros((5, 17, 22), np.int16)
    voxels[3, 4, 19] = 1
    for axes in ("RAS", "LPS", "PIR", "IPL"):
        write_nifti(tmp_path / f"{axes}.nii", *reorient(voxels, oblique(), axes))
        volume = read_volume(tmp_path / f"{axes}.nii")
        z, y, x = np.argwhere(volume.voxels)[0]
        np.testing.assert_allclose(volume.affine_lps @ (x, y, z, 1), oblique() @ (19, 4, 3, 1), atol=1e-4)


def test_the_place_is_the_one_simpleitk_finds(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    write_nifti(tmp_path / "oblique.nii.gz", some_voxels(), oblique())
    volume, image = read_volume(tmp_path / "oblique.nii.gz"), sitk.ReadImage(str(tmp_path / "oblique.nii.gz"))
    theirs = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    np.testing.assert_allclose(volume.affine_lps[:3, :3], theirs, atol=1e-4)
    np.testing.assert_allclose(volume.affine_lps[:3, 3], image.GetOrigin(), atol=1e-3)


def test_a_file_with_qform_only_is_placed_by_it(tmp_path: Path) -> None:
    image = nib.Nifti1Image(some_voxels().transpose(2, 1, 0), None)
    image.set_qform(LPS_FROM_RAS @ oblique(), code=1)
    image.set_sform(None, code=0)
    nib.save(image, tmp_path / "qform.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "qform.nii").affine_lps, oblique(), atol=1e-4)


def test_the_format_tells_neither_modality_nor_instances(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.nii.gz", some_voxels().T)
    volume = read_volume(path)
    assert (volumes.open(path).modality, volume.modality, volume.series_uid.uid) == (None, None, "")
    assert volume.instances == ()


def test_scl_slope_and_inter_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(some_voxels().T, np.eye(4))
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "scaled.nii.gz")
    expected = nib.load(tmp_path / "scaled.nii.gz").get_fdata().T
    np.testing.assert_array_equal(read_volume(tmp_path / "scaled.nii.gz").voxels, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_whole_values_become_int16_however_they_are_stored(tmp_path: Path, dtype: type[np.generic]) -> None:
    values = np.abs(some_voxels()) % 250
    volume = read_volume(saved(tmp_path / "image.nii.gz", values.astype(dtype).T))
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, values)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_stay_as_float32(tmp_path: Path, dtype: type[np.generic]) -> None:
    values = (some_voxels() / 7).astype(dtype)
    volume = read_volume(saved(tmp_path / "image.nii.gz", values.T))
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, values.astype(np.float32))


def test_large_whole_values_keep_their_value(tmp_path: Path) -> None:
    values = some_voxels().astype(np.int32) * 1000
    np.testing.assert_array_equal(read_volume(saved(tmp_path / "image.nii", values.T)).voxels, values)


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    image = nib.Nifti1Image(some_voxels().T, np.eye(4), header)
    nib.save(image, tmp_path / "big.nii")
    assert nib.load(tmp_path / "big.nii").header.endianness == ">"
    np.testing.assert_array_equal(read_volume(tmp_path / "big.nii").voxels, some_voxels())


def test_nifti_2_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(some_voxels().T, np.eye(4)), tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "two.nii.gz").voxels, some_voxels())


def test_a_fourth_dimension_of_one_volume_is_dropped(tmp_path: Path) -> None:
    volume = read_volume(saved(tmp_path / "four.nii.gz", some_voxels().T[..., None]))
    np.testing.assert_array_equal(volume.voxels, some_voxels())


def test_a_file_without_its_suffix_is_not_called_damaged(tmp_path: Path) -> None:
    saved(tmp_path / "image.nii", some_voxels().T).rename(tmp_path / "image")
    with pytest.raises(errors.UnsupportedFile):
        read_volume(tmp_path / "image")


def test_progress_begins_and_ends(tmp_path: Path) -> None:
    heard: list[tuple[float, float]] = []
    path = saved(tmp_path / "image.nii.gz", some_voxels().T)
    read_volume(path, report=lambda done, total: heard.append((done, total)))
    assert heard[0] == (0, 1)
    assert heard[-1] == (1, 1)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_what_slicer_saves_lies_where_simpleitk_says(tmp_path: Path, suffix: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(some_voxels())
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-30.5, 12.25, -400.0))
    sitk.WriteImage(image, str(tmp_path / f"image{suffix}"))
    volume = read_volume(tmp_path / f"image{suffix}")
    np.testing.assert_array_equal(volume.voxels, some_voxels())
    np.testing.assert_allclose(volume.affine_lps, axial_affine())


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_reading_tells_how_many_bytes_are_read_and_can_be_cancelled_between_them(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (100, 200, 200)).astype(np.int16)
    path = tmp_path / name
    write_nifti(path, noise, np.diag([1.0, 1.0, 1.0, 1.0]))
    heard: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        heard.append((done, total))
        if cancelled and done > 1:
            raise errors.Cancelled

    cancelled = False
    read_volume(path, report=report)
    between = [done / total for done, total in heard[1:-1]]
    assert between == sorted(between)
    assert len(between) > 1
    cancelled = True
    with pytest.raises(errors.Cancelled):
        read_volume(path, report=report)


@pytest.mark.parametrize("replaced", ["image.hdr", "image.img"])
def test_a_pair_is_changed_where_either_of_its_files_is(tmp_path: Path, replaced: str) -> None:
    nib.save(nib.Nifti1Pair(some_voxels().T, np.eye(4)), tmp_path / "image.img")
    image = volumes.open(tmp_path / "image.img")
    assert image.is_unchanged()
    (tmp_path / replaced).write_bytes((tmp_path / replaced).read_bytes() + bytes(1))
    assert not image.is_unchanged()
