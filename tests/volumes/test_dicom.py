"""DICOM series as scanners write them: pixels, place, and which files belong together."""

import math
import shutil
import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from openscans import errors, volumes
from phantom.files import DicomStyle, write_dicom_series
from tests.bad_files import edit, replace_bits_stored
from tests.phantom.test_files import SYNTAXES, axial_affine, some_voxels
from tests.reading import read_volume

Affine = NDArray[np.float64]

ROW_COLUMN_STEP = {
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "axial, feet first": ((1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1), (-1, 0, 0)),
    "sagittal, from the right": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "coronal, from behind": ((1, 0, 0), (0, 0, -1), (0, -1, 0)),
}
"""Directions of growing column, row and slice (LPS)."""


def affine_of(directions: tuple[tuple[float, ...], ...]) -> Affine:
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(directions) * (0.7, 0.8, 2.5)
    affine[:3, 3] = (-30.5, 12.25, -400.0)
    return affine


def oblique() -> Affine:
    turn, nod = np.radians(23), np.radians(-14)
    around_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    around_x = np.array([[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]])
    return affine_of(tuple(map(tuple, (around_z @ around_x).T)))


AFFINES = {name: affine_of(directions) for name, directions in ROW_COLUMN_STEP.items()} | {"oblique": oblique()}


def along_the_normal(voxels: NDArray[np.int16], affine: Affine) -> tuple[NDArray[np.int16], Affine]:
    """What a series must come back as: z runs along row × column."""
    if np.linalg.det(affine[:3, :3]) > 0:
        return voxels, affine
    turned = affine.copy()
    turned[:3, 3] += affine[:3, 2] * (len(voxels) - 1)
    turned[:3, 2] *= -1
    return voxels[::-1], turned


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_lossless_syntax_gives_back_the_hounsfield_units(tmp_path: Path, syntax: UID, signed: bool) -> None:
    voxels = some_voxels()
    write_dicom_series(tmp_path, voxels, axial_affine(), DicomStyle(transfer_syntax=syntax, signed=signed))
    volume = read_volume(tmp_path)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, voxels)


@pytest.mark.parametrize("signed", [True, False])
def test_mr_has_the_stored_values(tmp_path: Path, signed: bool) -> None:
    voxels = np.abs(some_voxels())
    write_dicom_series(tmp_path, voxels, axial_affine(), DicomStyle(modality="MR", signed=signed))
    volume = read_volume(tmp_path)
    assert volume.modality == volumes.open(tmp_path).modality == "MR"
    np.testing.assert_array_equal(volume.voxels, voxels)


@pytest.mark.parametrize("name", AFFINES)
def test_the_place_is_the_one_that_was_written(tmp_path: Path, name: str) -> None:
    voxels, affine = along_the_normal(some_voxels(), AFFINES[name])
    write_dicom_series(tmp_path, some_voxels(), AFFINES[name])
    volume = read_volume(tmp_path)
    np.testing.assert_allclose(volume.affine_lps, affine, atol=1e-6)
    np.testing.assert_array_equal(volume.voxels, voxels)


