"""Headers of NRRD and MetaImage that end SimpleITK's process, or worse, are refused before it sees them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from openscans.errors import CorruptFile, UnsupportedFile
from tests.corpus import itk
from tests.reading import read_volume

LONG = 5000
"""More than any of SimpleITK's buffers holds."""

pytestmark = pytest.mark.filterwarnings("ignore")


def with_line(path: Path, line: bytes) -> Path:
    """Write ``line`` behind the first of the header."""
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"\n".join([first, line, rest]))
    return path


def with_value(path: Path, name: bytes, value: bytes) -> Path:
    """Write ``value`` where the header's field ``name`` has another."""
    before, after = path.read_bytes().split(name, 1)
    separator, rest = after[: 3 if after[:1] == b" " else 2], after.split(b"\n", 1)[1]
    path.write_bytes(before + name + separator + value + b"\n" + rest)
    return path


@pytest.mark.parametrize("name", [b"space origin", b"space directions", b"sizes", b"type", b"encoding"])
@pytest.mark.parametrize("piece", [b"1,2.5,", b"(1,0,0) ", b"x"])
def test_a_field_of_nrrd_longer_than_its_reader_s_buffers_is_refused(tmp_path: Path, name: bytes, piece: bytes) -> None:
    with pytest.raises(CorruptFile, match="lines that are too long"):
        read_volume(with_value(itk.plain(tmp_path), name, piece * (LONG // len(piece))))


@pytest.mark.parametrize("line", [b"x" * LONG, b"a: " + b"y" * LONG, b"key: of:=" + b"v" * LONG])
def test_a_line_of_nrrd_that_is_no_field_is_refused_where_it_is_too_long(tmp_path: Path, line: bytes) -> None:
    with pytest.raises(CorruptFile, match="lines that are too long"):
        read_volume(with_line(itk.plain(tmp_path), line))


@pytest.mark.parametrize("line", [b"#" + b"c" * LONG, b"key:=" + b"v: " * LONG, b"k" * LONG + b":=v"])
def test_long_comments_and_keys_as_slicer_writes_them_are_read(tmp_path: Path, line: bytes) -> None:
    assert read_volume(with_line(itk.plain(tmp_path), line)).voxels.shape == itk.SHAPE


def test_all_digits_of_four_axes_are_read(tmp_path: Path) -> None:
    path = itk.nrrd_of_one_volume(tmp_path)
    columns = np.diag([0.7, 0.8, 2.5, 1.0]) + np.random.default_rng(0).uniform(-1e-17, 1e-17, (4, 4)) / 3
    vectors = " ".join("(" + ",".join(repr(float(value)) for value in column) + ")" for column in columns)
    assert read_volume(with_value(path, b"space directions", vectors.encode())).voxels.shape == itk.SHAPE


def test_a_header_of_nrrd_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.nrrd"
    path.write_bytes(b"NRRD0004\n" + b"#\n" * 2**16)
    with pytest.raises(CorruptFile, match="has no end"):
        read_volume(path)


def detached(folder: Path, told: bytes) -> Path:
    """A header of NRRD whose voxels lie in ``told``."""
    header, _ = itk.plain(folder).read_bytes().split(b"\n\n", 1)
    (folder / "image.nhdr").write_bytes(header + b"\ndata file: " + told + b"\n\n")
    return folder / "image.nhdr"


def in_files(folder: Path, told: bytes) -> Path:
    """A MetaImage whose voxels lie in ``told``."""
    path = itk.meta(folder).rename(folder / "image.mhd")
    return with_value(path, b"ElementDataFile", told)


@pytest.mark.parametrize("make", [detached, in_files])
@pytest.mark.parametrize("told", [b"%9999d.raw 0 11 1", b"%s.raw 0 11 1", b"%n 0 11 1", b"%d%d.raw 0 11 1"])
def test_numbered_files_whose_names_are_no_pattern_are_refused(
    tmp_path: Path, make: Callable[[Path, bytes], Path], told: bytes
) -> None:
    with pytest.raises(CorruptFile, match="names no files"):
        read_volume(make(tmp_path, told))


@pytest.mark.parametrize("make", [detached, in_files])
def test_a_file_for_each_slice_is_read(tmp_path: Path, make: Callable[[Path, bytes], Path]) -> None:
    path = make(tmp_path, b"plane%02d.raw 1 12 1")
    for z in range(12):
        (tmp_path / f"plane{z + 1:02d}.raw").write_bytes(np.full((14, 16), z, "<i2").tobytes())
    assert read_volume(path).voxels[:, 0, 0].tolist() == list(range(12))


META: Mapping[str, tuple[bytes, bytes]] = {
    "no dimension": (b"NDims", b"0"),
    "less than none": (b"NDims", b"-1"),
    "eleven dimensions": (b"NDims", b"11"),
    "a number without end": (b"NDims", b"9" * 300),
    "a word too long for its buffer": (b"ElementDataFile", b"a" * 90 + b"%d 1 12 1"),
    "a list with such a word": (b"ElementDataFile", b"LIST " + b"2" * 100),
    "a line too long": (b"Offset", b"1 " * LONG),
}


@pytest.mark.parametrize("case", META)
def test_a_metaimage_that_its_reader_cannot_bear_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(CorruptFile, match="The image's header"):
        read_volume(with_value(itk.meta(tmp_path), *META[case]))


def test_a_metaimage_with_a_long_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="a name that is too long"):
        read_volume(with_line(itk.meta(tmp_path), b"Name = " + b"x" * 300))


def test_a_metaimage_without_voxels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.mha").write_bytes(b"NDims = 3\n" * 10)
    with pytest.raises(CorruptFile, match="has no end"):
        read_volume(tmp_path / "image.mha")


@pytest.mark.parametrize("make", [itk.plain, itk.meta])
def test_a_path_too_long_for_its_reader_s_sentences_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = tmp_path.joinpath(*["d" * 100] * 5)
    folder.mkdir(parents=True)
    with pytest.raises(UnsupportedFile, match="so long a path"):
        read_volume(make(folder))
