"""Real CT and MR series: their pixels and places as other readers find them. What each gives stands in the corpus."""

import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from openscans import errors
from openscans.volumes.headers import read_header
from openscans.volumes.pixels import PixelFile
from phantom.files import reorient
from tests.reading import read_volume

LOSSLESS = ("1.2", "1.2.1", "1.2.2", "1.2.1.99", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5")
NEARLY_LOSSLESS = {"1.2.4.81": 1, "1.2.4.91": 5}
WINDOWED = ("1.2.4.50", "1.2.4.51", "1.2.4.53", "1.2.4.55")
"""What follows 1.2.840.10008. in a transfer syntax, and the largest difference."""

SLICE_SHA256 = "1bee432808f49770bbc30d904e3e744082b0ba41704d4943e7de5bcb3e3d72f9"
SAGITTAL_SHA256_START = "41e7b7d0a79d4c78"


def pixels_of(file: Path) -> PixelFile:
    storage = read_header(file).slices[0].storage
    assert storage is not None
    return PixelFile(storage)


def one_slice(shared_data: Path, syntax: str) -> PixelFile:
    folder = shared_data / "dicom" / "11_ct_one_slice_16_transfer_syntaxes" / "data"
    return pixels_of(next(folder.glob(f"*_1.2.840.10008.{syntax}.dcm")))


def simpleitk_series(folder: Path) -> Any:
    sitk = pytest.importorskip("SimpleITK")
    files = [str(instance.file) for instance in read_volume(folder).instances]
    return sitk.ReadImage(files)


def test_the_anonymised_ct_lies_where_simpleitk_says(shared_data: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    volume, image = (reader(shared_data / "ct_dicom_series") for reader in (read_volume, simpleitk_series))
    assert volume.series_uid.uid == ""
    np.testing.assert_allclose(volume.affine_lps[:3, :3], np.diag(image.GetSpacing()), atol=1e-4)
    np.testing.assert_allclose(volume.affine_lps[:3, 3], image.GetOrigin(), atol=1e-4)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))


def test_the_anonymised_ct_covers_the_grid_of_its_reference_segmentation(shared_data: Path) -> None:
    volume = read_volume(next((shared_data / "ct_dicom_series").iterdir()))
    reference = nib.load(shared_data / "ct_dicom_series_reference" / "total.nii.gz")
    _, affine_lps = reorient(volume.voxels, volume.affine_lps, "".join(nib.aff2axcodes(reference.affine)))
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ affine_lps, reference.affine, atol=1e-3)


@pytest.mark.parametrize("name", ["ct_abdomen_small/ct.nii.gz", "mr_abdomen_small/mr.nii.gz"])
def test_a_nifti_image_is_what_nibabel_reads(shared_data: Path, name: str) -> None:
    volume, image = read_volume(shared_data / name), nib.load(shared_data / name)
    np.testing.assert_array_equal(volume.voxels.T, np.asanyarray(image.dataobj))
    np.testing.assert_array_equal(volume.affine_lps, np.diag([-1, -1, 1, 1]) @ image.affine)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_syntaxes_give_the_same_bits(shared_data: Path, syntax: str) -> None:
    values = one_slice(shared_data, syntax).frame(0)
    assert hashlib.sha256(values.astype("<i2").tobytes()).hexdigest() == SLICE_SHA256


@pytest.mark.parametrize(("syntax", "difference"), NEARLY_LOSSLESS.items())
def test_nearly_lossless_syntaxes_are_close(shared_data: Path, syntax: str, difference: int) -> None:
    exact = one_slice(shared_data, "1.2.1").frame(0).astype(np.int32)
    assert np.abs(one_slice(shared_data, syntax).frame(0) - exact).max() <= difference


@pytest.mark.parametrize("syntax", WINDOWED)
def test_jpeg_of_a_window_is_refused(shared_data: Path, syntax: str) -> None:
    with pytest.raises(errors.UnsupportedTransferSyntax):
        one_slice(shared_data, syntax).frame(0)


@pytest.mark.parametrize("name", ["explicit_le", "implicit_le", "j2k", "jpeg", "jpegls", "rle"])
def test_the_sagittal_mr_lies_where_simpleitk_says(shared_data: Path, name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder = shared_data / "dicom" / "12_mr_sagittal_compressed_series" / "data" / name
    volume, image = read_volume(folder), simpleitk_series(folder)
    direction = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(volume.affine_lps[:3, :3], direction * image.GetSpacing(), atol=1e-4)
    np.testing.assert_allclose(volume.affine_lps[:3, 3], image.GetOrigin(), atol=1e-4)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("name", ["j2k", "jpeg", "jpegls", "rle"])
def test_the_compressed_sagittal_mr_has_the_published_pixels(shared_data: Path, name: str) -> None:
    volume = read_volume(shared_data / "dicom" / "12_mr_sagittal_compressed_series" / "data" / name)
    by_x = volume.voxels if volume.affine_lps[0, 2] > 0 else volume.voxels[::-1]
    assert hashlib.sha256(by_x.astype("<u2").tobytes()).hexdigest().startswith(SAGITTAL_SHA256_START)


@pytest.mark.parametrize("name", ["siemens", "philips"])
def test_enhanced_mr_lies_where_simpleitk_says(shared_data: Path, name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    folder = shared_data / "dicom" / "14_enhanced_mr_multiframe" / "data" / name
    volume, image = read_volume(folder), sitk.ReadImage(str(next(folder.iterdir())))
    size = np.array(image.GetSize()) - 1
    ours = [volume.affine_lps @ (*corner, 1) for corner in ((0, 0, 0), size)]
    theirs = [image.TransformContinuousIndexToPhysicalPoint([float(i) for i in corner]) for corner in ((0, 0, 0), size)]
    np.testing.assert_allclose(sorted(tuple(point[:3]) for point in ours), sorted(theirs), atol=0.01)
    assert [instance.frame for instance in volume.instances] in (list(range(8)), list(range(7, -1, -1)))


@pytest.mark.parametrize(
    ("name", "stripes"),
    [("12bitSigned_0x0F0F.dcm", {-241, -1}), ("12bitUnsigned_0x0F0F.dcm", {3855, 4095})],
)
def test_twelve_bits_have_the_sign_the_header_gives(shared_data: Path, name: str, stripes: set[int]) -> None:
    values = pixels_of(shared_data / "dicom" / "16_signed_12bit_mr" / "data" / name).frame(0)
    assert stripes <= set(np.unique(values).tolist())


@pytest.mark.parametrize("case", ["16_signed_12bit_mr", "17_ct_single_oddities"])
def test_an_odd_file_is_never_a_crash(shared_data: Path, case: str) -> None:
    for file in sorted((shared_data / "dicom" / case / "data").iterdir()):
        with pytest.raises(errors.VolumeError):
            read_volume(file)
