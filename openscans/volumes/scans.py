"""Slices of one grid become scans: volumes that lie at the same places or between each other's; headers only.

What tells scans apart is an attribute that DICOM has for it, or several together. An attribute counts only where each
of its values covers what all cover: one that changes along the table, slice by slice or block by block, tells nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from openscans.volumes.geometry import POSITION_ROUNDING_MM, heights_mm, is_even
from openscans.volumes.headers import TELLING, Slice
from openscans.volumes.volume import FEWEST_SLICES

Heights: TypeAlias = NDArray[np.float64]
"""(slices,) along their common normal, mm, in the order of the slices."""

Indices: TypeAlias = NDArray[np.int64]
"""Into the slices."""

Teller: TypeAlias = Callable[[Slice], object]
"""What an attribute says of a slice."""

MOST_TOGETHER = 3
"""Attributes that are needed together: echo, part of the complex number, and point in time."""

MOST_TELLERS = 6
"""Attributes that are tried: with three together 41 ways, each of which looks at every slice."""

MOST_INTERLEAVED = 8
"""Scans between each other's slices that positions alone tell."""

LEAST_DIFFERENCE = 0.1
"""Share of the mean gap by which gaps in turn must differ where positions alone tell scans; less is creeping."""

SHARE_COVERED = 0.75
"""Of the slices and of the length that one of several scans must have; one that was broken off early has less."""

MOST_SHARED = 0.25
"""Of a block's slices that the next one may repeat where the table was moved between them."""

NEVER_TO_AND_FRO = {
    "CT": ("AcquisitionNumber", "TemporalPositionIdentifier", "ImageType", "KVP", "ConvolutionKernel"),
    "MR": ("TemporalPositionIdentifier", "EchoNumbers", "ImageType", "EchoTime", "InversionTime", "DiffusionBValue"),
}
"""What no scanner changes to and fro within one volume. MR may acquire every other slice first, and number that."""

ROUNDED_MM = 0.1
"""Some write positions no finer."""


@dataclass(frozen=True)
class Scans:
    """Slices of one grid, by the scan that they belong to.

    ``whole``: the scans; one where slices lie apart as those of one volume do, or where nothing tells them apart.
    ``parts``: what only repeats some of their places, such as a phase that was broken off.
    """

    whole: list[list[Slice]]
    parts: list[list[Slice]] = field(default_factory=list)


def split_scans(slices: Sequence[Slice], modality: str) -> Scans:
    """The scans that ``slices``, all of one grid, are."""
    found = _scans(slices, modality)
    [first, *others] = found.whole
    studies = [] if others else _studies(first)
    return Scans(studies, found.parts) if len(studies) > 1 else found


def _studies(slices: Sequence[Slice]) -> list[list[Slice]]:
    """``slices``, which one volume would be made of, by their studies, unless each has one of its own.

    Software that anonymises may write one series UID everywhere, and then nothing else tells two patients apart.
    """
    if any(one.place is None for one in slices) or len(slices) <= FEWEST_SLICES:
        return []
    heights = heights_mm(slices, along=slices[0])
    studies = _split(slices, lambda one: one.study_uid.uid)
    if not np.isfinite(heights).all() or not _lie_apart(heights):
        return []
    return [[slices[index] for index in study] for study in studies if len(study) >= FEWEST_SLICES]


def _scans(slices: Sequence[Slice], modality: str) -> Scans:
    whole = Scans([list(slices)])
    if len(slices) <= FEWEST_SLICES or any(one.place is None for one in slices):
        return whole
    heights = heights_mm(slices, along=slices[0])
    if not np.isfinite(heights).all():
        return whole
    if not _lie_apart(heights):
        found = _joined(slices, heights) or _at_the_same_places(slices, heights)
    elif is_even(np.sort(heights)):
        found = _half_a_step_apart(slices, heights, modality)
    else:
        found = _interleaved(slices, heights)
    if not found:
        return whole
    kept = {int(index) for scan in found for index in scan}
    rest = [index for index in range(len(slices)) if index not in kept]
    parts = _split([slices[index] for index in rest], lambda one: one.telling)
    return Scans(
        [[slices[index] for index in scan] for scan in found],
        [[slices[rest[index]] for index in part] for part in parts],
    )


