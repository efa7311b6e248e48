"""DICOM files that gzip has packed, as archives keep them, read as if they were not, in bounded memory.

Their content tells, whatever their name says. A header is unpacked no further than it is read.
"""

import gzip
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO, cast

from openscans.errors import CorruptFile
from openscans.system.regular_files import open_regular
from openscans.volumes.deflated import LARGEST_BYTES

GZIP_MAGIC = b"\x1f\x8b\x08"


class _Unpacked(gzip.GzipFile):
    """What ``stored`` unpacks to, of which no more than ``most_bytes`` can be read; it is closed with this."""

    def __init__(self, stored: BufferedReader, most_bytes: int) -> None:
        super().__init__(fileobj=stored, mode="rb")
        self._stored = stored
        self._most_bytes = most_bytes

    def read(self, size: int | None = -1) -> bytes:
        left_bytes = self._most_bytes - self.tell()
        piece = super().read(left_bytes + 1 if size is None or size < 0 else min(size, left_bytes + 1))
        if len(piece) > left_bytes:
            raise CorruptFile("The packed DICOM file unpacks to more than it can hold.")
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        # To go forward is to unpack. `tell` is made of this, and so cannot be asked here.
        if (offset if whence == 0 else super().seek(0, 1) + offset) > self._most_bytes:
            raise CorruptFile("The packed DICOM file says that it goes on far beyond what it can hold.")
        return super().seek(offset, whence)

    def close(self) -> None:
        super().close()
        self._stored.close()


def open_dicom(file: Path, most_bytes: int = LARGEST_BYTES) -> BinaryIO:
    """``file``, or what gzip packed into it, from its beginning on.

    Raises OSError; reading what is packed raises CorruptFile beyond ``most_bytes``, and what gzip raises.
    """
    stored = open_regular(file)
    try:
        packed = stored.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
    except OSError:
        stored.close()
        raise
    return cast(BinaryIO, _Unpacked(stored, most_bytes)) if packed else stored


def open_unpacked(file: Path, most_bytes: int) -> BinaryIO:
    """As `open_dicom`, with all of what was packed in memory. Raises what reading raises, too."""
    stream = open_dicom(file, most_bytes)
    if not isinstance(stream, _Unpacked):
        return stream
    with stream:
        return BytesIO(stream.read())
