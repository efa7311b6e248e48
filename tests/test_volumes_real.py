"""Real CT and MR series with something odd about each: the right geometry or a named error, never a wrong number."""

import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name everybody knows it by

import errors
import volumes
from phantom.files import reorient
from volumes.pixels import PixelFile

CASES = {
    "01_ge_ct_tilt_varspacing": ((512, 611, 134), (0.488, 0.488, 1.083)),
    "02_philips_ct_tilt_neg18": ((512, 519, 5), (0.482, 0.482, 2.371)),
    "04_philips_ct_study_dicomdir": ((512, 512, 8), (0.451, 0.451, 5.0)),
    "04_philips_ct_study_dicomdir/data/S21570/S2010/I110": ((512, 512, 8), (0.451, 0.451, 5.0)),
    "04_philips_ct_study_dicomdir/data/DICOMDIR": errors.NoImage,
    "05_siemens_ct_gantrytilt_14deg": ((512, 521, 4), (0.418, 0.418, 4.851)),
    "06_siemens_ct_not_a_volume": errors.TooFewSlices,
    "07_ct_variable_increment": ((512, 512, 5), (0.43, 0.43, 5.0)),
    "09_mr_two_orientations_one_series": errors.InconsistentGeometry,
    "11_ct_one_slice_16_transfer_syntaxes": errors.TooFewSlices,
    "12_mr_sagittal_compressed_series": ((256, 256, 4), (1.0, 1.0, 1.0)),
    "14_enhanced_mr_multiframe/data/siemens": ((256, 256, 8), (0.938, 0.938, 0.9)),
    "14_enhanced_mr_multiframe/data/philips": ((256, 256, 8), (1.0, 1.0, 1.2)),
    "15_ct_with_seg_and_sr": ((512, 512, 3), (0.811, 0.811, 1.0)),
    "15_ct_with_seg_and_sr/data/02.dcm": ((512, 512, 3), (0.811, 0.811, 1.0)),
    "15_ct_with_seg_and_sr/data/liver.dcm": errors.UnsupportedModality,
    "15_ct_with_seg_and_sr/data/sr.dcm": errors.NoImage,
    "16_signed_12bit_mr": errors.TooFewSlices,
    "17_ct_single_oddities": errors.TooFewSlices,
    "17_ct_single_oddities/data/FreezePattern.dcm": errors.NoImage,
    "17_ct_single_oddities/data/no_meta.dcm": errors.UnsupportedFile,
    "17_ct_single_oddities/data/GH355.dcm": errors.TooFewSlices,
    "19_monochrome1_cr": errors.UnsupportedModality,
}
"""Size and spacing (x, y, z; mm), or the error."""

LOSSLESS = ("1.2", "1.2.1", "1.2.2", "1.2.1.99", "1.2.4.57", "1.2.4.70", "1.2.4.80", "1.2.4.90", "1.2.5")
NEARLY_LOSSLESS = {"1.2.4.81": 1, "1.2.4.91": 5}
WINDOWED = ("1.2.4.50", "1.2.4.51", "1.2.4.53", "1.2.4.55")
"""What follows 1.2.840.10008. in a transfer syntax, and the largest difference."""

SLICE_SHA256 = "1bee432808f49770bbc30d904e3e744082b0ba41704d4943e7de5bcb3e3d72f9"
SAGITTAL_SHA256_START = "41e7b7d0a79d4c78"


def one_slice(shared_data: Path, syntax: str) -> PixelFile:
    folder = shared_data / "dicom" / "11_ct_one_slice_16_transfer_syntaxes" / "data"
    return PixelFile(next(folder.glob(f"*_1.2.840.10008.{syntax}.dcm")))


def simpleitk_series(folder: Path) -> sitk.Image:
    files = [str(instance.file) for instance in volumes.read(folder).instances]
    return sitk.ReadImage(files)


@pytest.mark.parametrize(("case", "expected"), CASES.items())
def test_a_case_gives_its_geometry_or_its_error(shared_data: Path, case: str, expected: Any) -> None:
    path = shared_data / "dicom" / case / ("" if "/" in case else "data")
    if isinstance(expected, type):
        with pytest.raises(errors.OpenScansError) as caught:
            volumes.read(path)
        assert type(caught.value) is expected
        return
    volume = volumes.read(path)
    spacing_mm = np.linalg.norm(volume.affine_lps[:3, :3], axis=0)
    assert (volume.voxels.shape[::-1], tuple(spacing_mm.round(3))) == (
        expected[0],
        pytest.approx(expected[1], abs=1e-3),
    )


def test_the_anonymised_ct_lies_where_simpleitk_says(shared_data: Path) -> None:
    volume, image = (reader(shared_data / "ct_dicom_series") for reader in (volumes.read, simpleitk_series))
    assert volume.series_instance_uid is None
    np.testing.assert_allclose(volume.affine_lps[:3, :3], np.diag(image.GetSpacing()), atol=1e-4)
    np.testing.assert_allclose(volume.affine_lps[:3, 3], image.GetOrigin(), atol=1e-4)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))


def test_the_anonymised_ct_covers_the_grid_of_its_reference_segmentation(shared_data: Path) -> None:
    volume = volumes.read(next((shared_data / "ct_dicom_series").iterdir()))
    reference = nib.load(shared_data / "ct_dicom_series_reference" / "total.nii.gz")
    _, affine_lps = reorient(volume.voxels, volume.affine_lps, "".join(nib.aff2axcodes(reference.affine)))
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ affine_lps, reference.affine, atol=1e-3)


@pytest.mark.parametrize("name", ["ct_abdomen_small/ct.nii.gz", "mr_abdomen_small/mr.nii.gz"])
def test_a_nifti_image_is_what_nibabel_reads(shared_data: Path, name: str) -> None:
    volume, image = volumes.read(shared_data / name), nib.load(shared_data / name)
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
    folder = shared_data / "dicom" / "12_mr_sagittal_compressed_series" / "data" / name
    volume, image = volumes.read(folder), simpleitk_series(folder)
    direction = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(volume.affine_lps[:3, :3], direction * image.GetSpacing(), atol=1e-4)
    np.testing.assert_allclose(volume.affine_lps[:3, 3], image.GetOrigin(), atol=1e-4)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("name", ["j2k", "jpeg", "jpegls", "rle"])
def test_the_compressed_sagittal_mr_has_the_published_pixels(shared_data: Path, name: str) -> None:
    volume = volumes.read(shared_data / "dicom" / "12_mr_sagittal_compressed_series" / "data" / name)
    by_x = volume.voxels if volume.affine_lps[0, 2] > 0 else volume.voxels[::-1]
    assert hashlib.sha256(by_x.astype("<u2").tobytes()).hexdigest().startswith(SAGITTAL_SHA256_START)


@pytest.mark.parametrize("name", ["siemens", "philips"])
def test_enhanced_mr_lies_where_simpleitk_says(shared_data: Path, name: str) -> None:
    folder = shared_data / "dicom" / "14_enhanced_mr_multiframe" / "data" / name
    volume, image = volumes.read(folder), sitk.ReadImage(str(next(folder.iterdir())))
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
    values = PixelFile(shared_data / "dicom" / "16_signed_12bit_mr" / "data" / name).frame(0)
    assert stripes <= set(np.unique(values).tolist())


@pytest.mark.parametrize("case", ["16_signed_12bit_mr", "17_ct_single_oddities"])
def test_an_odd_file_is_never_a_crash(shared_data: Path, case: str) -> None:
    for file in sorted((shared_data / "dicom" / case / "data").iterdir()):
        with pytest.raises(errors.VolumeError):
            volumes.read(file)
