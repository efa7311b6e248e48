"""Sequences nested deeper than pydicom's reader can go: the file alone is lost, wherever in it they stand."""

from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from openscans import errors
from phantom.files import DicomStyle, write_dicom_series
from tests import bad_files
from tests.bad_files import INSTANCE_NUMBER_TAG, PATIENT_TAG, PIXELS_TAG, SAMPLES_TAG, insert, nested_sequences
from tests.enhanced import merged
from tests.reading import read_volume

DEEP = nested_sequences()

SHARED_GROUPS, ITEM = b"\x00\x52\x29\x92SQ\x00\x00", b"\xfe\xff\x00\xe0"

PLAIN, DEFLATED = DicomStyle(), DicomStyle(transfer_syntax=DeflatedExplicitVRLittleEndian)

styles = pytest.mark.parametrize("style", [PLAIN, DEFLATED], ids=["plain", "deflated"])


def series(folder: Path, style: DicomStyle = PLAIN, slices: int = 12) -> list[Path]:
    return write_dicom_series(folder, bad_files.some_voxels(slices=slices), bad_files.AFFINE, style)


def with_length(tag: bytes, value: bytes) -> bytes:
    return tag + len(value).to_bytes(4, "little") + value


@styles
@pytest.mark.parametrize("before", [SAMPLES_TAG, PIXELS_TAG], ids=["before the rows", "before the pixels"])
def test_a_slice_that_is_nested_too_deep_is_missed_in_its_series(
    tmp_path: Path, style: DicomStyle, before: bytes
) -> None:
    files = series(tmp_path, style)
    insert(files[-1], DEEP, before=before)
    for path in (tmp_path, files[0], files[-1]):
        with pytest.raises(errors.CorruptFile, match="header"):
            read_volume(path)


@styles
@pytest.mark.parametrize("before", [PATIENT_TAG, SAMPLES_TAG, PIXELS_TAG])
def test_beside_another_series_it_does_not_matter(tmp_path: Path, style: DicomStyle, before: bytes) -> None:
    series(tmp_path / "own")
    insert(series(tmp_path / "other", style, slices=3)[0], DEEP, before=before)
    volume = read_volume(tmp_path)
    assert len(volume.voxels) == 12
    # Before the series is named, nobody can tell which it belongs to.
    assert [warning.code for warning in volume.warnings] == (["missing_slices"] if before == PATIENT_TAG else [])


def test_a_series_is_read_where_only_the_file_that_is_nested_cannot_tell_its_own(tmp_path: Path) -> None:
    insert(series(tmp_path)[-1], DEEP, before=PATIENT_TAG)
    volume = read_volume(tmp_path)
    assert len(volume.voxels) == 11
    assert [warning.code for warning in volume.warnings] == ["missing_slices"]


@pytest.mark.parametrize("ends", ["with a length", "without"])
def test_functional_groups_that_are_nested_too_deep_make_the_file_corrupt(tmp_path: Path, ends: str) -> None:
    path = merged(series(tmp_path), range(12))
    groups = with_length(SHARED_GROUPS, with_length(ITEM, DEEP)) if ends == "with a length" else DEEP
    insert(path, groups, before=PIXELS_TAG)
    with pytest.raises(errors.CorruptFile):
        read_volume(path)


def test_a_report_of_the_series_that_is_nested_is_no_slice_of_it(tmp_path: Path) -> None:
    uid = "1.2.826.0.1.3680043.8.498.7"
    series(tmp_path, DicomStyle(series_uid=uid))
    report = bad_files.structured_report(tmp_path)
    bad_files.edit(report, SeriesInstanceUID=uid, Modality="CT")
    insert(report, DEEP, before=INSTANCE_NUMBER_TAG)
    assert len(read_volume(tmp_path).voxels) == 12


@styles
def test_what_stands_behind_the_pixels_is_not_read(tmp_path: Path, style: DicomStyle) -> None:
    for file in series(tmp_path, style):
        signatures = DEEP.replace(b"\x20\x00\x22\x92", b"\xfa\xff\xfa\xff")
        end = b"\xfc\xff\xfc\xffOB" + bytes(6)
        bad_files.edit(file, DataSetTrailingPadding=b"")
        insert(file, signatures, before=end)
    volume = read_volume(tmp_path)
    assert (volume.voxels == bad_files.some_voxels(slices=12)).all()
    assert volume.warnings == ()


def test_usual_nesting_is_read(tmp_path: Path) -> None:
    for file in series(tmp_path):
        insert(file, nested_sequences(depth=50), before=SAMPLES_TAG)
    assert len(read_volume(tmp_path).voxels) == 12
