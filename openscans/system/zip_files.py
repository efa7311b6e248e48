"""Zips that anybody may have made: opened in bounded memory, and what is dangerous about an entry.

Knows zips and their tricks; nothing of what is in them or what becomes of it.
"""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path

from openscans.system.regular_files import open_regular

MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
"""How a zip begins: with its first file, or with its end where it holds none (APPNOTE 4.3)."""

USUAL_COMPRESSION = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""The others' decompressors take as much memory as they like, and fail with errors that cannot be told from a failing
disk's."""

ENCRYPTED = 1
"""Bit of an entry's flags."""

LARGEST_DIRECTORY_BYTES = 2**24
"""Of the list of entries, which is read whole and becomes ten times as much: 50,000 entries with long names."""

BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
    struct.error,
)
"""What `zipfile` raises on zips that are cut short or malformed."""


class _BoundedReader(BufferedReader):
    """A file of which no more is read at once than a list of entries may be long, and nothing outside of it."""

    def __init__(self, raw: FileIO) -> None:
        super().__init__(raw)
        self._size_bytes = os.fstat(raw.fileno()).st_size

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        # The system's own refusal would look like a failing disk's.
        if whence == os.SEEK_SET and not 0 <= offset <= self._size_bytes:
            raise zipfile.BadZipFile("Something is said to lie outside of the zip.")
        return super().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > LARGEST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("The list of entries is too long.")
        return super().read(LARGEST_DIRECTORY_BYTES if size is None or size < 0 else size)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at ``path``, for a block. Raises OSError, and what BROKEN_ZIP lists."""
    with _BoundedReader(open_regular(path, buffering=0)) as stream, zipfile.ZipFile(stream) as archive:
        yield archive


def is_link_or_device(entry: zipfile.ZipInfo) -> bool:
    """Whether ``entry`` is something else than a file or a folder. Only zips made on Unix tell; of others it is 0."""
    return stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}


def is_encrypted(entry: zipfile.ZipInfo) -> bool:
    return bool(entry.flag_bits & ENCRYPTED)
