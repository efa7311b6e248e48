"""Where compressed pixels end, in files that close them and in files that do not."""

import struct
from pathlib import Path

import pytest

from openscans import errors
from openscans.volumes.fragments import ITEM, read_fragments
from tests.corpus import pixels
from tests.corpus.pixels import DELIMITER
from tests.reading import read_volume

END = b"\xff\xd9"


def item(content: bytes) -> bytes:
    return ITEM + struct.pack("<I", len(content)) + content


TABLE, PICTURE = item(b""), item(b"\xff\xd8 picture" + END + b"\0")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "fragments"


def read(file: Path, content: bytes, end: bytes = END) -> bytes:
    file.write_bytes(b"before" + content)
    with file.open("rb") as stream:
        stream.seek(len(b"before"))
        return read_fragments(stream, end=end)


@pytest.mark.parametrize(
    "follows",
    [
        DELIMITER,
        DELIMITER + b"\xfc\xff\xfc\xffOB",
        DELIMITER[:4] + b"\1\2\3\4",
        b"\xfe\xff\x0d\xe0" + bytes(4),
        b"",
        bytes(3),
        bytes(8),
        bytes(300),
        DELIMITER[:3],
        DELIMITER[:5],
        pixels.PADDING,
    ],
)
def test_they_are_read_up_to_what_closes_them(file: Path, follows: bytes) -> None:
    assert read(file, TABLE + PICTURE + follows) == TABLE + PICTURE


@pytest.mark.parametrize("content", [TABLE + PICTURE[:-3], TABLE + PICTURE + ITEM[:3], TABLE + PICTURE + b"something"])
def test_an_item_that_is_cut_and_anything_else_behind_are_refused(file: Path, content: bytes) -> None:
    with pytest.raises((EOFError, ValueError)):
        read(file, content)


def test_a_picture_without_its_end_is_cut_where_nothing_closes_it(file: Path) -> None:
    cut = TABLE + item(b"\xff\xd8 pict")
    assert read(file, cut + DELIMITER) == cut
    assert read(file, cut, end=b"") == cut
    with pytest.raises(EOFError):
        read(file, cut)


def test_a_stream_may_end_at_once(file: Path) -> None:
    assert read(file, b"", end=b"") == b""


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.1.2.4.112", "JPEG XL"),
        ("1.2.840.10008.1.2.4.103", "MPEG-4"),
        ("1.2.840.113619.5.2", "GE Private"),
        ("1.2.826.0.1.3680043.8.498.99", "1.2.826.0.1.3680043.8.498.99"),
        ("no uid", "that the file names"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_syntax_that_is_not_read_is_named(tmp_path: Path, uid: str, name: str) -> None:
    with pytest.raises(errors.UnsupportedTransferSyntax, match=name):
        read_volume(pixels.said_to_be(uid)(tmp_path))
