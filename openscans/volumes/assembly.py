"""A series becomes an image, sorted and checked by its headers, and then a volume, decoded by several threads."""

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, repeat
from pathlib import Path

from openscans.errors import CorruptFile, InputNotFound, NoImage, OpenScansError, OutOfMemory, TooFewSlices, VolumeError
from openscans.progress import Report, ignore_progress
from openscans.system.parallel import thread_count
from openscans.types import NO_UID, LocatedUid, ResultWarning, WarningCode
from openscans.volumes import memory_estimate
from openscans.volumes.geometry import Stack, stack_slices
from openscans.volumes.headers import PixelStorage, Slice
from openscans.volumes.image import Begin, Image, ignore_extent
from openscans.volumes.intensities import Told
from openscans.volumes.pixels import PixelFile, check_storage
from openscans.volumes.selection import select_volume
from openscans.volumes.series import Series
from openscans.volumes.stored import AIR
from openscans.volumes.values import Plane, Rescale, Voxels, allocate, widen
from openscans.volumes.volume import Extent, Instance, Volume, slice_count_warnings

SLICES_AT_ONCE = 16
"""Decoded slices that may wait for their place: some megabytes, and enough for every core to have work."""


@dataclass(frozen=True)
class DicomImage(Image):
    """A series whose slices are sorted and make one volume. ``chosen`` tells where it is one of several.

    ``others``: the folder's series that are read in its place, the largest first, where its pixels cannot be.
    """

    series: Series
    stack: Stack
    chosen: tuple[ResultWarning, ...] = ()
    others: tuple[Series, ...] = ()

    def check_memory(self) -> None:
        stack = self.stack
        memory_estimate.check_series(
            stack.image_zyx,
            resampled_zyx=None if stack.stored is None else stack.volume_zyx,
            narrow=all(one.rescale.stays_narrow for one in stack.slices),
            at_once=SLICES_AT_ONCE,
            kept_file_bytes=_most_bytes_kept(stack),
        )

    def is_unchanged(self) -> bool:
        return all(folder.is_unchanged() for folder in (self.series.folder, *self.series.beside))

    def read(self, report: Report = ignore_progress, begin: Begin = ignore_extent) -> Volume:
        image, damaged = self, list[OpenScansError]()
        while True:
            begin(image.extent)
            try:
                volume = image._read(report)
            except VolumeError as error:
                damaged.append(error.with_traceback(None))
            else:
                if damaged:
                    before = (one for one in self.chosen if one.code is WarningCode.SERIES_PASSED_OVER)
                    volume = replace(volume, warnings=(*volume.warnings, *before, _passed_over(damaged)))
                return volume
            # The network was chosen by the modality that was told.
            others = [series for series in image.others if series.modality == self.modality]
            try:
                image = open_largest(others)
            except (OutOfMemory, VolumeError):
                raise damaged[0] from None

    def _volume(self, report: Report) -> Volume:
        stack, series = self.stack, self.series
        voxels = _voxels(stack, report)
        return Volume(
            voxels=voxels if stack.stored is None else stack.stored.resample(voxels, AIR.get(series.modality, 0)),
            affine_lps=stack.affine_lps,
            modality=series.modality,
            series_uid=_shared([one.series_uid for one in stack.slices]),
            study_uid=_shared([one.study_uid for one in stack.slices]),
            frame_of_reference_uid=_shared([one.frame_of_reference_uid for one in stack.slices]),
            instances=tuple(map(_instance_of, stack.slices)),
            warnings=(*slice_count_warnings(len(stack.slices)), *stack.warnings, *self.chosen, *_warnings_of(series)),
            stored=stack.stored,
            told=_told_of_values(stack.slices),
        )


def open_series(series: Series) -> DicomImage:
    """Sort and check ``series`` by its headers.

    Raises TooFewSlices, InconsistentGeometry, SeveralVolumes, CorruptFile, UnsupportedTransferSyntax.
    """
    # A localizer would be left out if it could be read.
    faults = [header.fault for header in series.headers if header.fault is not None and not header.localizer]
    if faults:
        raise faults[0].error("A file of the series")
    selected = select_volume(_without_copies(series.slices), series.modality, series.named)
    if not selected.slices:
        raise TooFewSlices("The series holds no slice.")
    stack = stack_slices(selected.slices)
    _check_rescaling(stack.slices)
    for one in stack.slices:
        check_storage(_storage_of(one))
    return DicomImage(series.modality, Extent(stack.volume_zyx, stack.affine_lps), series, stack, selected.warnings)


