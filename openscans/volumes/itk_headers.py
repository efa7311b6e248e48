"""Headers of NRRD and MetaImage that SimpleITK's readers cannot bear, told before these see them; opens no file.

Their C code writes a header's lines, names of files, and sentences that quote either, into buffers of fixed sizes and
trusts them to fit: beyond, a file would overwrite the stack and what is run next.
"""

import re
from pathlib import Path

from openscans.errors import CorruptFile, UnsupportedFile

LARGEST_HEADER_BYTES = 2**16
"""Most have twenty lines; what Slicer adds of its own is some kilobytes."""

LONGEST_LINE_BYTES = 450
"""Four axes in four dimensions with all their digits take 410; the buffers for sentences have 1024."""

LONGEST_NAME_BYTES = 200
"""What MetaImage calls Name has a buffer of 255."""

LONGEST_PATH_BYTES = 400
"""With a line it stands in one sentence, such as that there is no file of voxels."""

LONGEST_WORD_BYTES = 79
"""Of what MetaImage tells about files that hold a slice each."""

MOST_DIMENSIONS = 10

NRRD_FILES = re.compile(rb"(?i)data ?file:(.*)")
META_LINE = re.compile(rb"\s*([^=:]*?)\s*[=:]\s*(.*)")

PATTERN = re.compile(rb"[^%]*(%0?\d?d[^%]*)?")
"""A name of files that are numbered; whatever else a percent sign stands for would be done."""

Lines = list[bytes]


def check_path(file: Path) -> None:
    """Raises UnsupportedFile."""
    if len(str(file).encode(errors="replace")) > LONGEST_PATH_BYTES:
        raise UnsupportedFile(
            f"The {file.suffix} file has so long a path that SimpleITK cannot read it.",
            hint="Move the file to a folder with a shorter path, or save it as NIfTI.",
        )


def check_nrrd(start: bytes) -> None:
    """Raises CorruptFile for an NRRD file that begins with ``start``, up to LARGEST_HEADER_BYTES."""
    lines = [line.removesuffix(b"\r") for line in start.split(b"\n")]
    if b"" in lines:
        lines = lines[: lines.index(b"")]
    elif len(start) >= LARGEST_HEADER_BYTES:
        raise _unbearable("has no end")
    # Comments, and keys with values of any length, are kept by SimpleITK in memory of their own size.
    fields = [line for line in lines if not line.startswith(b"#") and b":=" not in line.partition(b": ")[0]]
    _check_lengths(fields)
    for line in fields:
        told = NRRD_FILES.match(line)
        if told and not PATTERN.fullmatch(told[1]):
            raise _unbearable("names no files that there could be")


def check_meta(start: bytes) -> None:
    """Raises CorruptFile for a MetaImage file that begins with ``start``, up to LARGEST_HEADER_BYTES."""
    lines: Lines = []
    for line in start.split(b"\n"):
        lines.append(line)
        field = META_LINE.match(line)
        if field is None:
            continue
        if field[1] == b"NDims" and not _counts_dimensions(field[2]):
            raise _unbearable("tells no number of dimensions")
        if field[1] == b"Name" and len(line) > LONGEST_NAME_BYTES:
            raise _unbearable("has a name that is too long")
        if field[1] == b"ElementDataFile":
            _check_lengths(lines)
            _check_files(field[2])
            return
    raise _unbearable("has no end")


def _check_lengths(lines: Lines) -> None:
    if any(len(line) > LONGEST_LINE_BYTES for line in lines):
        raise _unbearable("has lines that are too long")


def _check_files(told: bytes) -> None:
    several = b"%" in told or told.startswith(b"LIST")
    if several and not (PATTERN.fullmatch(told) and all(len(word) <= LONGEST_WORD_BYTES for word in told.split())):
        raise _unbearable("names no files that there could be")


def _counts_dimensions(told: bytes) -> bool:
    return told.strip().isdigit() and len(told) < 10 and 1 <= int(told) <= MOST_DIMENSIONS


def _unbearable(why: str) -> CorruptFile:
    return CorruptFile(f"The image's header {why}.")
