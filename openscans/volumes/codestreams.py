"""What a compressed picture's own header says, read before a decoder makes room for it or relies on it."""

import struct
from collections.abc import Iterator

JPEG_START, JPEG_2000_SIZE = b"\xff\xd8", b"\xff\x4f\xff\x51"

NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})
"""Markers among the frame headers C0 … CF that are none: Huffman tables, reserved, arithmetic conditioning."""

LS_FRAME = 0xF7
"""The frame header of JPEG-LS."""

HUFFMAN_TABLE, SCAN = 0xC4, 0xDA
"""Markers of JPEG: what a lossless picture is decoded with, and where its data begin."""


def size_of(picture: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 stream; None where its header does not tell."""
    try:
        return _jpeg_size(picture) if picture.startswith(JPEG_START) else _jpeg_2000_size(picture)
    except (struct.error, IndexError):
        return None


def has_huffman_table(picture: bytes) -> bool:
    """Whether a JPEG stream has a table before its data. Without one, liblj92 ends the process."""
    try:
        return any(kind == HUFFMAN_TABLE for kind, _ in _segments(picture))
    except (struct.error, IndexError):
        return False


def _jpeg_2000_size(picture: bytes) -> tuple[int, int] | None:
    """The reference grid less its offset; the stream may lie in the boxes of a file."""
    start = picture.find(JPEG_2000_SIZE)
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", picture, start + 8)
    return bottom - top, right - left


def _jpeg_size(picture: bytes) -> tuple[int, int] | None:
    """Of the first frame header."""
    for kind, at in _segments(picture):
        if kind == LS_FRAME or (0xC0 <= kind <= 0xCF and kind not in NO_SIZE):
            _, rows, columns = struct.unpack_from(">BHH", picture, at + 4)
            return rows, columns
    return None


def _segments(picture: bytes) -> Iterator[tuple[int, int]]:
    """Markers of a JPEG stream up to its data, and where they stand.

    Segments are passed over by their lengths, fill bytes one by one. Raises struct.error, IndexError where it is cut.
    """
    at = 2
    while picture[at] == 0xFF:
        kind = picture[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        yield kind, at
        if kind == SCAN:
            return
        at += 2 + struct.unpack_from(">H", picture, at + 2)[0]
