"""The size that a compressed picture says it has, read from its own header before a decoder makes room for it."""

import struct

JPEG_START, JPEG_2000_SIZE = b"\xff\xd8", b"\xff\x4f\xff\x51"

NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})
"""Markers among the frame headers C0 … CF that are none: Huffman tables, reserved, arithmetic conditioning."""

LS_FRAME = 0xF7
"""The frame header of JPEG-LS."""


def size_of(picture: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 stream; None where its header does not tell."""
    try:
        return _jpeg_size(picture) if picture.startswith(JPEG_START) else _jpeg_2000_size(picture)
    except (struct.error, IndexError):
        return None


def _jpeg_2000_size(picture: bytes) -> tuple[int, int] | None:
    """The reference grid less its offset; the stream may lie in the boxes of a file."""
    start = picture.find(JPEG_2000_SIZE)
    if start < 0:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", picture, start + 8)
    return bottom - top, right - left


def _jpeg_size(picture: bytes) -> tuple[int, int] | None:
    """Of the first frame header; segments are passed over by their lengths, fill bytes one by one."""
    at = 2
    while picture[at] == 0xFF:
        kind = picture[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        length, _, rows, columns = struct.unpack_from(">HBHH", picture, at + 2)
        if kind == LS_FRAME or (0xC0 <= kind <= 0xCF and kind not in NO_SIZE):
            return rows, columns
        at += 2 + length
    return None
