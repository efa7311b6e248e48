"""The table that some files have in the place of slope and intercept: how it lies in the file, and what it gives."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from openscans.volumes.headers import read_header
from openscans.volumes.values import ModalityLut
from phantom.files import DicomStyle
from tests.corpus.pixels import look_up_table
from tests.corpus.scene import series


def lut_of(file: Path, descriptor: list[int], data: bytes) -> ModalityLut:
    dataset = pydicom.dcmread(file)
    dataset.ModalityLUTSequence = [look_up_table(descriptor, data)]
    dataset.save_as(file)
    rescale = read_header(file).slices[0].rescale
    assert isinstance(rescale, ModalityLut)
    return rescale


def test_values_beyond_the_table_mean_its_ends() -> None:
    lut = ModalityLut(-2, np.array([5, 6, 7], np.uint16))
    np.testing.assert_array_equal(lut.apply(np.array([-30000, -2, -1, 0, 1, 30000], np.int16)), [5, 5, 6, 7, 7, 7])


@pytest.mark.parametrize("data", [bytes(range(0, 100, 10)), np.arange(0, 100, 10).astype("<u2").tobytes()])
def test_entries_of_8_bits_lie_in_bytes_or_in_words(tmp_path: Path, data: bytes) -> None:
    np.testing.assert_array_equal(lut_of(series(tmp_path)[0], [10, 0, 8], data).entries, range(0, 100, 10))


@pytest.mark.parametrize(
    ("syntax", "order"), [(ExplicitVRLittleEndian, "<"), (ExplicitVRBigEndian, ">")], ids=["little", "big"]
)
def test_entries_are_words_of_the_file_s_order(tmp_path: Path, syntax: UID, order: str) -> None:
    file = series(tmp_path, style=DicomStyle(transfer_syntax=syntax))[0]
    data = np.arange(1000, 1004).astype(f"{order}u2").tobytes()
    assert lut_of(file, [4, 0, 16], data).entries.tolist() == [1000, 1001, 1002, 1003]


def test_a_count_of_none_means_65536(tmp_path: Path) -> None:
    data = np.arange(2**16).astype("<u2").tobytes()
    assert len(lut_of(series(tmp_path)[0], [0, 0, 16], data).entries) == 2**16


def test_slices_share_one_table(tmp_path: Path) -> None:
    files = series(tmp_path)[:2]
    one, other = (lut_of(file, [2, 0, 16], b"\1\0\2\0") for file in files)
    assert one is other
