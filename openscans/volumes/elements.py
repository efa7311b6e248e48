"""The elements of a DICOM file's header, as pydicom reads them; nothing of what they mean. No pixels, no names."""

import gzip
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from openscans.errors import UnsupportedFile
from openscans.types import UidLocation
from openscans.volumes.deflated import check_deflated
from openscans.volumes.skimming import HEAD_BYTES, skim

BITS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
"""How a pixel lies in its word."""

CLUES = (
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "Manufacturer",
    "ManufacturerModelName",
    "StationName",
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "EchoNumbers",
    "EchoTime",
    "TriggerTime",
    "InversionTime",
    "DiffusionBValue",
    "KVP",
    "ConvolutionKernel",
)
"""Of which nobody asks more than whether two files agree: they are texts here, whatever stands in them."""

NEEDED: list[BaseTag | int | str] = [
    Tag(name)
    for name in (
        *BITS,
        *CLUES,
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "Modality",
        "ImageType",
        "InstanceNumber",
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
        "RescaleType",
        "ModalityLUTSequence",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    )
]
"""All that is read of a header; nothing that tells who the patient is."""

UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
"""What an answer may name, and is read again from the file where the answer is kept."""

WANTED = frozenset(int(Tag(name)) for name in (*NEEDED, "SpecificCharacterSet"))
"""What pydicom reads where NEEDED is asked for."""

BIT_TAGS = tuple(map(Tag, BITS))

CLUE_TAGS = frozenset(map(Tag, CLUES))

