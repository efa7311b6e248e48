"""Deflated DICOM files are unpacked as a whole when they are opened; here they are measured first, in little memory."""

import struct
import zlib
from typing import BinaryIO

from pydicom.uid import DeflatedExplicitVRLittleEndian

from openscans.errors import CorruptFile
from openscans.volumes import memory_estimate

BEGINNING_BYTES = 1024
"""The meta header, which is never packed and names the transfer syntax, is a fraction of this."""

GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
META_START = 132

LARGEST_BYTES = 2**30
"""Unpacked. A slice has half a megabyte; unpacking this takes a second, and what is larger is no slice."""

PIECE_BYTES = 2**20


def check_deflated(stream: BinaryIO) -> None:
    """Look at a DICOM file from its beginning on.

    Raises CorruptFile where it is deflated and would unpack beyond reason, OutOfMemory beyond what is free.
    """
    stream.seek(0)
    beginning = stream.read(BEGINNING_BYTES)
    if DeflatedExplicitVRLittleEndian.encode() not in beginning:
        return
    if beginning[META_START : META_START + len(GROUP_LENGTH)] != GROUP_LENGTH:
        raise CorruptFile("The deflated DICOM file does not tell how long its meta header is.")
    first = META_START + len(GROUP_LENGTH) + 4
    stream.seek(first + struct.unpack_from("<I", beginning, first - 4)[0])
    unpacked_bytes = 0
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while piece := inflater.unconsumed_tail or stream.read(PIECE_BYTES):
        unpacked_bytes += len(inflater.decompress(piece, PIECE_BYTES))
        if unpacked_bytes > LARGEST_BYTES:
            raise CorruptFile("The deflated DICOM file unpacks to more than a slice can hold.")
    memory_estimate.check_inflated(unpacked_bytes)
