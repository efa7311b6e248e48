"""What a file is by how it begins, whatever its name says: DICOM, NIfTI, NRRD, MetaImage, or no image.

Knows beginnings; no header is read, so that this needs no library of any format.
"""

import re
import zlib

BEGINNING_BYTES = 2**16
"""Enough to tell. MetaImage has no magic, and the line that ends its header may stand behind many others."""

DICOM_MAGIC, DICOM_MAGIC_AT = b"DICM", 128

FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""How DICOM files without the usual preamble begin: group 0002 or 0008, little endian."""

INDEX_CLASS = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"
"""How a DICOMDIR says what it is: the element MediaStorageSOPClassUID."""

GZIP_MAGIC = b"\x1f\x8b\x08"

NIFTI_MAGIC, NIFTI_PAIR_MAGIC = (b"n+1\0", b"n+2\0"), (b"ni1\0", b"ni2\0")
NIFTI_MAGIC_AT = (344, 4)
"""In the first version of the header and in the second."""

NRRD_MAGIC = b"NRRD"
NRRD_ELSEWHERE = re.compile(rb"^data ?file:", re.IGNORECASE | re.MULTILINE)

META_FIELD, META_DATA = b"NDims", b"elementdatafile"
META_DATA_HERE = re.compile(rb"^ElementDataFile *= *LOCAL\r?\n", re.MULTILINE)

HEADER_SUFFIXES, IMAGE_SUFFIXES = (".hdr", ".hdr.gz"), (".img", ".img.gz")
"""Of a NIfTI image in two files."""

META_SUFFIXES = (".mha", ".mhd")


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins with ``start``, unpacked, has the usual preamble."""
    return start[DICOM_MAGIC_AT : DICOM_MAGIC_AT + len(DICOM_MAGIC)] == DICOM_MAGIC


def is_dicomdir(start: bytes) -> bool:
    """Whether a file that begins with ``start`` lists others, which lie in folders beside it."""
    return is_dicom(start) and INDEX_CLASS in start


def unpack_start(start: bytes) -> bytes:
    """``start`` of a file, or what gzip packed into it; empty where that is damaged."""
    if not start.startswith(GZIP_MAGIC):
        return start
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, BEGINNING_BYTES)
    except zlib.error:
        return b""


def suffix_of(name: str, start: bytes) -> str | None:
    """How a file that begins with ``start`` has to be named to be taken for what it is; None for what is no image.

    DICOM needs no suffix. ``name`` only tells halves of a pair from whole files. None too for headers of NRRD and
    MetaImage that name another file: it could lie anywhere on this machine.
    """
    name, unpacked = name.lower(), unpack_start(start)
    if is_dicom(unpacked) or (unpacked[:2] in FIRST_GROUPS and len(unpacked) > DICOM_MAGIC_AT):
        return ""
    magics = {unpacked[at : at + 4] for at in NIFTI_MAGIC_AT}
    if magics & {*NIFTI_PAIR_MAGIC} and name.endswith(HEADER_SUFFIXES):
        return HEADER_SUFFIXES[0]
    if magics & {*NIFTI_MAGIC, *NIFTI_PAIR_MAGIC}:
        return ".nii"
    if start.startswith(NRRD_MAGIC):
        header, ends, _ = start.replace(b"\r\n", b"\n").partition(b"\n\n")
        return ".nrrd" if ends and not NRRD_ELSEWHERE.search(header) else None
    if META_FIELD in start and name.endswith(META_SUFFIXES):
        # More than one of them may mean another than the reader's own.
        return ".mha" if start.lower().count(META_DATA) == 1 and META_DATA_HERE.search(start) else None
    return None
