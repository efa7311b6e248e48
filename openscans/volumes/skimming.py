"""The few elements of a DICOM header that are wanted, found without pydicom's looking at all the others.

Knows how elements follow each other in the usual encoding, explicit and little endian, and nothing of what they mean.
Whatever is unusual is left to pydicom.
"""

import struct
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

HEAD_BYTES = 2**15
"""Headers of scanners have 2 to 20 kB; those with large private elements are left to pydicom."""

MAGIC, META_AT = b"DICM", 132
"""What the preamble ends with, and where."""

SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length has two bytes, and four after two that are kept free (PS3.5 7.1.2)."""

SYNTAX = 0x00020010

OTHER_ENCODINGS = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

UNDEFINED = 0xFFFFFFFF

DEEPEST = 8
"""Sequences within each other. Scanners have four."""

_short_header = struct.Struct("<HH2sH").unpack_from
_long_length = struct.Struct("<I").unpack_from
_delimiter = struct.Struct("<HHI").unpack_from


class _Unusual(Exception):
    """What is left to pydicom."""


@dataclass(frozen=True)
class Skimmed:
    """What was wanted, as pydicom holds elements before it makes values of them, and the byte at which it stopped."""

    meta: Dataset
    dataset: Dataset
    ends_at: int


def skim(head: bytes, wanted: AbstractSet[int], stop: AbstractSet[int]) -> Skimmed | None:
    """The ``wanted`` elements of a file that begins with ``head``, up to HEAD_BYTES, before the first of ``stop``.

    None where they are encoded in an unusual way, or do not all lie in ``head``.
    """
    try:
        meta, at = _meta_elements(head)
        if meta.get(SYNTAX) is None or str(meta[SYNTAX].value) in OTHER_ENCODINGS:
            return None
        found, ends_at = _elements(head, at, wanted, stop)
    except (_Unusual, struct.error):
        return None
    return Skimmed(meta, Dataset(found), ends_at)


def _meta_elements(head: bytes) -> tuple[Dataset, int]:
    """The elements of group 2, which are encoded in the usual way in every file, and where they end."""
    if head[META_AT - len(MAGIC) : META_AT] != MAGIC:
        raise _Unusual
    found, at = {}, META_AT
    while head[at : at + 2] == b"\x02\0":
        tag, representation, value_at, ends_at = _element(head, at)
        found[BaseTag(tag)] = _raw(head, tag, representation, value_at, ends_at)
        at = ends_at
    return Dataset(found), at


def _elements(
    head: bytes, at: int, wanted: AbstractSet[int], stop: AbstractSet[int]
) -> tuple[dict[BaseTag, RawDataElement], int]:
    found, size = {}, len(head)
    while at < size or size == HEAD_BYTES:
        group, number, representation, length = _short_header(head, at)
        tag = group << 16 | number
        if tag in stop:
            break
        # Commands, a second meta header and delimiters have no place here.
        if group < 8 or group == 0xFFFE:
            raise _Unusual
        if representation in SHORT:
            # Nine of ten, and not worth a call each.
            value_at = at + 8
            ends_at = value_at + length
        else:
            _, _, value_at, ends_at = _element(head, at)
        if tag in wanted:
            found[BaseTag(tag)] = _raw(head, tag, representation, value_at, ends_at)
        at = ends_at
    if at > size:
        raise _Unusual
    return found, at


def _raw(head: bytes, tag: int, representation: bytes, value_at: int, ends_at: int) -> RawDataElement:
    kind = representation.decode()
    length = _long_length(head, value_at - 4)[0] if representation in LONG else ends_at - value_at
    if length == UNDEFINED:
        # As pydicom holds it, it is no raw element.
        raise _Unusual
    value = head[value_at:ends_at] if length else empty_value_for_VR(kind, raw=True)
    return RawDataElement(BaseTag(tag), kind, length, value, value_at, False, True)


def _element(head: bytes, at: int, depth: int = 0) -> tuple[int, bytes, int, int]:
    """Its tag and representation, and where its value begins and ends."""
    group, number, representation, length = _short_header(head, at)
    value_at = at + 8
    if representation in LONG:
        [length] = _long_length(head, value_at)
        value_at += 4
    elif representation not in SHORT:
        raise _Unusual
    if length != UNDEFINED or representation not in LONG:
        ends_at = value_at + length
    elif representation == b"SQ" and depth < DEEPEST:
        ends_at = _end_of_sequence(head, value_at, depth + 1)
    else:
        raise _Unusual
    if ends_at > len(head):
        raise _Unusual
    return group << 16 | number, representation, value_at, ends_at


def _end_of_sequence(head: bytes, at: int, depth: int) -> int:
    """Where the sequence without a length ends whose first item begins ``at``."""
    while True:
        group, number, length = _delimiter(head, at)
        at += 8
        if group << 16 | number == SEQUENCE_END:
            return at
        if group << 16 | number != ITEM:
            raise _Unusual
        at = _end_of_item(head, at, depth) if length == UNDEFINED else at + length


def _end_of_item(head: bytes, at: int, depth: int) -> int:
    while True:
        group, number, _ = _delimiter(head, at)
        if group << 16 | number == ITEM_END:
            return at + 8
        at = _element(head, at, depth)[3]