@pytest.mark.parametrize("name", AFFINES)
def test_the_place_is_the_one_simpleitk_finds(tmp_path: Path, name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    files = write_dicom_series(tmp_path, some_voxels(), AFFINES[name])
    volume = read_volume(tmp_path)
    in_order = files if volume.instances[0].file == files[0] else files[::-1]
    image = sitk.ReadImage([str(file) for file in in_order])
    theirs = np.eye(4)
    theirs[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    theirs[:3, 3] = image.GetOrigin()
    np.testing.assert_allclose(volume.affine_lps, theirs, atol=1e-5)
    np.testing.assert_array_equal(volume.voxels, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("seed", range(12))
def test_in_any_direction_a_voxel_lies_where_its_own_header_puts_it(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(random.normal(size=(3, 3)))[0] * random.uniform(0.3, 4, 3)
    affine[:3, 3] = random.uniform(-500, 500, 3)
    write_dicom_series(tmp_path, some_voxels(), affine, DicomStyle(shuffle_seed=seed, reversed_numbers=bool(seed % 2)))
    volume = read_volume(tmp_path)
    for x, y, z in random.integers(0, (22, 17, 5), (20, 3)):
        header = pydicom.dcmread(volume.instances[z].file)
        row_mm, column_mm = header.PixelSpacing
        along_row, along_column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
        expected = np.array(header.ImagePositionPatient, float) + x * column_mm * along_row + y * row_mm * along_column
        np.testing.assert_allclose((volume.affine_lps @ (x, y, z, 1))[:3], expected, atol=1e-6)
        assert volume.voxels[z, y, x] == header.pixel_array[y, x]
    assert np.linalg.det(volume.affine_lps[:3, :3]) > 0


def test_neither_names_nor_instance_numbers_sort_the_slices(tmp_path: Path) -> None:
    voxels = some_voxels()
    write_dicom_series(tmp_path, voxels, axial_affine(), DicomStyle(shuffle_seed=1, suffix="", reversed_numbers=True))
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert [instance.instance_number for instance in volume.instances] == [5, 4, 3, 2, 1]


def test_the_step_comes_from_positions_not_from_slice_thickness(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, some_voxels(), axial_affine(step_mm=2.0), DicomStyle(slice_thickness_mm=3.0))
    assert read_volume(tmp_path).affine_lps[2, 2] == 2.0


def test_positions_rounded_to_a_hundredth_of_a_millimetre_are_even(tmp_path: Path) -> None:
    step_mm = 1.0 / 3
    for z, file in enumerate(write_dicom_series(tmp_path, some_voxels(), axial_affine(step_mm=step_mm))):
        edit(file, ImagePositionPatient=[0, 0, round(z * step_mm, 2)])
    assert read_volume(tmp_path).affine_lps[2, 2] == pytest.approx(step_mm, abs=0.005)


def test_instances_name_the_file_of_every_slice(tmp_path: Path) -> None:
    files = write_dicom_series(tmp_path, some_voxels(), AFFINES["axial, feet first"], DicomStyle(shuffle_seed=2))
    volume = read_volume(tmp_path)
    assert [instance.file for instance in volume.instances] == files[::-1]
    for instance in volume.instances:
        assert instance.sop_instance_uid == pydicom.dcmread(instance.file).SOPInstanceUID


def test_one_file_stands_for_its_whole_series(tmp_path: Path) -> None:
    files = write_dicom_series(tmp_path, some_voxels(), axial_affine())
    volume = read_volume(files[3])
    np.testing.assert_array_equal(volume.voxels, some_voxels())
    assert volume.series_uid.uid == pydicom.dcmread(files[3]).SeriesInstanceUID


def three_series(folder: Path) -> dict[str, str]:
    """Five and seven slices of CT and four of MR side by side; series_uid by name."""
    found = {}
    for name, modality, slices in (("small", "CT", 5), ("large", "CT", 7), ("mr", "MR", 4)):
        found[name] = generate_uid()
        style = DicomStyle(modality=modality, series_uid=found[name], suffix=f".{name}")
        write_dicom_series(folder, np.abs(some_voxels(shape_zyx=(slices, 8, 8))), axial_affine(), style)
    return found


def test_of_several_series_the_largest_is_read(tmp_path: Path) -> None:
    uids = three_series(tmp_path)
    assert read_volume(tmp_path).series_uid.uid == uids["large"]


@pytest.mark.parametrize(("name", "slices"), [("small", 5), ("large", 7), ("mr", 4)])
def test_series_uid_chooses_a_series(tmp_path: Path, name: str, slices: int) -> None:
    volume = read_volume(tmp_path, series_uid=three_series(tmp_path)[name])
    assert len(volume.voxels) == slices


@pytest.mark.parametrize(("name", "slices"), [("small", 5), ("large", 7), ("mr", 4)])
def test_a_file_among_several_series_stands_for_its_own(tmp_path: Path, name: str, slices: int) -> None:
    uids = three_series(tmp_path)
    volume = read_volume(tmp_path / f"slice00000.{name}")
    assert (volume.series_uid.uid, len(volume.voxels)) == (uids[name], slices)


def test_a_series_may_lie_in_a_folder_below(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "study" / "series", some_voxels(), axial_affine())
    assert read_volume(tmp_path).voxels.shape == (5, 17, 22)


def test_an_empty_series_uid_is_a_series_of_its_own(tmp_path: Path) -> None:
    files = write_dicom_series(tmp_path, some_voxels(), axial_affine(), DicomStyle(series_uid="", suffix=".a"))
    write_dicom_series(tmp_path, some_voxels(seed=1), axial_affine(), DicomStyle(suffix=".b"))
    volume = read_volume(files[0])
    assert volume.series_uid.uid == ""
    np.testing.assert_array_equal(volume.voxels, some_voxels())


def test_two_series_without_uid_are_told_apart_by_what_is_left(tmp_path: Path) -> None:
    style = DicomStyle(series_uid="", suffix=".a")
    files = write_dicom_series(tmp_path, some_voxels(), axial_affine(), style)
    write_dicom_series(tmp_path, some_voxels(seed=1), axial_affine(), DicomStyle(series_uid="", suffix=".b"))
    np.testing.assert_array_equal(read_volume(files[2]).voxels, some_voxels())


def test_a_second_copy_of_a_file_does_not_matter(tmp_path: Path) -> None:
    files = write_dicom_series(tmp_path, some_voxels(), axial_affine())
    shutil.copy(files[2], tmp_path / "copy of slice.dcm")
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, some_voxels())


def test_the_localizer_of_a_series_is_left_out(tmp_path: Path) -> None:
    uid = generate_uid()
    write_dicom_series(tmp_path, some_voxels(), axial_affine(), DicomStyle(series_uid=uid))
    localizer = DicomStyle(series_uid=uid, suffix=".localizer")
    file = write_dicom_series(tmp_path, some_voxels(shape_zyx=(1, 30, 30)), AFFINES["coronal"], localizer)[0]
    edit(file, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert read_volume(tmp_path).voxels.shape == (5, 17, 22)


def test_a_stray_file_whose_bits_are_infinite_does_no_harm(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, some_voxels(), axial_affine())
    [stray] = write_dicom_series(tmp_path / "other", some_voxels(shape_zyx=(1, 9, 9)), axial_affine())
    replace_bits_stored(stray, b"FD\x08\x00" + struct.pack("<d", math.inf))
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, some_voxels())


def test_files_without_the_usual_preamble_are_read(tmp_path: Path) -> None:
    for file in write_dicom_series(tmp_path, some_voxels(), axial_affine()):
        file.write_bytes(file.read_bytes()[132:])
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, some_voxels())


def test_a_slope_with_a_fraction_gives_float32(tmp_path: Path) -> None:
    for file in write_dicom_series(tmp_path, some_voxels(), axial_affine()):
        edit(file, RescaleSlope=0.5, RescaleIntercept=-3.25)
    volume = read_volume(tmp_path)
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, some_voxels() * np.float32(0.5) - np.float32(3.25))


def test_every_slice_may_have_a_slope_of_its_own(tmp_path: Path) -> None:
    for z, file in enumerate(write_dicom_series(tmp_path, some_voxels(), axial_affine())):
        edit(file, RescaleSlope=z + 1)
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, some_voxels() * np.arange(1, 6)[:, None, None])


