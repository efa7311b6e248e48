"""The elements of a DICOM file's header, as pydicom reads them; nothing of what they mean. No pixels, no names."""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag

from volumes.deflated import check_deflated

BITS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
"""How a pixel lies in its word."""

NEEDED: list[BaseTag | int | str] = [
    Tag(name)
    for name in (
        *BITS,
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "SeriesNumber",
        "FrameOfReferenceUID",
        "Modality",
        "ImageType",
        "InstanceNumber",
        "AcquisitionNumber",
        "TemporalPositionIdentifier",
        "EchoNumbers",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "NumberOfFrames",
        "RescaleSlope",
        "RescaleIntercept",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    )
]
"""All that is read of a header; nothing that tells who the patient is."""

BIT_TAGS = tuple(map(Tag, BITS))

FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""How a DICOM file without the usual preamble begins: group 0002 or 0008, little endian."""

BROKEN_HEADER = (
    AttributeError,
    BytesLengthException,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on headers that are cut short or malformed."""


@dataclass(frozen=True)
class Elements:
    """What was read of one file: values by keyword, and where and in which encoding the next element begins.

    ``bits`` are the values of `BITS`; None where they are malformed, which no other element suffers from.
    """

    file: Path
    values: dict[str, Any]
    bits: dict[str, Any] | None
    meta: Dataset
    implicit: bool
    little_endian: bool
    ends_at: int


def elements_of(file: Path) -> Elements:
    """What ``file`` has of `NEEDED`. Raises InvalidDicomError where it is no DICOM, else what BROKEN_HEADER lists."""
    check_deflated(file)
    with file.open("rb") as stream:
        try:
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=NEEDED)
        except InvalidDicomError:
            if not begins_like_dicom(file):
                raise
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=NEEDED, force=True)
        # As it was read, which tells the encoding that was found; the header may declare another.
        rows = dataset.get_item("Rows")
        return Elements(
            file,
            values=_values_of(dataset, dataset.keys() - BIT_TAGS),
            bits=_bits_of(dataset),
            meta=dataset.file_meta,
            implicit=isinstance(rows, RawDataElement) and rows.is_implicit_VR,
            little_endian=not isinstance(rows, RawDataElement) or rows.is_little_endian,
            ends_at=stream.tell(),
        )


def _bits_of(dataset: Dataset) -> dict[str, Any] | None:
    try:
        return _values_of(dataset, dataset.keys() & BIT_TAGS)
    except BROKEN_HEADER:
        return None


def _values_of(dataset: Dataset, tags: Iterable[BaseTag]) -> dict[str, Any]:
    return {element.keyword: element.value for element in map(dataset.__getitem__, tags)}


def begins_like_dicom(file: Path) -> bool:
    """True for the usual preamble, and for files that lack it and begin with their first element."""
    with file.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or (start[:2] in FIRST_GROUPS and len(start) == 132)
