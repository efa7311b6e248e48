"""Ways in which a file's bytes are damaged, by chance and where it hurts: lengths, numbers, nesting, packing."""

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from random import Random

from pydicom.uid import DeflatedExplicitVRLittleEndian

Damage = Callable[[bytearray, Random], None]

HEADER_BYTES = 2500
"""Headers of the corpus end about here; damage to pixels is soon understood."""

MOSTLY = 0.75
"""Share of the damage that is done to headers."""

WRONG_NUMBERS = (b"0", b"-1", b"nan", b"1e999", b"-1e308", b"65536", b"2147483648", b"99999999999", b"", b"x", b"1\\2")
WRONG_NUMBERS += (b"0,5", b"1e-7", b"300", b"0.7")
WRONG_LENGTHS = (0, 1, 2, 7, 0x7F, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
REPRESENTATION = re.compile(rb"A[ES]|CS|D[AST]|F[DL]|IS|L[OT]|O[BDFLW]|PN|S[HLQST]|TM|U[CILNRST]")
NUMBER = re.compile(rb"[-+.0-9eE]{1,16}")
WORD = re.compile(rb"[A-Za-z][-A-Za-z]{1,30}")
WRONG_WORDS = (
    b"none",
    b"mm",
    b"um",
    b"gzip",
    b"bz2",
    b"hex",
    b"left-posterior-superior",
    b"LOCAL",
    b"True",
    b"list",
    b"",
)
LONG_LENGTHS = (b"OB", b"OD", b"OF", b"OL", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")

SEQUENCE_TAGS = (0x00082112, 0x00283000, 0x00289145, 0x00209222, 0x52009229, 0x52009230, 0x00091001)
"""Source images, modality LUT, pixel values, dimensions, shared and per-frame groups, and one of a maker's own."""

ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
UNDEFINED = b"\xff\xff\xff\xff"
DEPTHS = (1, 2, 5, 30, 100, 300, 1000, 3000)

PLACING_FLOATS = (*range(76, 108, 4), *range(256, 328, 4))
"""Where a NIfTI header has the voxels' size, its quaternion, and its matrix."""

PLACING_VALUES = (0.0, 1e-7, 0.001, 0.5, 1.0, -1.0, 45.0, 300.0, 1e6, -1e38, float("nan"), float("inf"))
UNITS_AT, NIFTI_BYTES = 123, 348


def damaged(whole: bytes, random: Random) -> tuple[str, bytes]:
    """What was done to ``whole``, and the result. Packed files are damaged inside as often as outside."""
    name = random.choice(list(DAMAGES))
    if random.random() < 0.5:
        unpacked = _unpacked(whole)
        if unpacked is not None:
            start, inner, pack = unpacked
            return f"{name}, inside", start + pack(_with(inner, name, random))
    return name, _with(whole, name, random)


def _with(whole: bytes, name: str, random: Random) -> bytes:
    data = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if data:
            DAMAGES[name](data, random)
    return bytes(data)


def _unpacked(whole: bytes) -> tuple[bytes, bytes, Callable[[bytes], bytes]] | None:
    """What stays as it is, what was packed behind it, and the packer; None where nothing whole was packed."""
    try:
        if whole[:2] == b"\x1f\x8b":
            return b"", gzip.decompress(whole), lambda inner: gzip.compress(inner, compresslevel=1)
        if DeflatedExplicitVRLittleEndian.encode() in whole[:1000]:
            start = 144 + struct.unpack_from("<I", whole, 140)[0]
            return whole[:start], zlib.decompress(whole[start:], -zlib.MAX_WBITS), _deflate
    except (EOFError, OSError, zlib.error):
        return None
    return None


def _deflate(inner: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(inner) + packer.flush()


def _place(data: bytearray, random: Random) -> int:
    return random.randrange(min(len(data), HEADER_BYTES) if random.random() < MOSTLY else len(data))


def flip_bits(data: bytearray, random: Random) -> None:
    for _ in range(random.randint(1, 8)):
        data[_place(data, random)] ^= 1 << random.randrange(8)


def overwrite(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at : at + 16] = random.randbytes(len(data[at : at + random.randint(1, 16)]))


def cut(data: bytearray, random: Random) -> None:
    del data[_place(data, random) :]


def take_out(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    del data[at : at + random.randint(1, 200)]


def repeat(data: bytearray, random: Random) -> None:
    at = _place(data, random)
    data[at:at] = data[at : at + random.randint(1, 200)] * random.randint(1, 20)


def move(data: bytearray, random: Random) -> None:
    """A piece to another place, as when blocks of a disk are swapped."""
    at, length = _place(data, random), random.randint(1, 300)
    piece = data[at : at + length]
    del data[at : at + length]
    to = random.randrange(len(data) + 1)
    data[to:to] = piece


def change_length(data: bytearray, random: Random) -> None:
    """Of a DICOM element with explicit VR; without any, four bytes somewhere."""
    found = list(REPRESENTATION.finditer(bytes(data[: HEADER_BYTES * 4])))
    length = random.choice(WRONG_LENGTHS)
    if not found or random.random() < 0.2:
        at = _place(data, random)
        data[at : at + 4] = struct.pack(random.choice("<>") + "I", length)
        return
    chosen = random.choice(found)
    if chosen[0] in LONG_LENGTHS:
        data[chosen.end() + 2 : chosen.end() + 6] = struct.pack("<I", length)
    else:
        data[chosen.end() : chosen.end() + 2] = struct.pack("<H", length & 0xFFFF)


def change_number(data: bytearray, random: Random) -> None:
    """A number in letters, of the same length, as DICOM writes positions and spacings."""
    found = list(NUMBER.finditer(bytes(data[:HEADER_BYTES])))
    if found:
        chosen = random.choice(found)
        length = chosen.end() - chosen.start()
        data[chosen.start() : chosen.end()] = random.choice(WRONG_NUMBERS)[:length].ljust(length)


def change_field(data: bytearray, random: Random) -> None:
    """Two, four or eight bytes at an even place, as NIfTI's fields and DICOM's binary numbers lie."""
    kind = random.choice("hifdq")
    value = random.choice((0, 1, -1, 2**15 - 1, 3))
    at = _place(data, random) // 2 * 2
    if kind in "fd":
        value = random.choice((0.0, float("nan"), float("inf"), -1e30, 1e30, 1e-30))
    packed = struct.pack("<" + kind, value)
    data[at : at + len(packed)] = packed


def nest(data: bytearray, random: Random) -> None:
    """Sequences within each other before a DICOM element; without any, somewhere. Some are never closed."""
    found = list(REPRESENTATION.finditer(bytes(data[132 : HEADER_BYTES * 4])))
    at = 132 + random.choice(found).start() - 4 if found else _place(data, random)
    data[at:at] = _nested(random)


def _nested(random: Random) -> bytes:
    tag = random.choice(SEQUENCE_TAGS)
    name = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + (b"SQ\0\0" if random.random() < 0.7 else b"")
    defined, depth, innermost = (
        random.random() < 0.5,
        random.choice(DEPTHS),
        random.randbytes(random.choice((0, 8, 30))),
    )
    if defined:
        each = len(name) + 12
        lengths = [len(innermost) + each * level for level in range(depth)]
        opened = (
            name + struct.pack("<I", inside + 8) + ITEM + struct.pack("<I", inside) for inside in reversed(lengths)
        )
        return b"".join(opened) + innermost
    closed = (ITEM_END + bytes(4) + SEQUENCE_END + bytes(4)) * random.choice((depth, depth, depth - 1, depth // 2))
    return (name + UNDEFINED + ITEM + UNDEFINED) * depth + innermost + closed


def change_delimiter(data: bytearray, random: Random) -> None:
    """Of an item, of an item's end or a sequence's end: another in its place, none, or another length."""
    found = [one.start() for one in re.finditer(rb"\xfe\xff[\x00\x0d\xdd]\xe0", bytes(data))]
    if not found:
        return
    at = random.choice(found)
    if random.random() < 0.4:
        data[at + 4 : at + 8] = struct.pack("<I", random.choice(WRONG_LENGTHS))
    elif random.random() < 0.5:
        data[at : at + 4] = random.choice((ITEM, ITEM_END, SEQUENCE_END, bytes(4)))
    else:
        del data[at : at + 8]


def change_placement(data: bytearray, random: Random) -> None:
    """Numbers of a NIfTI header that tell sizes and directions, or their unit; of others, some float."""
    for _ in range(random.randint(1, 3)):
        if random.random() < 0.2 and len(data) >= NIFTI_BYTES:
            data[UNITS_AT] = random.randrange(32)
        else:
            at = random.choice(PLACING_FLOATS)
            data[at : at + 4] = struct.pack("<f", random.choice(PLACING_VALUES))


def change_word(data: bytearray, random: Random) -> None:
    """As NRRD and MetaImage name fields and units, and DICOM types, by another of whatever length."""
    found = list(WORD.finditer(bytes(data[:HEADER_BYTES])))
    if found:
        chosen = random.choice(found)
        data[chosen.start() : chosen.end()] = random.choice((*WRONG_WORDS, random.choice(found)[0]))


def pack(data: bytearray, random: Random) -> None:
    """By gzip, once more or for the first time, whole or with something behind; or what was packed is unpacked."""
    unpacked = _unpacked(bytes(data))
    if unpacked is not None and random.random() < 0.5:
        data[:] = unpacked[0] + unpacked[1]
        return
    data[:] = gzip.compress(bytes(data), compresslevel=1, mtime=0) + random.randbytes(random.choice((0, 0, 1, 40)))


DAMAGES: dict[str, Damage] = {
    damage.__name__.replace("_", " "): damage
    for damage in (
        flip_bits,
        overwrite,
        cut,
        take_out,
        repeat,
        move,
        change_length,
        change_number,
        change_field,
        nest,
        change_delimiter,
        change_placement,
        change_word,
        pack,
    )
}
