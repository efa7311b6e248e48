"""Which files belong together, and which series of a file or folder is meant; headers only."""

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from errors import CorruptFile, InputNotFound, InvalidRequest, NoImage, UnsupportedModality
from folder_walk import FolderWalk
from progress import Report
from volumes.headers import Header, Slice, headers_of, read_header

MODALITIES = ("CT", "MR")

ONE_DISK = "Folders of other disks that are mounted below it are not looked into; name one of them."
"""What helps where a folder seems empty because another disk begins below it."""


@dataclass(frozen=True)
class Series:
    """The headers of one series. ``damaged`` counts DICOM files beside it that do not tell what they belong to.

    ``named`` is the file that stands for the series, if one does.
    """

    uid: str
    modality: str
    headers: tuple[Header, ...]
    damaged: int = 0
    named: Path | None = None

    @property
    def slices(self) -> list[Slice]:
        """What could be part of a volume; localizers only where there is nothing else."""
        images = [header for header in self.headers if header.slices]
        wanted = [header for header in images if not header.localizer] or images
        return [one for header in wanted for one in header.slices]

    @property
    def placed(self) -> int:
        """How many slices tell where they lie."""
        return sum(one.place is not None for one in self.slices)


def image_header(file: Path) -> Header:
    """The header of one CT or MR image. Raises UnsupportedFile, CorruptFile, NoImage, UnsupportedModality."""
    header = read_header(file)
    _check_image(header)
    return header


def series_around(own: Header, report: Report) -> Series:
    """The whole series that ``own`` belongs to, gathered from its folder. Raises InputNotFound, FolderTooLarge."""
    files = _files(FolderWalk(own.file.parent, deep=False))
    beside = headers_of([other for other in files if other != own.file], report)
    # Groups keep the order of what they are made of.
    return replace(_grouped([own, *beside])[0], named=own.file)


def series_in_folder(folder: Path, series_uid: str | None, report: Report) -> Series:
    """The series ``series_uid`` of a folder and those below it, else the CT or MR series with the most placed slices.

    Raises InputNotFound, InvalidRequest, FolderTooLarge, NoImage, UnsupportedModality, CorruptFile.
    """
    walk = FolderWalk(folder)
    headers = list(headers_of(_files(walk), report))
    if not headers:
        raise InputNotFound("The folder holds no DICOM file.", hint=ONE_DISK if walk.mounts else None)
    found = _grouped(headers)
    if series_uid is not None:
        found = [series for series in found if series.uid == series_uid]
        if not found:
            raise InvalidRequest("The folder holds no series with this series_uid.", hint="Leave series_uid out.")
    images = [series for series in found if series.modality in MODALITIES and series.slices]
    if not images:
        _check_image(found[0].headers[0])
        raise NoImage("The folder holds no CT or MR images.")
    return max(images, key=lambda series: series.placed)


def _grouped(headers: list[Header]) -> list[Series]:
    groups: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        groups[header.key].append(header)
    damaged = sum(header.cut and not header.series_uid for header in headers)
    return [Series(own[0].series_uid, own[0].modality, tuple(own), damaged) for own in groups.values()]


def _check_image(header: Header) -> None:
    if header.cut:
        raise CorruptFile("The DICOM file ends within its header.")
    if not header.has_pixels:
        raise NoImage("This DICOM file holds no image.")
    if header.modality not in MODALITIES:
        raise UnsupportedModality(f"The modality {header.modality[:16] or 'unknown'} is not read; only CT and MR are.")
    if not header.slices:
        raise NoImage("This DICOM file holds a colour picture, no slice of a volume.")


def _files(walk: FolderWalk) -> list[Path]:
    try:
        return [Path(entry.path) for entry in walk if entry.is_file()]
    except OSError as error:
        raise InputNotFound("The folder cannot be listed.") from error
