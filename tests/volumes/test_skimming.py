"""Headers whose wanted elements are picked out are told as pydicom tells them, and what is unusual is left to it."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import BinaryIO

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from openscans.system.regular_files import open_regular
from openscans.volumes.elements import BROKEN_HEADER, STOP, WANTED, Elements, elements_of, read_elements
from openscans.volumes.skimming import DEEPEST, HEAD_BYTES, skim
from phantom.files import DicomStyle, write_dicom_series
from tests import bad_files
from tests.bad_files import PIXELS_TAG, SAMPLES_TAG, insert, nested_sequences
from tests.corpus import folders, headers, pixels
from tests.corpus.cases import Case, Read
from tests.mutations import damaged

pytestmark = pytest.mark.filterwarnings("ignore")

READ = [
    case
    for case in (*pixels.CASES, *headers.CASES, *folders.CASES)
    if isinstance(case.expected, Read) and not case.real
]


def slice_of(folder: Path, style: DicomStyle | None = None) -> Path:
    return write_dicom_series(folder, bad_files.some_voxels(slices=3), bad_files.AFFINE, style or DicomStyle())[1]


def is_skimmed(file: Path) -> bool:
    return skim(file.read_bytes()[:HEAD_BYTES], WANTED, STOP) is not None


def told(elements: Elements) -> str:
    """All that is known of a header, in no order."""
    values = {name: repr(value) for name, value in elements.values.items()}
    rest = (elements.implicit, elements.little_endian, elements.ends_at, elements.whole, elements.uid_locations)
    meta = {str(one.tag): repr(one.value) for one in elements.meta}
    bits = elements.bits and sorted(elements.bits.items())
    return repr((sorted(values.items()), bits, rest, sorted(meta.items())))


def check_alike(file: Path) -> None:
    with open_regular(file) as stream:
        skimmed = told(elements_of(file, stream))
    with open_regular(file) as stream:
        assert told(read_elements(file, stream)) == skimmed


def is_dicom(file: Path) -> bool:
    return file.is_file() and file.read_bytes()[128:132] == b"DICM"


@pytest.mark.parametrize("case", READ, ids=[case.name for case in READ])
def test_every_header_of_the_corpus_is_told_as_pydicom_tells_it(tmp_path: Path, case: Case) -> None:
    case.make(tmp_path)
    for file in [file for file in sorted(tmp_path.rglob("*")) if is_dicom(file)][:3]:
        try:
            check_alike(file)
        except RecursionError:
            assert "nested" in case.name


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEG2000Lossless])
def test_the_usual_encoding_is_skimmed(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    file = slice_of(tmp_path, DicomStyle(transfer_syntax=syntax))
    assert is_skimmed(file)
    check_alike(file)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_another_encoding_is_left_to_pydicom(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    assert not is_skimmed(slice_of(tmp_path, DicomStyle(transfer_syntax=syntax)))


def test_private_elements_and_sequences_are_passed_over(tmp_path: Path) -> None:
    file = slice_of(tmp_path)
    dataset = pydicom.dcmread(file)
    block = dataset.private_block(0x0019, "A MAKER", create=True)
    for number, kind in enumerate(("LO", "UN", "OB")):
        block.add_new(number, kind, "text" if kind == "LO" else b"\x28\x00\x10\x00US\x02\x00\x07\x00")
    item, inner = Dataset(), Dataset()
    inner.Rows = 7
    item.ReferencedImageSequence = [inner]
    dataset.ReferencedImageSequence = [item, item]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.save_as(file)
    assert is_skimmed(file)
    check_alike(file)


@pytest.mark.parametrize(("depth", "skimmed"), [(DEEPEST, True), (DEEPEST + 1, False)])
def test_deep_sequences_are_left_to_pydicom(tmp_path: Path, depth: int, skimmed: bool) -> None:
    file = insert(slice_of(tmp_path), nested_sequences(depth), before=SAMPLES_TAG)
    assert is_skimmed(file) == skimmed
    check_alike(file)


@pytest.mark.parametrize("before", [SAMPLES_TAG, PIXELS_TAG])
def test_a_header_that_is_longer_than_usual_is_left_to_pydicom(tmp_path: Path, before: bytes) -> None:
    long = b"\x28\x00\x01\x00OB\x00\x00" + HEAD_BYTES.to_bytes(4, "little") + bytes(HEAD_BYTES)
    file = insert(slice_of(tmp_path), long, before=before)
    assert not is_skimmed(file)
    check_alike(file)


def test_a_file_without_pixels_is_told_to_its_end(tmp_path: Path) -> None:
    file = bad_files.structured_report(tmp_path)
    assert is_skimmed(file)
    check_alike(file)


def test_a_header_that_ends_early_is_left_to_pydicom(tmp_path: Path) -> None:
    file = slice_of(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index(SAMPLES_TAG) + 9])
    assert not is_skimmed(file)


def test_a_file_without_preamble_is_left_to_pydicom(tmp_path: Path) -> None:
    file = slice_of(tmp_path)
    file.write_bytes(file.read_bytes()[132:])
    assert not is_skimmed(file)
    check_alike(file)


def test_a_damaged_header_is_told_as_pydicom_tells_it_or_left_to_it(tmp_path: Path) -> None:
    file = slice_of(tmp_path)
    whole = file.read_bytes()
    skimmed = 0
    for number in range(200):
        file.write_bytes(damaged(whole, Random(number))[1])
        if not is_skimmed(file):
            continue
        skimmed += 1
        with open_regular(file) as stream:
            assert outcome(elements_of, file, stream) == outcome(read_elements, file, stream)
    assert skimmed > 20


def outcome(read: Callable[[Path, BinaryIO], Elements], file: Path, stream: BinaryIO) -> str:
    try:
        return told(read(file, stream))
    except BROKEN_HEADER as error:
        return type(error).__name__
