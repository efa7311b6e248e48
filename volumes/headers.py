"""DICOM headers become facts about slices: what they show, where they lie. No pixels are read, no names are kept."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, EnhancedMRImageStorage, MRImageStorage

from errors import CorruptFile, UnsupportedFile
from progress import Report
from volumes.deflated import check_deflated
from volumes.values import Rescale

NEEDED = [
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
]
"""All that is read of a header; nothing that tells who the patient is."""

FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""How a DICOM file without the usual preamble begins: group 0002 or 0008, little endian."""

BROKEN_HEADER = (
    AttributeError,
    BytesLengthException,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on headers that are cut short or malformed."""


CLUES = ("FrameOfReferenceUID", "SeriesNumber", "Rows", "Columns")
"""What anonymised files of one series still share."""

PHASES = ("AcquisitionNumber", "TemporalPositionIdentifier", "EchoNumbers", "ImageType")
"""What may tell several volumes of one series apart, the likeliest first."""

MOST_FRAMES = 50_000
"""In one file; a header that claims more would fill the memory with nothing."""

IMAGES = (CTImageStorage, MRImageStorage, EnhancedCTImageStorage, EnhancedMRImageStorage)
"""What must have rows and columns; without them the file was cut short."""


@dataclass(frozen=True)
class Place:
    """Where a slice lies (LPS, mm): its first pixel's centre, directions of growing column and row, pixel distances."""

    position: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    column_mm: float
    row_mm: float


@dataclass(frozen=True)
class Slice:
    """One frame of one file. ``place`` is None where the header does not tell it."""

    file: Path
    frame: int
    sop_instance_uid: str
    instance_number: int | None
    rows: int
    columns: int
    place: Place | None
    rescale: Rescale
    phase: tuple[str, ...] = ("",) * len(PHASES)


@dataclass(frozen=True)
class Header:
    """One file: what it is, and its slices, none where it holds no image that could be part of a volume."""

    file: Path
    series_uid: str
    modality: str
    clues: tuple[str, ...] = ()
    localizer: bool = False
    has_pixels: bool = False
    cut: bool = False
    slices: tuple[Slice, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """What its series has in common. Where the UID was taken away, whatever else tells two series apart."""
        return (self.series_uid, self.modality) if self.series_uid else ("", self.modality, *self.clues)


def read_header(file: Path) -> Header:
    """The facts of one DICOM file. Raises UnsupportedFile where it is none, CorruptFile where it is broken."""
    try:
        dataset = _read(file)
        return _header(file, dataset)
    except InvalidDicomError as error:
        raise UnsupportedFile("This is not a DICOM file.") from error
    except (*BROKEN_HEADER, MemoryError) as error:
        # Without pixels a header is small; one that fills the memory lies about an element's length.
        raise CorruptFile("The DICOM header is incomplete or malformed.") from error


def _read(file: Path) -> Dataset:
    check_deflated(file)
    try:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(NEEDED))
    except InvalidDicomError:
        if not begins_like_dicom(file):
            raise
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(NEEDED), force=True)


def begins_like_dicom(file: Path) -> bool:
    """True for the usual preamble, and for files that lack it and begin with their first element."""
    with file.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or (start[:2] in FIRST_GROUPS and len(start) == 132)


def headers_of(files: Sequence[Path], report: Report) -> Iterator[Header]:
    """The facts of those ``files`` that are DICOM; a broken one is ``cut``. ``report`` stays at nothing done."""
    for file in files:
        report(0, len(files))
        try:
            yield read_header(file)
        except UnsupportedFile:
            continue
        except CorruptFile:
            yield Header(file, series_uid="", modality="", cut=True)


def _header(file: Path, dataset: Dataset) -> Header:
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    image_type = [str(value).upper() for value in _several(dataset.get("ImageType"))]
    has_pixels = rows > 0 and columns > 0
    coloured = int(dataset.get("SamplesPerPixel") or 1) > 1
    coloured = coloured or dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
    return Header(
        file=file,
        series_uid=str(dataset.get("SeriesInstanceUID") or ""),
        modality=str(dataset.get("Modality") or ""),
        clues=tuple(str(dataset.get(name) or "") for name in CLUES),
        localizer="LOCALIZER" in image_type,
        has_pixels=has_pixels,
        cut=not has_pixels and _class_of(dataset) in (*IMAGES, None),
        slices=tuple(_slices(file, dataset)) if has_pixels and not coloured else (),
    )


def _class_of(dataset: Dataset) -> str | None:
    """What the file is. Index files say it in their meta header only; None: the file was cut before it said so."""
    meta = getattr(dataset, "file_meta", Dataset())
    found = dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID")
    return None if found is None else str(found)


def _several(value: Any) -> list[Any]:  # noqa: ANN401 - pydicom gives one value or a list of them
    if value is None:
        return []
    return list(value) if not isinstance(value, str) else [value]


def _slices(file: Path, dataset: Dataset) -> Iterator[Slice]:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= frames <= MOST_FRAMES:
        raise ValueError(f"{frames} frames")
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for frame in range(frames):
        own = per_frame[frame] if frame < len(per_frame) else Dataset()
        number = dataset.get("InstanceNumber")
        yield Slice(
            file=file,
            frame=frame,
            sop_instance_uid=str(dataset.get("SOPInstanceUID") or ""),
            instance_number=int(number) if number is not None else None,
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            # Without groups of its own, a frame of several has no place that the header tells.
            place=_place(own, shared, dataset) if frames == 1 or per_frame else None,
            rescale=_rescale(own, shared, dataset),
            phase=tuple(str(dataset.get(name) or "") for name in PHASES),
        )


def _place(own: Dataset, shared: Dataset, dataset: Dataset) -> Place | None:
    position = _value("PlanePositionSequence", "ImagePositionPatient", own, shared, dataset)
    orientation = _value("PlaneOrientationSequence", "ImageOrientationPatient", own, shared, dataset)
    spacing = _value("PixelMeasuresSequence", "PixelSpacing", own, shared, dataset)
    if position is None or orientation is None or spacing is None:
        return None
    first, directions, distances = (
        np.array([float(number) for number in value]) for value in (position, orientation, spacing)
    )
    if len(first) != 3 or len(directions) != 6 or len(distances) != 2:
        return None
    return Place(first, directions[:3], directions[3:], column_mm=float(distances[1]), row_mm=float(distances[0]))


def _rescale(own: Dataset, shared: Dataset, dataset: Dataset) -> Rescale:
    slope = _value("PixelValueTransformationSequence", "RescaleSlope", own, shared, dataset)
    intercept = _value("PixelValueTransformationSequence", "RescaleIntercept", own, shared, dataset)
    return Rescale(float(slope) if slope is not None else 1.0, float(intercept) if intercept is not None else 0.0)


def _value(sequence: str, name: str, own: Dataset, shared: Dataset, dataset: Dataset) -> Any:  # noqa: ANN401
    """``name`` from the frame's functional group, else from the shared one, else from the file's top level."""
    for group in (own, shared):
        items = group.get(sequence) or []
        if len(items) and items[0].get(name) is not None:
            return items[0].get(name)
    return dataset.get(name)
