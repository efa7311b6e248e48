"""The items that compressed pixels lie in (PS3.5 A.4), read up to their delimiter, or up to what stands in its place.

pydicom searches for the delimiter and takes a file without one for damaged. Some writers leave it out or write nulls;
whether the pixels are complete is told by the items' own lengths.
"""

import os
import struct
from typing import BinaryIO

ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
"""Tags. A delimiter's length is 0; what some write there is of no use."""

ITEM_DELIMITER = b"\xfe\xff\x0d\xe0"
"""What closes items of other kinds, and is mistaken for the other."""

TRAILING_PADDING = b"\xfc\xff\xfc\xff"
"""The tag of the only element that usually follows pixels."""

UNDEFINED_LENGTH = b"\xff\xff\xff\xff"

HEADER_BYTES = 8
"""Of an item: its tag and its length."""


def read_fragments(stream: BinaryIO, *, end: bytes) -> bytes:
    """The items that begin where ``stream`` stands, as `pydicom.encaps` takes them.

    ``end``: how a complete picture ends, which is asked for where no delimiter follows the last; it may be empty.
    Raises EOFError where an item or a picture is cut short, ValueError where something else follows.
    """
    start = at = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(start)
    header = stream.read(HEADER_BYTES)
    while header.startswith(ITEM) and len(header) == HEADER_BYTES:
        at += HEADER_BYTES + struct.unpack_from("<I", header, len(ITEM))[0]
        if at > size:
            raise EOFError("The file ends within a fragment.")
        stream.seek(at)
        header = stream.read(HEADER_BYTES)
    stream.seek(start)
    fragments = stream.read(at - start)
    if not header.startswith(DELIMITER):
        _check_end(fragments, header, end)
    return fragments


def _check_end(fragments: bytes, follows: bytes, end: bytes) -> None:
    """What ``follows`` in the place of a delimiter: part of one, nulls, nothing, another kind, or the next element."""
    begun = DELIMITER.startswith(follows) or not any(follows)
    if not begun and not follows.startswith((ITEM_DELIMITER, TRAILING_PADDING)):
        raise ValueError("Something else stands where fragments end.")
    if not fragments.rstrip(b"\0").endswith(end):
        raise EOFError("The last picture is cut short.")
