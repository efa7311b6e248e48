"""Where the UIDs of an image stand in its files: at the bytes that are told, or nothing is told."""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from openscans.types import UidLocation
from openscans.volumes import Volume
from phantom.files import DicomStyle, write_dicom_series, write_nifti
from tests import bad_files
from tests.bad_files import edit
from tests.enhanced import merged
from tests.phantom.test_files import SYNTAXES
from tests.reading import read_volume

AS_THEY_ARE = [syntax for syntax in SYNTAXES if syntax != DeflatedExplicitVRLittleEndian]


def series(folder: Path, syntax: UID = ExplicitVRLittleEndian, slices: int = 5) -> list[Path]:
    style = DicomStyle(transfer_syntax=syntax)
    return write_dicom_series(folder, bad_files.some_voxels(slices=slices), bad_files.AFFINE, style)


def text_at(location: UidLocation | None) -> str:
    assert location is not None
    return Path(location.file).read_bytes()[location.start :][: location.length].decode("ascii")


def assert_told(volume: Volume) -> None:
    """Every UID stands where it is said to stand, in the file that it belongs to."""
    assert volume.series_uid.uid
    assert text_at(volume.series_uid.location) == volume.series_uid.uid
    assert volume.series_uid.location.file == str(volume.instances[0].file)
    for instance in volume.instances:
        assert text_at(instance.uid_location) == instance.sop_instance_uid
        assert instance.uid_location.file == str(instance.file)


@pytest.mark.parametrize("syntax", AS_THEY_ARE, ids=lambda syntax: syntax.keyword)
def test_a_uid_stands_where_it_is_said_to_stand(tmp_path: Path, syntax: UID) -> None:
    series(tmp_path, syntax)
    assert_told(read_volume(tmp_path))


@pytest.mark.parametrize("digits", [1, 2, 11, 12])
def test_what_a_uid_is_padded_with_is_no_part_of_it(tmp_path: Path, digits: int) -> None:
    for number, file in enumerate(series(tmp_path)):
        edit(file, SeriesInstanceUID="1." + "2" * digits, SOPInstanceUID=f"1.{number}." + "3" * digits)
    assert_told(read_volume(tmp_path))


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda syntax: syntax.keyword
)
def test_files_without_preamble_count_from_their_first_byte(tmp_path: Path, syntax: UID) -> None:
    for file in series(tmp_path, syntax):
        file.write_bytes(file.read_bytes()[132:])
    assert_told(read_volume(tmp_path))


def test_files_that_begin_with_their_first_element_count_from_it(tmp_path: Path) -> None:
    for file in series(tmp_path, ImplicitVRLittleEndian):
        whole = file.read_bytes()
        file.write_bytes(whole[144 + int.from_bytes(whole[140:144], "little") :])
    assert_told(read_volume(tmp_path))


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda syntax: syntax.keyword
)
@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_before_a_uid_that_hold_the_same_element_do_not_shift_it(
    tmp_path: Path, syntax: UID, undefined: bool
) -> None:
    for file in series(tmp_path, syntax):
        dataset = pydicom.dcmread(file)
        inner = Dataset()
        inner.SOPInstanceUID, inner.SeriesInstanceUID = "9.9.9", dataset.SeriesInstanceUID
        inner.is_undefined_length_sequence_item = undefined
        for tag in (0x00080006, 0x00081140):
            dataset.add_new(tag, "SQ", Sequence([inner]))
            dataset[tag].is_undefined_length = undefined
        dataset.save_as(file)
    assert_told(read_volume(tmp_path))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless], ids=lambda syntax: syntax.keyword)
def test_frames_of_one_file_share_their_places(tmp_path: Path, syntax: UID) -> None:
    merged(series(tmp_path, syntax), [3, 0, 4, 1, 2])
    volume = read_volume(tmp_path)
    assert_told(volume)
    assert len({instance.uid_location for instance in volume.instances}) == 1


def test_of_deflated_files_no_place_is_told(tmp_path: Path) -> None:
    series(tmp_path, DeflatedExplicitVRLittleEndian)
    volume = read_volume(tmp_path)
    assert volume.series_uid.location is None
    assert {instance.uid_location for instance in volume.instances} == {None}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("uid", ["", "1.2\\3.4", "1.2\u00b5"])
def test_what_is_no_single_uid_has_no_place(tmp_path: Path, uid: str) -> None:
    for file in series(tmp_path):
        marker = "7" * 8
        edit(file, SeriesInstanceUID=marker if uid else "")
        file.write_bytes(file.read_bytes().replace(marker.encode(), uid.encode("latin-1").ljust(8, b"\0")))
    assert read_volume(tmp_path).series_uid.location is None


def test_other_formats_have_none(tmp_path: Path) -> None:
    write_nifti(tmp_path / "image.nii", bad_files.some_voxels(), bad_files.AFFINE)
    assert read_volume(tmp_path / "image.nii").series_uid.location is None


@pytest.mark.parametrize(
    "name",
    [
        "01_ge_ct_tilt_varspacing",
        "02_philips_ct_tilt_neg18",
        "05_siemens_ct_gantrytilt_14deg",
        "12_mr_sagittal_compressed_series",
        "14_enhanced_mr_multiframe",
    ],
)
def test_files_as_scanners_write_them(shared_data: Path, name: str) -> None:
    assert_told(read_volume(shared_data / "dicom" / name))


def test_the_places_of_the_series_and_of_the_named_instances_are_told(tmp_path: Path) -> None:
    series(tmp_path)
    volume = read_volume(tmp_path)
    first, second = volume.instances[1], volume.instances[3]
    assert volume.locate_uids({first.sop_instance_uid, second.sop_instance_uid}) == {
        first.sop_instance_uid: first.uid_location,
        second.sop_instance_uid: second.uid_location,
        volume.series_uid.uid: volume.series_uid.location,
        volume.study_uid.uid: volume.study_uid.location,
        volume.frame_of_reference_uid.uid: volume.frame_of_reference_uid.location,
    }


def test_what_has_no_place_is_left_out(tmp_path: Path) -> None:
    series(tmp_path, DeflatedExplicitVRLittleEndian)
    volume = read_volume(tmp_path)
    assert volume.locate_uids({volume.instances[0].sop_instance_uid}) == {}
