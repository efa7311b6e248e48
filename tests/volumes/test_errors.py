"""Every way in which a file cannot become a volume, told by its own error and a sentence that helps."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import UID

from openscans import errors, volumes
from phantom.files import DicomStyle, write_dicom_series, write_nifti
from tests import bad_files
from tests.phantom.test_files import SYNTAXES
from tests.reading import read_volume

ROOT = Path(__file__).resolve().parents[2]

CASES = [pytest.param(make, expected, id=make.__name__) for make, expected in bad_files.EXPECTED.items()]

PIXELS_ARE_AT_FAULT = (
    bad_files.truncated_dicom,
    bad_files.truncated_compressed_dicom,
    bad_files.zero_slope,
    bad_files.slope_that_is_no_number,
)
"""Whose headers are in order."""


@pytest.mark.parametrize(("make", "expected"), CASES)
def test_a_bad_file_is_told_by_its_own_error(
    tmp_path: Path, make: Callable[[Path], Path], expected: type[errors.OpenScansError]
) -> None:
    with pytest.raises(errors.OpenScansError) as caught:
        read_volume(make(tmp_path))
    assert type(caught.value) is expected


@pytest.mark.parametrize(("make", "expected"), CASES)
def test_the_sentence_and_the_hint_are_for_a_person(
    tmp_path: Path, make: Callable[[Path], Path], expected: type[errors.OpenScansError]
) -> None:
    path = make(tmp_path)
    with pytest.raises(expected) as caught:
        read_volume(path)
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith(".")
    for secret in ("PHANTOM", str(tmp_path), "Traceback", "letter that somebody"):
        assert secret not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("make", PIXELS_ARE_AT_FAULT, ids=lambda make: make.__name__)
def test_the_modality_is_known_before_pixels_are_read(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert volumes.open(make(tmp_path)).modality == "CT"


@pytest.mark.parametrize("make", [bad_files.jpeg_baseline_ct, bad_files.pixels_in_high_bits])
def test_pixels_that_nothing_decodes_are_refused_by_their_headers(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(errors.UnsupportedTransferSyntax):
        volumes.open(make(tmp_path))


@pytest.mark.parametrize(
    "make",
    [bad_files.not_an_image, bad_files.missing_file, bad_files.structured_report, bad_files.radiograph],
    ids=lambda make: make.__name__,
)
def test_asking_for_the_modality_raises_what_reading_raises(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(bad_files.EXPECTED[make]):
        volumes.open(make(tmp_path))


def test_the_sentence_about_missing_slices_tells_how_wide_the_gap_is(tmp_path: Path) -> None:
    with pytest.raises(errors.InconsistentGeometry, match=r"12\.0 mm"):
        read_volume(bad_files.series_with_missing_positions(tmp_path))


def test_the_sentence_about_a_tilt_tells_its_angle(tmp_path: Path) -> None:
    with pytest.raises(errors.InconsistentGeometry, match=r"60\.0°"):
        read_volume(bad_files.sheared_beyond_any_gantry(tmp_path))


def test_two_scans_side_by_side_are_read_one_at_a_time(tmp_path: Path) -> None:
    both = bad_files.two_phases(tmp_path)
    assert read_volume(both / "a").voxels.shape == read_volume(both / "b").voxels.shape


def test_bad_files_beside_a_series_do_not_matter(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, bad_files.some_voxels(slices=9), bad_files.AFFINE)
    for make in (
        bad_files.not_an_image,
        bad_files.empty_file,
        bad_files.structured_report,
        bad_files.secondary_capture,
        bad_files.radiograph,
        bad_files.truncated_nifti,
    ):
        make(tmp_path)
    assert read_volume(tmp_path).voxels.shape == (9, 16, 16)


@pytest.mark.parametrize(
    "cut", [bad_files.truncated_header, bad_files.series_of_stumps], ids=lambda make: make.__name__
)
def test_a_damaged_file_beside_a_series_is_noticed_where_it_cannot_tell_its_series(
    tmp_path: Path, cut: Callable[[Path], Path]
) -> None:
    write_dicom_series(tmp_path / "whole", bad_files.some_voxels(slices=10), bad_files.AFFINE)
    cut(tmp_path)
    codes = [warning.code for warning in read_volume(tmp_path).warnings]
    assert codes == (["missing_slices"] if cut is bad_files.series_of_stumps else [])


WITHOUT_SIMPLEITK = """
import sys
from pathlib import Path
sys.modules["SimpleITK"] = None
from openscans import errors, volumes
try:
    volumes.open(Path(sys.argv[1]))
except errors.UnsupportedFile as error:
    print(error.message)
"""
"""None in sys.modules makes an import fail, as where the library is not installed."""


def test_nrrd_without_simpleitk_is_one_sentence(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(bad_files.some_voxels()), str(tmp_path / "image.nrrd"))
    command = [sys.executable, "-c", WITHOUT_SIMPLEITK, str(tmp_path / "image.nrrd")]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=120)
    assert said.stdout.strip() == "NRRD and MetaImage files are read only where SimpleITK is installed."


FEWEST_REFUSED = 50
"""Of the 120 damages; the others hit what no reader needs."""


def outcome(path: Path) -> str:
    """Anything but a volume or the error of a file escapes."""
    try:
        read_volume(path)
    except (errors.VolumeError, errors.OutOfMemory):
        return "refused"
    return "read"


def outcomes_of_damage(file: Path, *, first: int) -> list[str]:
    """Of cutting ``file`` at sixty places, and of changing three bytes behind ``first`` in as many ways."""
    whole = file.read_bytes()
    outcomes = []
    for keep in np.linspace(0, len(whole) - 1, 60).astype(int):
        file.write_bytes(whole[:keep])
        outcomes.append(outcome(file))
    random = np.random.default_rng(len(whole))
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[random.integers(first, min(len(whole), first + 1200), 3)] = random.integers(0, 256, 3)
        file.write_bytes(damaged.tobytes())
        outcomes.append(outcome(file))
    return outcomes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_a_damaged_dicom_file_is_never_a_crash(tmp_path: Path, syntax: UID) -> None:
    style = DicomStyle(transfer_syntax=syntax)
    file = write_dicom_series(tmp_path, bad_files.some_voxels(slices=4), bad_files.AFFINE, style)[1]
    assert outcomes_of_damage(file, first=132).count("refused") >= FEWEST_REFUSED


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_damaged_nifti_file_is_never_a_crash(tmp_path: Path, name: str) -> None:
    write_nifti(tmp_path / name, bad_files.some_voxels(), bad_files.AFFINE)
    assert outcomes_of_damage(tmp_path / name, first=0).count("refused") >= FEWEST_REFUSED


@pytest.mark.parametrize(("field", "value"), [("datatype", 71), ("vox_offset", 100.0), ("vox_offset", -4e26)])
def test_a_nifti_header_that_cannot_be_is_a_corrupt_file(tmp_path: Path, field: str, value: float) -> None:
    path = tmp_path / "image.nii"
    write_nifti(path, bad_files.some_voxels(), bad_files.AFFINE)
    whole = path.read_bytes()
    header = np.frombuffer(whole[:348], nib.nifti1.header_dtype).copy()
    header[field] = value
    path.write_bytes(header.tobytes() + whole[348:])
    with pytest.raises(errors.CorruptFile):
        read_volume(path)