def open_spread(series: Series, whole: Series) -> DicomImage:
    """``whole``, which is ``series`` with what lies in folders beside its own; without that if it makes no one volume.

    What was found there is told either way. Raises as `open_series`.
    """
    if not whole.beside:
        return open_series(series)
    more = len(_without_copies(whole.slices)) - len(_without_copies(series.slices))
    if more == 0:
        return open_series(series)
    where = "a folder beside" if len(whole.beside) == 1 else f"{len(whole.beside)} folders beside"
    image = _open_together(series, whole)
    if image is not None:
        text = f"{more} images of this series lie in {where}, and were read with those of the given file's folder."
    else:
        image = open_series(series)
        text = f"{more} more images of this series lie in {where}. All together make no one volume: they were not read."
    return replace(image, chosen=(*image.chosen, ResultWarning(WarningCode.SERIES_ELSEWHERE, text)))


def _open_together(series: Series, whole: Series) -> DicomImage | None:
    """``whole``, if it makes a volume that holds more than ``series``."""
    try:
        image = open_series(whole)
    except VolumeError:
        return None
    return image if any(one.file.parent != series.folder.top for one in image.stack.slices) else None


def open_largest(found: Sequence[Series]) -> DicomImage:
    """Of ``found``, the most slices first, the series that makes the largest volume.

    Raises what `open_series` raises of the first where none makes one, or OutOfMemory where the first is too large.
    """
    if not found:
        raise NoImage("There is no other series.")
    largest: DicomImage | None = None
    refused: dict[int, OpenScansError] = {}
    for index, series in enumerate(found):
        if largest is not None and series.placed <= len(largest.stack.slices):
            break
        try:
            image = open_series(series)
            image.check_memory()
        except (OutOfMemory, VolumeError) as error:
            refused[index] = error
            continue
        if largest is None or len(image.stack.slices) > len(largest.stack.slices):
            largest = image
    if largest is None:
        raise refused[0]
    others = (series for index, series in enumerate(found) if index not in refused and series is not largest.series)
    passed_over = [_passed_over([*refused.values()])] if refused else []
    return replace(largest, chosen=(*largest.chosen, *passed_over), others=tuple(others))


def _passed_over(refused: Sequence[OpenScansError]) -> ResultWarning:
    count = len(refused)
    which = "A series with more slices" if count == 1 else f"{count} series with more slices, or as many,"
    text = f"{which} cannot be read and {'was' if count == 1 else 'were'} passed over: {refused[0].message}"
    return ResultWarning(WarningCode.SERIES_PASSED_OVER, text)


def _check_rescaling(slices: Sequence[Slice]) -> None:
    """Raises CorruptFile where some slices tell what their values mean and others do not: these would be off by 1024.

    Where no slice tells, or they tell that values are as they are stored, all are alike.
    """
    told = [not isinstance(one.rescale, Rescale) or one.rescale.told for one in slices]
    changed = any(one.rescale not in (Rescale(), Rescale(told=False)) for one in slices)
    if changed and not all(told):
        raise CorruptFile(
            f"{told.count(False)} of {len(slices)} slices do not tell how their values are rescaled, and others do.",
            hint="Copy or export the series again, with RescaleSlope and RescaleIntercept in every slice.",
        )


def _told_of_values(slices: Sequence[Slice]) -> Told:
    rescales = [one.rescale for one in slices]
    units = {rescale.unit for rescale in rescales}
    return Told(
        bits_stored=max(_storage_of(one).bits_stored for one in slices),
        rescaled=any(not isinstance(rescale, Rescale) or rescale.told for rescale in rescales),
        unit=units.pop() if len(units) == 1 else "",
    )