SEQUENCES = tuple(
    map(Tag, ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence"))
)

PIXELS = tuple(map(Tag, ("FloatPixelData", "DoubleFloatPixelData", "PixelData")))
STOP = frozenset(map(int, PIXELS))

NUMBERS_AS_TEXT = ("DS", "IS")
"""Representations of numbers that are written as text, and so may be no numbers."""

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
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on headers that are cut short or malformed, or nest sequences some hundreds deep."""


@dataclass(frozen=True)
class Elements:
    """What was read of one file: values by keyword, and where and in which encoding the next element begins.

    ``bits`` are the values of `BITS`; None where they are malformed, which no other element suffers from. ``whole``:
    the header was read as far as the pixels. ``uid_locations`` has those of `UIDS` that stand in the file as they are.
    """

    file: Path
    values: dict[str, Any]
    bits: dict[str, Any] | None
    meta: Dataset
    implicit: bool
    little_endian: bool
    ends_at: int
    whole: bool = True
    uid_locations: Mapping[str, UidLocation] = field(default_factory=dict)


class _Stop:
    """Where pydicom shall stop: at the pixels, or at the element ``before``. ``begun`` is the last that it came to.

    It asks for each element of the file itself, not for those in sequences.
    """

    def __init__(self, before: BaseTag | None = None) -> None:
        self._before = before
        self.begun: BaseTag | None = None

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        self.begun = tag
        return tag in PIXELS or tag == self._before


def elements_of(file: Path, stream: BinaryIO) -> Elements:
    """What ``file``, opened as ``stream``, has of `NEEDED`.

    Raises UnsupportedFile where it is no DICOM, CorruptFile and OutOfMemory as `check_deflated`, else what
    BROKEN_HEADER lists.
    """
    if not _begins_like_dicom(stream):
        raise UnsupportedFile("This is no image file that is read here.")
    check_deflated(stream)
    stream.seek(0)
    skimmed = skim(stream.read(HEAD_BYTES), WANTED, STOP)
    if skimmed is None:
        return read_elements(file, stream)
    return _elements(file, stream, skimmed.dataset, meta=skimmed.meta, ends_at=skimmed.ends_at)


def read_elements(file: Path, stream: BinaryIO) -> Elements:
    """As `elements_of` of a DICOM file in whatever encoding, all by pydicom."""
    stream.seek(0)
    # By force, because the preamble may be missing.
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=NEEDED, force=True)
    return _elements(file, stream, dataset, meta=dataset.file_meta, ends_at=stream.tell())


def _elements(file: Path, stream: BinaryIO, dataset: Dataset, *, meta: Dataset, ends_at: int) -> Elements:
    # As it was read, which tells the encoding that was found; the header may declare another.
    rows = dataset.get_item("Rows")
    starts = _starts_of_uids(dataset)
    values = _values_of(dataset, dataset.keys() - BIT_TAGS)
    return Elements(
        file,
        values=values,
        bits=_bits_of(dataset),
        meta=meta,
        implicit=isinstance(rows, RawDataElement) and rows.is_implicit_VR,
        little_endian=not isinstance(rows, RawDataElement) or rows.is_little_endian,
        ends_at=ends_at,
        uid_locations=_locate_uids(file, stream, starts, values),
    )


def elements_before_nest(file: Path, stream: BinaryIO) -> Elements:
    """What ``file`` has of `NEEDED` before the sequence that is nested too deep, and no sequence.

    Enough to tell which series it belongs to. Raises what BROKEN_HEADER lists.
    """
    stop = _Stop()
    try:
        dataset = _read_until(stop, stream)
    except BROKEN_HEADER as error:
        if not is_nested_too_deep(error):
            raise
        dataset = _read_until(_Stop(before=stop.begun), stream)
    return Elements(
        file,
        values=_values_of(dataset, dataset.keys() - {*BIT_TAGS, *SEQUENCES}),
        bits=None,
        meta=dataset.file_meta,
        implicit=False,
        little_endian=True,
        ends_at=0,
        whole=False,
    )


def _read_until(stop: _Stop, stream: BinaryIO) -> Dataset:
    stream.seek(0)
    return read_partial(stream, stop, force=True, specific_tags=NEEDED)


def is_nested_too_deep(error: BaseException) -> bool:
    """pydicom's reader calls itself for each level, and takes whatever goes wrong at an item for the file's end."""
    return isinstance(error, RecursionError) or isinstance(error.__context__, RecursionError)


def _bits_of(dataset: Dataset) -> dict[str, Any] | None:
    try:
        return _values_of(dataset, dataset.keys() & BIT_TAGS)
    except BROKEN_HEADER:
        return None


def _starts_of_uids(dataset: Dataset) -> dict[str, int]:
    """Where the values of `UIDS` begin, counted in what pydicom read; only before it has made values of them."""
    elements = {name: dataset.get_item(name) for name in UIDS}
    return {name: one.value_tell for name, one in elements.items() if isinstance(one, RawDataElement)}


def _locate_uids(
    file: Path, stream: BinaryIO, starts: Mapping[str, int], values: Mapping[str, Any]
) -> dict[str, UidLocation]:
    """The places of ``starts`` at which the UIDs of ``values`` stand indeed.

    A deflated file has other bytes there, and an element with several values is told otherwise than it is written.
    """
    found = {}
    for name, start in starts.items():
        uid = str(values.get(name) or "").encode(errors="replace")
        stream.seek(start)
        if uid and stream.read(len(uid)) == uid:
            found[name] = UidLocation(str(file), start, len(uid))
    return found


def _values_of(dataset: Dataset, tags: Iterable[BaseTag]) -> dict[str, Any]:
    return {
        keyword_for_tag(tag): _text_of(dataset, tag) if tag in CLUE_TAGS else value_of(dataset, tag) for tag in tags
    }


def _text_of(dataset: Dataset, tag: BaseTag) -> str:
    """What stands at ``tag``, without what fills it up; never what it means, which may be malformed."""
    raw = dataset.get_item(tag)
    value = raw.value if raw is not None else None
    return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else str(value or "")


def value_of(dataset: Dataset, tag: BaseTag) -> Any:  # noqa: ANN401 - whatever an element may hold
    """The value of ``tag`` as pydicom makes it; where it should be a number and is none, the text that stands there."""
    try:
        return dataset[tag].value
    except (ArithmeticError, TypeError, ValueError):
        raw = dataset.get_item(tag)
        if dictionary_VR(tag) not in NUMBERS_AS_TEXT or not isinstance(raw, RawDataElement) or raw.value is None:
            raise
        return raw.value.decode("latin-1").strip(" \0")


def _begins_like_dicom(stream: BinaryIO) -> bool:
    """True for the usual preamble, and for files that lack it and begin with their first element."""
    try:
        start = stream.read(132)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        # It only seems packed, or is damaged where nothing tells yet what it was.
        return False
    return start[128:] == b"DICM" or (start[:2] in FIRST_GROUPS and len(start) == 132)
