"""A DICOM file or folder becomes a volume: which files belong together, which series is meant, and its pixels."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from errors import CorruptFile, InputNotFound, InvalidRequest, NoImage, TooFewSlices, UnsupportedModality
from progress import Report
from volumes.geometry import Stack, stacked
from volumes.headers import Header, Rescale, Slice, headers_of, read_header
from volumes.pixels import PixelFile
from volumes.volume import Instance, Volume, Voxels, notices_for, room_for

MODALITIES = ("CT", "MR")

MOST_FILES = 50_000
"""A whole study has some thousand files; a folder with more is hardly meant to be read as a series."""

FILES_AT_ONCE = 16
"""Files whose decoded pixels may wait for their place: some megabytes, and enough for every core to have work."""


@dataclass(frozen=True)
class Series:
    """The headers that share a SeriesInstanceUID, which may be empty."""

    uid: str
    modality: str
    headers: tuple[Header, ...]

    @property
    def slices(self) -> list[Slice]:
        """What could be part of a volume; localizers only where there is nothing else."""
        images = [header for header in self.headers if header.slices]
        wanted = [header for header in images if not header.localizer] or images
        return [one for header in wanted for one in header.slices]


def series_of_file(file: Path) -> Series:
    """The whole series of a DICOM ``file``, gathered from its folder.

    Raises UnsupportedFile, CorruptFile, NoImage, UnsupportedModality.
    """
    own = read_header(file)
    _check_image(own)
    beside = headers_of([other for other in _files_in(file.parent) if other != file])
    together = (own, *(header for header in beside if (header.series_uid, header.modality) == _key(own)))
    return Series(own.series_uid, own.modality, together)


def series_in_folder(folder: Path, series_uid: str | None) -> Series:
    """The series ``series_uid`` of a folder and those below it, else the CT or MR series with the most placed slices.

    Raises InputNotFound, InvalidRequest, NoImage, UnsupportedModality.
    """
    headers = list(headers_of(list(_files_below(folder))))
    if not headers:
        raise InputNotFound("The folder holds no DICOM file.")
    groups: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for header in headers:
        if series_uid is None or header.series_uid == series_uid:
            groups[_key(header)].append(header)
    if not groups:
        raise InvalidRequest("The folder holds no series with this series_uid.", hint="Leave series_uid out.")
    found = [Series(uid, modality, tuple(own)) for (uid, modality), own in groups.items()]
    images = [series for series in found if series.modality in MODALITIES and series.slices]
    if not images:
        _check_image(found[0].headers[0])
        raise NoImage("The folder holds no CT or MR images.")
    return max(images, key=lambda series: sum(one.place is not None for one in series.slices))


def _key(header: Header) -> tuple[str, str]:
    return header.series_uid, header.modality


def _check_image(header: Header) -> None:
    if header.cut:
        raise CorruptFile("The DICOM file ends within its header.")
    if not header.has_pixels:
        raise NoImage("This DICOM file holds no image.")
    if header.modality not in MODALITIES:
        raise UnsupportedModality(f"The modality {header.modality[:16] or 'unknown'} is not read; only CT and MR are.")
    if not header.slices:
        raise NoImage("This DICOM file holds a colour picture, no slice of a volume.")


def _files_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_file())


def _files_below(folder: Path) -> Iterator[Path]:
    count = 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if not path.is_file():
                continue
            count += 1
            if count > MOST_FILES:
                raise InvalidRequest(f"The folder holds more than {MOST_FILES} files.", hint="Name the series' folder.")
            yield path


def volume_of(series: Series, report: Report) -> Volume:
    """Sort, check and read ``series``. ``report`` counts slices.

    Raises TooFewSlices, InconsistentGeometry, SeveralVolumes, CorruptFile, UnsupportedTransferSyntax, OutOfMemory.
    """
    if any(header.cut for header in series.headers):
        raise CorruptFile("A file of the series ends within its header.")
    slices = _without_copies(series.slices)
    if not slices:
        raise TooFewSlices("The series holds no slice.")
    stack = stacked(slices)
    return Volume(
        voxels=_voxels(stack, report),
        affine_lps=stack.affine_lps,
        modality=series.modality,
        series_instance_uid=series.uid or None,
        instances=tuple(
            Instance(one.sop_instance_uid, one.instance_number, one.file, one.frame) for one in stack.slices
        ),
        notices=notices_for(len(stack.slices)),
    )


def _without_copies(slices: Sequence[Slice]) -> list[Slice]:
    """``slices`` without second files of the same instance, as exports that were made twice hold them."""
    first: dict[object, Slice] = {}
    for one in slices:
        instance = (one.sop_instance_uid, one.frame) if one.sop_instance_uid else one
        known = first.setdefault(id(one) if instance is one else instance, one)
        if known is not one and not _same_place(known, one):
            first[id(one)] = one
    return list(first.values())


def _same_place(one: Slice, other: Slice) -> bool:
    if one.place is None or other.place is None:
        return one.place is other.place
    return bool(np.array_equal(one.place.position, other.place.position))


def _voxels(stack: Stack, report: Report) -> Voxels:
    """Decode every slice into one array (z, y, x): int16 where the values are whole and fit, else int32 or float32."""
    slices = stack.slices
    shape = (len(slices), slices[0].rows, slices[0].columns)
    whole = all(_is_whole(one.rescale) for one in slices)
    voxels = room_for(shape, np.int16 if whole else np.float32)
    by_file = [list(group) for _, group in groupby(enumerate(slices), key=lambda item: item[1].file)]
    done = 0
    report(0, len(slices))
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for start in range(0, len(by_file), FILES_AT_ONCE):
            for planes in pool.map(_planes, by_file[start : start + FILES_AT_ONCE]):
                for z, plane in planes:
                    voxels = _roomier(voxels, plane)
                    voxels[z] = plane
                    done += 1
                report(done, len(slices))
    return voxels


def _is_whole(rescale: Rescale) -> bool:
    return rescale.slope.is_integer() and rescale.intercept.is_integer()


def _planes(numbered: Sequence[tuple[int, Slice]]) -> list[tuple[int, NDArray[np.int32] | NDArray[np.float32]]]:
    """The rescaled planes (y, x) of the slices of one file, each with its index z."""
    file = PixelFile(numbered[0][1].file)
    return [(z, _rescaled(file, one)) for z, one in numbered]


def _rescaled(file: PixelFile, one: Slice) -> NDArray[np.int32] | NDArray[np.float32]:
    stored = file.frame(one.frame)
    if not _is_whole(one.rescale):
        return stored.astype(np.float32) * np.float32(one.rescale.slope) + np.float32(one.rescale.intercept)
    whole: NDArray[np.int32] = stored.astype(np.int32)
    if one.rescale.slope != 1:
        whole *= int(one.rescale.slope)
    whole += int(one.rescale.intercept)
    return whole


def _roomier(voxels: Voxels, plane: NDArray[np.int32] | NDArray[np.float32]) -> Voxels:
    """``voxels``, widened to int32 at the first plane whose values do not fit int16; hardly any CT has such."""
    limits = np.iinfo(np.int16)
    if voxels.dtype != np.int16 or (plane.min() >= limits.min and plane.max() <= limits.max):
        return voxels
    return voxels.astype(np.int32)