def _half_a_step_apart(slices: Sequence[Slice], heights: Heights, modality: str) -> list[Indices]:
    """Scans that lie half a step between each other's, so that together they look like one."""
    for name in NEVER_TO_AND_FRO.get(modality, ()):
        scans = _split(slices, _teller(name))
        if len(scans) > 1 and all(_lies_between(scan, heights, len(scans)) for scan in scans):
            return scans
    return []


def _interleaved(slices: Sequence[Slice], heights: Heights) -> list[Indices]:
    """Scans whose slices lie between each other's, if only for a part: each is even, and all together are not."""
    for scans in _partitions(slices):
        if all(_is_even_volume(heights[scan]) for scan in scans) and _overlap([heights[scan] for scan in scans]):
            return scans
    order = np.argsort(heights, kind="stable")
    for count in range(2, min(MOST_INTERLEAVED, len(slices) // FEWEST_SLICES) + 1):
        scans = [order[first::count] for first in range(count)]
        if _is_periodic(np.diff(heights[order]), count) and all(_lies_between(scan, heights, count) for scan in scans):
            return scans
    return []


def _is_periodic(gaps: Heights, count: int) -> bool:
    """Whether ``gaps`` repeat every ``count``, and are not merely about alike."""
    in_turn = [float(gaps[first::count].mean()) for first in range(count)]
    rounded_mm = ROUNDED_MM + POSITION_ROUNDING_MM
    return float(np.ptp(in_turn)) > max(LEAST_DIFFERENCE * float(gaps.mean()), rounded_mm)


def _is_even_volume(own: Heights) -> bool:
    return len(own) >= FEWEST_SLICES and _lie_apart(own) and is_even(np.sort(own))


def _overlap(scans: Sequence[Heights]) -> bool:
    """Whether one of ``scans`` begins before the one below it has ended."""
    ends = sorted((float(scan.min()), float(scan.max())) for scan in scans)
    return any(above[0] < below[1] for below, above in pairwise(ends))


def _lies_between(scan: Indices, heights: Heights, scans: int) -> bool:
    """Whether ``scan`` is an even volume, one of so many ``scans`` over the same length."""
    own = np.sort(heights[scan])
    return _covers(own, heights, len(heights) / scans) and is_even(own)


def _at_the_same_places(slices: Sequence[Slice], heights: Heights) -> list[Indices]:
    """Scans that cover the same places, as phases, echoes or contrasts do, or that lie beside each other.

    What only repeats some of their places, such as a phase that was broken off, is none of them.
    """
    places = 1 + int(np.count_nonzero(np.diff(np.sort(heights)) > POSITION_ROUNDING_MM))
    for parts in _partitions(slices):
        if not all(_lie_apart(heights[part]) for part in parts):
            continue
        scans = [part for part in parts if _covers(np.sort(heights[part]), heights, places)]
        rest = [part for part in parts if not any(part is scan for scan in scans)]
        if scans and all(_repeats(heights[part], heights[scans[0]]) for part in rest):
            return scans
    return _side_by_side(slices, heights)


def _covers(own: Heights, heights: Heights, count: float) -> bool:
    """Whether the sorted heights ``own`` lie apart, are about ``count``, and go from end to end of all ``heights``."""
    enough = len(own) >= max(FEWEST_SLICES, SHARE_COVERED * count)
    return enough and float(np.ptp(own)) >= SHARE_COVERED * float(np.ptp(heights)) and _lie_apart(own)


def _repeats(some: Heights, scan: Heights) -> bool:
    """Whether each of ``some`` is one of ``scan``'s."""
    padded = np.concatenate([[-np.inf], np.sort(scan), [np.inf]])
    above = np.searchsorted(padded, some)
    return bool((np.minimum(padded[above] - some, some - padded[above - 1]) <= POSITION_ROUNDING_MM).all())


def _side_by_side(slices: Sequence[Slice], heights: Heights) -> list[Indices]:
    """Stations that share their planes: the same heights, and in each plane the next station beside the one before."""
    order = np.argsort(heights, kind="stable")
    starts = np.flatnonzero(np.diff(heights[order], prepend=-np.inf) > POSITION_ROUNDING_MM)
    counts = np.diff([*starts, len(order)])
    if counts.min() != counts.max():
        return []
    positions = np.array([one.place.position for one in slices if one.place is not None])
    planes = order.reshape(-1, counts[0])
    beside = positions[planes] - positions[planes[:, :1]]
    way = beside.reshape(-1, 3)[np.argmax(np.linalg.norm(beside, axis=-1))]
    ranks = np.argsort(beside @ way, axis=1, kind="stable")
    offsets = np.sort(beside @ way, axis=1)
    if not (np.diff(offsets, axis=1) > POSITION_ROUNDING_MM * np.linalg.norm(way)).all():
        return []
    return [np.take_along_axis(planes, ranks[:, [station]], axis=1)[:, 0] for station in range(counts[0])]


def _joined(slices: Sequence[Slice], heights: Heights) -> list[Indices]:
    """One scan of blocks that follow each other and repeat a few places where they meet: a slice for each place.

    None where it would not be even.
    """
    # Blocks of another echo or kernel are no part of the same volume.
    for tell in (_of_whole_files(slices), _teller("AcquisitionNumber")):
        blocks = sorted(_split(slices, tell), key=lambda block: float(heights[block].min()))
        apart = len(blocks) > 1 and all(_lie_apart(heights[block]) for block in blocks)
        kept = _join(blocks, heights) if apart else None
        if kept is not None and is_even(np.sort(heights[kept])):
            return [kept]
    return []


def _join(blocks: Sequence[Indices], heights: Heights) -> Indices | None:
    """``blocks``, lowest first, without what lies below the end of the one before; None where that is much of one."""
    kept = blocks[0]
    for block in blocks[1:]:
        new = heights[block] > heights[kept].max() + POSITION_ROUNDING_MM
        if np.count_nonzero(~new) > max(1, MOST_SHARED * len(block)) or not new.any():
            return None
        kept = np.concatenate([kept, block[new]])
    return kept


def _partitions(slices: Sequence[Slice]) -> Iterator[list[Indices]]:
    """Ways to tell ``slices`` apart, by as few attributes as do it, the likeliest first."""
    tellers = _tellers(slices)
    for together in range(1, MOST_TOGETHER + 1):
        for chosen in combinations(tellers, together):
            yield _split(slices, partial(_tell_all, chosen))


def _tellers(slices: Sequence[Slice]) -> list[Teller]:
    """What differs among ``slices``; what is another in every slice tells no scans apart."""
    tellers = [_of_whole_files(slices), *map(_teller, TELLING)]
    differ = [tell for tell in tellers if 1 < len({tell(one) for one in slices}) <= len(slices) // FEWEST_SLICES]
    return differ[:MOST_TELLERS]


def _tell_all(tellers: Sequence[Teller], one: Slice) -> tuple[object, ...]:
    return tuple(tell(one) for tell in tellers)


def _teller(name: str) -> Teller:
    index = TELLING.index(name)
    return lambda one: one.telling[index]


def _of_whole_files(slices: Sequence[Slice]) -> Teller:
    """A file of many frames may be a whole volume by itself."""
    framed = {one.file for one in slices if one.frame > 0}
    return lambda one: one.file if one.file in framed else None


def _split(slices: Sequence[Slice], tell: Teller) -> list[Indices]:
    found: dict[object, list[int]] = defaultdict(list)
    for index, one in enumerate(slices):
        found[tell(one)].append(index)
    return [np.array(indices) for indices in found.values()]


def _lie_apart(heights: Heights) -> bool:
    return bool((np.diff(np.sort(heights)) > POSITION_ROUNDING_MM).all())