def test_a_slope_with_a_fraction_that_gives_whole_values_gives_int16(tmp_path: Path) -> None:
    for file in write_dicom_series(tmp_path, some_voxels() // 2 * 2, axial_affine()):
        edit(file, RescaleSlope=0.5)
    volume = read_volume(tmp_path)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, some_voxels() // 2)


def test_unsigned_values_that_the_intercept_brings_below_32768_give_int16(tmp_path: Path) -> None:
    stored = np.linspace(0, 65535, some_voxels().size).astype(np.uint16).reshape(some_voxels().shape)
    for file in write_dicom_series(tmp_path, stored.view(np.int16), axial_affine()):
        edit(file, PixelRepresentation=0, RescaleIntercept=-32768)
    volume = read_volume(tmp_path)
    assert volume.voxels.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels, stored.astype(np.int32) - 32768)


@pytest.mark.parametrize(("slope", "intercept"), [(10_000_000_000, 0), (1, 3_000_000_000)])
def test_rescaling_beyond_32_bits_gives_float32(tmp_path: Path, slope: int, intercept: int) -> None:
    for file in write_dicom_series(tmp_path, some_voxels(), axial_affine()):
        edit(file, RescaleSlope=str(slope), RescaleIntercept=str(intercept))
    expected = some_voxels().astype(np.float64) * slope + intercept
    np.testing.assert_allclose(read_volume(tmp_path).voxels, expected, rtol=1e-6)