def _instance_of(one: Slice) -> Instance:
    frames = 1 if one.storage is None else one.storage.frames
    return Instance(one.sop_instance_uid, one.instance_number, one.file, one.frame, one.uid_location, frames)


def _shared(uids: Sequence[LocatedUid]) -> LocatedUid:
    """The first of ``uids`` where all are the same."""
    return uids[0] if len({one.uid for one in uids}) == 1 else NO_UID


def _most_bytes_kept(stack: Stack) -> int:
    """Of files that `_readings` keeps at one time, each from its first frame to its last.

    Raises InputNotFound where a file has gone meanwhile.
    """
    last = {one.file: index for index, one in enumerate(stack.slices)}
    sizes: dict[Path, int] = {}
    most_bytes = 0
    try:
        for index, one in enumerate(stack.slices):
            if one.file not in sizes:
                sizes[one.file] = one.file.stat().st_size
                most_bytes = max(most_bytes, sum(sizes.values()))
            if last[one.file] == index:
                del sizes[one.file]
    except OSError as error:
        raise InputNotFound("A file of the series has gone or cannot be read.") from error
    return most_bytes


def _without_copies(slices: Sequence[Slice]) -> list[Slice]:
    """``slices`` without second files of the same instance, as exports that were made twice hold them."""
    first: dict[object, Slice] = {}
    for one in slices:
        first.setdefault(_identity(one), one)
    return list(first.values())


def _identity(one: Slice) -> object:
    """What a copy shares; the place belongs to it because anonymisation may give all files the same UID."""
    if not one.sop_instance_uid:
        return one.file, one.frame
    place = None if one.place is None else tuple(one.place.position)
    return one.sop_instance_uid, one.frame, place, one.instance_number, one.telling, one.study_uid.uid


def _warnings_of(series: Series) -> Iterator[ResultWarning]:
    if series.damaged:
        yield ResultWarning(
            WarningCode.MISSING_SLICES, "A damaged DICOM file lies beside the series; it may be a slice of it."
        )
    if series.is_joined:
        yield ResultWarning(
            WarningCode.SERIES_UID_MISSING,
            "Each slice has a series UID of its own; those of one size, description and device were put together.",
        )
    if series.unread:
        yield ResultWarning(
            WarningCode.SLICES_LEFT_OUT, f"{series.unread} could not be read; slices of this series may be missing."
        )


def _voxels(stack: Stack, report: Report) -> Voxels:
    """Every slice decoded into one array (slice, row, column), in the image's frame.

    int16 where the values are whole and fit, else wider.
    """
    slices = stack.slices
    voxels = allocate(stack.image_zyx)
    report(0, len(slices))
    readings, done = _readings(slices), 0
    with ThreadPoolExecutor(thread_count()) as pool:
        while batch := list(islice(readings, SLICES_AT_ONCE)):
            planes = []
            for plane in pool.map(operator.call, batch):
                voxels = widen(voxels, plane)
                planes.append(plane)
                report(done + len(planes), len(slices))
            # The first write to each piece of memory costs as much as reading it did.
            list(pool.map(operator.setitem, repeat(voxels), range(done, done + len(planes)), planes))
            done += len(planes)
    return voxels


def _readings(slices: Sequence[Slice]) -> Iterator[Callable[[], Plane]]:
    """One piece of work for each slice; a file of many frames is opened once, and kept until the last of them.

    Frames of several files may lie between each other's.
    """
    frames_left = Counter(one.file for one in slices)
    kept: dict[Path, PixelFile] = {}
    for one in slices:
        if one.file not in kept and frames_left[one.file] > 1:
            kept[one.file] = _open(one)
        frames_left[one.file] -= 1
        yield partial(_plane, one, kept.get(one.file) if frames_left[one.file] else kept.pop(one.file, None))


def _open(one: Slice) -> PixelFile:
    return PixelFile(_storage_of(one))


def _storage_of(one: Slice) -> PixelStorage:
    if one.storage is None:
        raise CorruptFile("The DICOM header does not tell how the pixels are stored.")
    return one.storage


def _plane(one: Slice, opened: PixelFile | None) -> Plane:
    file = _open(one) if opened is None else opened
    return one.rescale.apply(file.frame(one.frame))
