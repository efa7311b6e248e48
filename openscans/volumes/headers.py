"""DICOM headers become facts about slices: what they show, where they lie. No pixels are read, no names are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ImplicitVRLittleEndian,
    MRImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from openscans.errors import CorruptFile, InputNotFound, UnsupportedFile
from openscans.progress import Report
from openscans.types import NO_UID, LocatedUid, UidLocation
from openscans.volumes.elements import (
    BROKEN_HEADER,
    Elements,
    elements_before_nest,
    elements_of,
    is_nested_too_deep,
)
from openscans.volumes.gzipped import open_dicom
from openscans.volumes.header_values import (
    ENDS_EARLY,
    NESTED,
    NO_NUMBER,
    Fault,
    MalformedValue,
    functional_value,
    number_of,
    numbers_of,
    whole_number_of,
)
from openscans.volumes.modality_luts import modality_lut
from openscans.volumes.values import ModalityLut, Rescale

CLUES = ("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber", "Rows", "Columns")
"""What anonymised files of one series still share."""

ORIGIN = ("SeriesNumber", "SeriesDescription", "ProtocolName", "Manufacturer", "ManufacturerModelName", "StationName")
"""What slices of one series share even where each was given a series UID, or a study, of its own."""

TELLING = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "EchoNumbers",
    "ImageType",
    "EchoTime",
    "TriggerTime",
    "DiffusionBValue",
    "InversionTime",
    "KVP",
    "ConvolutionKernel",
)
"""What may tell several volumes of one series apart, the likeliest first."""

CAPTURES = (
    SecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)
"""Pictures of a screen or a sheet of paper."""

MOST_FRAMES = 50_000
"""In one file; a header that claims more would fill the memory with nothing."""

IMAGES = (CTImageStorage, MRImageStorage, EnhancedCTImageStorage, EnhancedMRImageStorage)
"""What must have rows and columns; without them the file was cut short."""


@dataclass(frozen=True)
class Place:
    """Where a slice lies (LPS, mm): its first pixel's centre, directions of growing column and row, pixel distances.

    ImagePositionPatient, the two halves of ImageOrientationPatient, and PixelSpacing (PS3.3 C.7.6.2.1.1).
    """

    position: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    column_mm: float
    row_mm: float


@dataclass(frozen=True)
class PixelStorage:
    """How one file stores its pixels. ``begins_at``: the byte where their element begins, None in a deflated file."""

    file: Path
    syntax: UID
    begins_at: int | None
    implicit: bool
    little_endian: bool
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool


@dataclass(frozen=True)
class Slice:
    """One frame of one file. ``place`` is None where the header does not tell it, ``storage`` where it is malformed.

    The UIDs are the file's own, with where they stand in it.
    """

    file: Path
    frame: int
    storage: PixelStorage | None
    sop_instance_uid: str
    instance_number: int | None
    rows: int
    columns: int
    place: Place | None
    rescale: Rescale | ModalityLut
    telling: tuple[str, ...] = ("",) * len(TELLING)
    is_capture: bool = False
    uid_location: UidLocation | None = None
    series_uid: LocatedUid = NO_UID
    study_uid: LocatedUid = NO_UID
    frame_of_reference_uid: LocatedUid = NO_UID


@dataclass(frozen=True)
class Header:
    """One file: what it is, and its slices, none where it holds no image that could be part of a volume.

    ``fault``: why it is broken, if it is; ``unread``: it could not be opened, or went meanwhile, and may be anything.
    """

    file: Path
    series_uid: str
    modality: str
    clues: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    localizer: bool = False
    has_pixels: bool = False
    fault: Fault | None = None
    unread: bool = False
    slices: tuple[Slice, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """What its series has in common. Where the UID was taken away, whatever else tells two series apart."""
        return (self.series_uid, self.modality) if self.series_uid else ("", self.modality, *self.clues)


def read_header(file: Path) -> Header:
    """The facts of one DICOM file, which is opened once.

    Raises UnsupportedFile where it is none, CorruptFile where it is broken, InputNotFound where it cannot be read.
    """
    try:
        stream = open_dicom(file)
    except OSError as error:
        raise InputNotFound("The file cannot be opened.") from error
    try:
        with stream:
            return _header_of(file, stream)
    except (*BROKEN_HEADER, MemoryError) as error:
        # pydicom raises OSError for malformed files too, but only the system numbers its errors.
        if isinstance(error, OSError) and error.errno is not None:
            raise InputNotFound("The file cannot be read.") from error
        # Without pixels a header is small; one that fills the memory lies about an element's length.
        raise CorruptFile("The DICOM header is incomplete or malformed.") from error


def headers_of(files: Sequence[Path], report: Report) -> Iterator[Header]:
    """The facts of those ``files`` that are DICOM or cannot be read. ``report`` stays at nothing done."""
    for file in files:
        report(0, len(files))
        try:
            yield read_header(file)
        except UnsupportedFile:
            continue
        except CorruptFile:
            yield Header(file, series_uid="", modality="", fault=ENDS_EARLY)
        except InputNotFound:
            yield Header(file, series_uid="", modality="", unread=True)


def _header_of(file: Path, stream: BinaryIO) -> Header:
    try:
        return _header(elements_of(file, stream))
    except BROKEN_HEADER as error:
        if not is_nested_too_deep(error):
            raise
    return _header(elements_before_nest(file, stream))


def _header(elements: Elements) -> Header:
    values = elements.values
    rows, columns = int(values.get("Rows") or 0), int(values.get("Columns") or 0)
    image_type = [str(value).upper() for value in _several(values.get("ImageType"))]
    has_pixels = rows > 0 and columns > 0
    coloured = int(values.get("SamplesPerPixel") or 1) > 1 or values.get("PhotometricInterpretation") == "PALETTE COLOR"
    could_be_slices = has_pixels and not coloured
    fault: Fault | None = None
    slices: tuple[Slice, ...] = ()
    if could_be_slices and not elements.whole:
        fault = NESTED
    elif could_be_slices:
        try:
            slices = tuple(_slices(elements))
        except MalformedValue as error:
            fault = error.fault
    elif not has_pixels and _class_of(elements) in (*IMAGES, None):
        fault = ENDS_EARLY if elements.whole else NESTED
    return Header(
        file=elements.file,
        series_uid=str(values.get("SeriesInstanceUID") or ""),
        modality=str(values.get("Modality") or ""),
        clues=tuple(str(values.get(name) or "") for name in CLUES),
        origin=(str(rows), str(columns), *(str(values.get(name) or "") for name in ORIGIN)),
        localizer="LOCALIZER" in image_type,
        has_pixels=has_pixels,
        fault=fault,
        slices=slices,
    )


def _class_of(elements: Elements) -> str | None:
    """What the file is. Index files say it in their meta header only; None: the file was cut before it said so."""
    found = elements.values.get("SOPClassUID") or elements.meta.get("MediaStorageSOPClassUID")
    return None if found is None else str(found)


def _several(value: Any) -> list[Any]:  # noqa: ANN401 - pydicom gives one value or a list of them
    if value is None:
        return []
    return list(value) if not isinstance(value, str) else [value]


def _slices(elements: Elements) -> Iterator[Slice]:
    values = elements.values
    frames = whole_number_of(values.get("NumberOfFrames") or 1)
    if frames is None:
        raise MalformedValue(NO_NUMBER)
    if not 1 <= frames <= MOST_FRAMES:
        raise ValueError(f"{frames} frames")
    per_frame = values.get("PerFrameFunctionalGroupsSequence") or []
    shared = list(values.get("SharedFunctionalGroupsSequence") or [])[:1]
    storage = _storage(elements, frames)
    telling = tuple(str(values.get(name) or "") for name in TELLING)
    is_capture = _class_of(elements) in CAPTURES
    series_uid, study_uid, frame_of_reference_uid = (
        LocatedUid(str(values.get(name) or ""), elements.uid_locations.get(name))
        for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    )
    for frame in range(frames):
        groups = [*per_frame[frame : frame + 1], *shared]
        yield Slice(
            file=elements.file,
            frame=frame,
            storage=storage,
            sop_instance_uid=str(values.get("SOPInstanceUID") or ""),
            instance_number=whole_number_of(values.get("InstanceNumber")),
            rows=int(values["Rows"]),
            columns=int(values["Columns"]),
            # Without groups of its own, a frame of several has no place that the header tells.
            place=_place(groups, values) if frames == 1 or per_frame else None,
            rescale=_rescale(groups, elements),
            telling=telling,
            is_capture=is_capture,
            uid_location=elements.uid_locations.get("SOPInstanceUID"),
            series_uid=series_uid,
            study_uid=study_uid,
            frame_of_reference_uid=frame_of_reference_uid,
        )


def _storage(elements: Elements, frames: int) -> PixelStorage | None:
    values, bits = elements.values, elements.bits
    if bits is None:
        return None
    try:
        syntax = UID(elements.meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)
        bits_stored = int(bits["BitsStored"])
        return PixelStorage(
            file=elements.file,
            syntax=syntax,
            begins_at=None if syntax == DeflatedExplicitVRLittleEndian else elements.ends_at,
            implicit=elements.implicit,
            little_endian=elements.little_endian,
            frames=frames,
            rows=int(values["Rows"]),
            columns=int(values["Columns"]),
            bits_allocated=int(bits["BitsAllocated"]),
            bits_stored=bits_stored,
            high_bit=int(bits.get("HighBit", bits_stored - 1)),
            signed=int(bits.get("PixelRepresentation") or 0) == 1,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _place(groups: Sequence[Dataset], values: dict[str, Any]) -> Place | None:
    """From the macros of PS3.3 C.7.6.16.2.3 (position), .4 (orientation) and .1 (spacing), else from the top level.

    None where one of the three is missing.
    """
    position = functional_value("PlanePositionSequence", "ImagePositionPatient", groups, values)
    orientation = functional_value("PlaneOrientationSequence", "ImageOrientationPatient", groups, values)
    spacing = functional_value("PixelMeasuresSequence", "PixelSpacing", groups, values)
    if position is None or orientation is None or spacing is None:
        return None
    first, directions, distances = (np.array(numbers_of(value)) for value in (position, orientation, spacing))
    if len(first) != 3 or len(directions) != 6 or len(distances) != 2:
        return None
    # PixelSpacing tells the distance of rows first (PS3.3 10.7.1.3).
    return Place(first, directions[:3], directions[3:], column_mm=float(distances[1]), row_mm=float(distances[0]))


def _rescale(groups: Sequence[Dataset], elements: Elements) -> Rescale | ModalityLut:
    """From the file's table (PS3.3 C.11.1), the frame's own transformation (C.7.6.16.2.9), or the file's numbers."""
    values = elements.values
    if luts := values.get("ModalityLUTSequence"):
        return modality_lut(luts[0], elements)
    slope = functional_value("PixelValueTransformationSequence", "RescaleSlope", groups, values)
    intercept = functional_value("PixelValueTransformationSequence", "RescaleIntercept", groups, values)
    unit = functional_value("PixelValueTransformationSequence", "RescaleType", groups, values)
    return Rescale(
        slope=1.0 if slope is None else number_of(slope),
        intercept=0.0 if intercept is None else number_of(intercept),
        told=slope is not None or intercept is not None,
        unit=str(unit or "").strip().upper(),
    )