def test_values_beyond_16_bits_widen_the_volume(tmp_path: Path) -> None:
    voxels = some_voxels().astype(np.int32)
    voxels[3, 2, 1] = 40_000
    write_dicom_series(tmp_path, voxels, axial_affine(), DicomStyle(signed=False))
    volume = read_volume(tmp_path)
    assert volume.voxels.dtype == np.int32
    np.testing.assert_array_equal(volume.voxels, voxels)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_what_lies_above_the_stored_bits_is_ignored(tmp_path: Path, syntax: UID) -> None:
    voxels = np.clip(some_voxels(), -2048, 2047)
    overlaid = (voxels.view(np.uint16) & 0x0FFF | 0x5000).view(np.int16)
    for file in write_dicom_series(tmp_path, overlaid, axial_affine(), DicomStyle(transfer_syntax=syntax)):
        edit(file, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_volume(tmp_path).voxels, voxels)


def test_progress_counts_the_slices_and_never_falls(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, some_voxels(shape_zyx=(40, 8, 8)), axial_affine())
    heard: list[tuple[float, float]] = []
    read_volume(tmp_path, report=lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[0] == (0, 40)
    assert heard[-1] == (40, 40)


@pytest.mark.parametrize("stop_at", [0, 1], ids=["among the headers", "among the pixels"])
def test_reading_stops_when_the_listener_says_so(tmp_path: Path, stop_at: int) -> None:
    write_dicom_series(tmp_path, some_voxels(), axial_affine(), DicomStyle(transfer_syntax=JPEG2000Lossless))

    def stop(done: int, _total: int) -> None:
        if done >= stop_at:
            raise errors.Cancelled

    with pytest.raises(errors.Cancelled):
        read_volume(tmp_path, report=stop)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless], ids=["native", "JPEG 2000"])
def test_reading_tells_every_slice_that_it_has_read(tmp_path: Path, syntax: UID) -> None:
    write_dicom_series(tmp_path, some_voxels(shape_zyx=(5, 8, 8)), axial_affine(), DicomStyle(transfer_syntax=syntax))
    image = volumes.open(tmp_path)
    told: list[tuple[int, int]] = []
    image.read(lambda done, total: told.append((done, total)))
    assert [*dict.fromkeys(told)] == [(done, 5) for done in range(6)]


def test_asking_for_the_modality_stops_when_the_listener_says_so(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, some_voxels(), axial_affine())

    def stop(_done: int, _total: int) -> None:
        raise errors.Cancelled

    with pytest.raises(errors.Cancelled):
        volumes.open(tmp_path, report=stop)


@pytest.mark.parametrize(("slices", "codes"), [(5, ["few_slices"]), (30, [])])
def test_few_slices_are_noticed(tmp_path: Path, slices: int, codes: list[str]) -> None:
    write_dicom_series(tmp_path, some_voxels(shape_zyx=(slices, 8, 8)), axial_affine())
    assert [warning.code for warning in read_volume(tmp_path).warnings] == codes
