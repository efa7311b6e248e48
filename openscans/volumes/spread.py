"""A series that an export spread over folders beside each other (DICOM00001, DICOM00002 on a CD); headers only.

Bounded, since beside a folder may lie a whole archive: folders are looked into outwards from its own, a few files of
each, until several in a row hold none of the series.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from openscans.errors import FolderTooLarge, InputNotFound, VolumeError
from openscans.progress import Report
from openscans.system.folder_walk import NEAREST, folders_beside
from openscans.volumes.headers import Header, headers_of, read_header
from openscans.volumes.listing import FolderContents
from openscans.volumes.series import Series

MOST_FOLDERS = 64
"""To either side."""

PROBES = 5
"""Files of a folder, evenly over its names, whose headers tell whether it holds the series."""


def gather_beside(series: Series, report: Report) -> Series:
    """``series``, gathered from one folder, with its slices in the folders beside; itself where there are none."""
    if not series.uid:
        return series
    found = [part for folders in folders_beside(series.folder.top) for part in _outwards(folders, series, report)]
    if not found:
        return series
    headers = tuple(header for part in found for header in part.headers)
    return replace(
        series,
        headers=(*series.headers, *headers),
        beside=tuple(part.folder for part in found),
    )


def _outwards(folders: Sequence[Path], series: Series, report: Report) -> Iterator[Series]:
    """What of ``series`` lies in ``folders``, the nearest first."""
    misses = 0
    for folder in folders[:MOST_FOLDERS]:
        part = _part_in(folder, series, report)
        misses = misses + 1 if part is None else 0
        if misses == NEAREST:
            return
        if part is not None:
            yield part


def _part_in(folder: Path, series: Series, report: Report) -> Series | None:
    try:
        contents = FolderContents.of(folder, deep=False)
    except (FolderTooLarge, InputNotFound):
        return None
    own = series.headers[0]
    probes = contents.paths[:: max(1, len(contents.paths) // PROBES)]
    if not any(_is_of_series(file, own, report) for file in (*probes, *contents.paths[-1:])):
        return None
    headers = tuple(header for header in headers_of(contents.paths, report) if _belongs(header, own))
    return replace(series, headers=headers, folder=contents) if headers else None


def _is_of_series(file: Path, own: Header, report: Report) -> bool:
    report(0, 1)
    try:
        return _belongs(read_header(file), own)
    except (InputNotFound, VolumeError):
        return False


def _belongs(header: Header, own: Header) -> bool:
    """Whether ``header`` tells the series of ``own``, and its study and frame: some write one series UID everywhere."""
    return header.key == own.key and header.clues[:2] == own.clues[:2]
