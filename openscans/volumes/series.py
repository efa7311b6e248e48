"""Which files belong together, and which series of a file or folder is meant; headers only."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openscans.errors import InputNotFound, NoImage, UnknownSeries, UnsupportedModality
from openscans.progress import Report
from openscans.volumes.headers import Header, Slice, headers_of, read_header
from openscans.volumes.listing import FolderContents
from openscans.volumes.volume import FEWEST_SLICES

MODALITIES = ("CT", "MR")

ONE_DISK = "Folders of other disks that are mounted below it are not looked into; name one of them."
"""What helps where a folder seems empty because another disk begins below it."""


@dataclass(frozen=True)
class Unread:
    """Files that could not be read, and folders that could not be listed."""

    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.folders)

    def __str__(self) -> str:
        counts = (("file", len(self.files)), ("folder", len(self.folders)))
        return " and ".join(f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts if count)


@dataclass(frozen=True)
class Series:
    """The headers of one series, found in ``folder``. ``damaged`` counts DICOM files that do not tell their series.

    ``named`` is the file that stands for the series, if one does. ``unread`` may hold slices of it. ``uid`` is empty
    where each slice has one of its own. ``beside``: other folders that hold slices of it.
    """

    uid: str
    modality: str
    headers: tuple[Header, ...]
    folder: FolderContents
    damaged: int = 0
    named: Path | None = None
    unread: Unread = Unread()
    beside: tuple[FolderContents, ...] = ()

    @property
    def is_joined(self) -> bool:
        """Whether its slices have series UIDs of their own."""
        return not self.uid and bool(self.headers[0].series_uid)

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
    """The header of one CT or MR image.

    Raises InputNotFound, UnsupportedFile, CorruptFile, NoImage, UnsupportedModality.
    """
    header = read_header(file)
    _check_image(header)
    return header


def series_around(own: Header, report: Report) -> Series:
    """The whole series that ``own`` belongs to, gathered from its folder. Raises InputNotFound, FolderTooLarge."""
    folder = FolderContents.of(own.file.parent, deep=False)
    beside, unread = _gather_headers(folder, [file for file in folder.paths if file != own.file], report)
    [series] = [one for one in _group([own, *beside], folder) if own in one.headers]
    return replace(series, named=own.file, unread=_unread_of(series, [own, *beside], unread))


def series_in_folder(top: Path, series_uid: str | None, report: Report) -> list[Series]:
    """The CT and MR series of ``top`` and the folders below, those with the most placed slices first.

    Of them only ``series_uid``, if that is told. Raises InputNotFound, UnknownSeries, FolderTooLarge, NoImage,
    UnsupportedModality, CorruptFile; never returns none.
    """
    return series_among(FolderContents.of(top, deep=True), series_uid, report)


def series_among(folder: FolderContents, series_uid: str | None, report: Report) -> list[Series]:
    """As `series_in_folder`, of the files of ``folder``."""
    headers, unread = _gather_headers(folder, folder.paths, report)
    if not headers:
        which = "no DICOM file that may be read" if unread else "no DICOM file"
        raise InputNotFound(f"The folder holds {which}.", hint=ONE_DISK if folder.mounts and not unread else None)
    found = _group(headers, folder)
    if series_uid is not None:
        found = _only(series_uid, found)
    images = [series for series in found if series.modality in MODALITIES and series.slices]
    if not images:
        _check_image(found[0].headers[0])
        raise NoImage("The folder holds no CT or MR images.")
    images.sort(key=lambda series: series.placed, reverse=True)
    return [replace(series, unread=_unread_of(series, headers, unread)) for series in images]


def _only(series_uid: str, found: Sequence[Series]) -> list[Series]:
    only = [series for series in found if any(header.series_uid == series_uid for header in series.headers)]
    if not only:
        images = [series for series in found if series.modality in MODALITIES and series.slices]
        images.sort(key=lambda series: series.placed, reverse=True)
        raise UnknownSeries([(series.uid, series.modality, len(series.slices)) for series in images])
    return only


def _gather_headers(folder: FolderContents, files: Sequence[Path], report: Report) -> tuple[list[Header], Unread]:
    """Headers of the DICOM files among ``files``, and what in ``folder`` could not be read."""
    found = list(headers_of(files, report))
    closed = (*folder.unreadable, *(header.file for header in found if header.unread))
    return [header for header in found if not header.unread], Unread(closed, folder.unlisted)


def _unread_of(series: Series, headers: Sequence[Header], unread: Unread) -> Unread:
    """What of ``unread`` may hold slices of ``series``, of which nobody else would know that they are missing.

    Files in the folders that its own files lie in; files in folders that hold no DICOM file which tells its series, so
    that nobody can tell what lies there; and every folder that cannot be listed, as exports spread a series over
    folders. A file among those of other series alone is one of theirs.
    """
    own = {header.file.parent for header in series.headers}
    told = {header.file.parent for header in headers if header.fault is None}
    return replace(unread, files=tuple(file for file in unread.files if file.parent in own or file.parent not in told))


def _group(headers: Sequence[Header], folder: FolderContents) -> list[Series]:
    """The series of ``headers``, each with its own in the order in which they came."""
    groups: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        groups[header.key].append(header)
    damaged = sum(header.fault is not None and not header.series_uid for header in headers)
    own: list[Series] = []
    lone: list[Series] = []
    for group in groups.values():
        series = Series(group[0].series_uid, group[0].modality, tuple(group), folder, damaged)
        (lone if _is_lone(series) else own).append(series)
    return own + _join_lone(lone)


def _is_lone(series: Series) -> bool:
    """Whether one slice is all of ``series``, as where software that anonymises gave each its own UID."""
    slices, first = series.slices, series.headers[0]
    return len(slices) == 1 and slices[0].place is not None and bool(series.uid) and not first.localizer


def _join_lone(lone: Sequence[Series]) -> list[Series]:
    """``lone`` series, of which those that tell the same origin become one; too few for a volume stay what they are.

    A study and a frame of reference that several share tell them apart; where each has its own, they tell nothing.
    """
    shared = Counter(uid for series in lone for uid in _wider_uids(series))
    groups: dict[tuple[str, ...], list[Series]] = defaultdict(list)
    for series in lone:
        wider = (uid if shared[uid] > 1 else "" for uid in _wider_uids(series))
        groups[series.modality, *series.headers[0].origin, *wider].append(series)
    found = []
    for group in groups.values():
        if len(group) < FEWEST_SLICES:
            found += group
        else:
            headers = tuple(header for series in group for header in series.headers)
            found.append(replace(group[0], uid="", headers=headers))
    return found


def _wider_uids(series: Series) -> tuple[str, str]:
    [one] = series.slices
    return one.study_uid.uid, one.frame_of_reference_uid.uid


def _check_image(header: Header) -> None:
    if header.fault is not None:
        raise header.fault.error("The DICOM file")
    if not header.has_pixels:
        raise NoImage("This DICOM file holds no image.")
    if header.modality not in MODALITIES:
        raise UnsupportedModality(f"The modality {header.modality[:16] or 'unknown'} is not read; only CT and MR are.")
    if not header.slices:
        raise NoImage("This DICOM file holds a colour picture, no slice of a volume.")
