"""Of the slices under one series UID those that make the volume: of one grid, then of one scan; headers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openscans.errors import SeveralVolumes
from openscans.types import ResultWarning, WarningCode
from openscans.volumes.geometry import DIRECTION_TOLERANCE, SPACING_TOLERANCE, find_holes, heights_mm, normal_lps
from openscans.volumes.headers import Slice
from openscans.volumes.scans import Scans, split_scans
from openscans.volumes.volume import FEWEST_SLICES

MOST_GRIDS = 64
"""What lies on one more grid is counted with the rest. A series of discs has six directions, a heart's a dozen."""

PARALLEL = 0.9
"""Cosine of 25°, beyond which a slice was meant to show something else."""

ON_ANOTHER_GRID = "on another grid than the volume, as reference images and screens do"

AT_ANOTHER_S_PLACE = "where another scan of the series has one, too"

ONE_OF_SEVERAL = ResultWarning(
    WarningCode.ONE_OF_SEVERAL_VOLUMES, "The series holds several volumes; the given file's own was read."
)


@dataclass(frozen=True)
class Selection:
    """The slices that are read as one volume, and what is to be said of those that are not."""

    slices: tuple[Slice, ...]
    warnings: tuple[ResultWarning, ...] = ()


def select_volume(slices: Sequence[Slice], modality: str, named: Path | None) -> Selection:
    """The volume among ``slices`` that the file ``named`` belongs to; without one, the largest.

    What cannot be told apart is returned as it is, and `geometry.stack_slices` says why it makes no volume. Raises
    SeveralVolumes, and InconsistentGeometry for directions that no image can have.
    """
    on_grid = _select_grid(slices, named)
    if on_grid is None:
        return Selection(tuple(slices))
    scans = split_scans(on_grid.slices, modality)
    own = _scan_of(named, scans)
    if own is None:
        raise SeveralVolumes(
            f"The series holds {len(scans.whole)} volumes that lie at the same places or between each other's.",
            hint="Name one file of the volume that is meant.",
        )
    warnings = [*on_grid.warnings]
    others = [one for part in scans.parts for one in part]
    if len(scans.whole) > 1 or own is not scans.whole[0]:
        warnings = [*(one for one in warnings if one is not ONE_OF_SEVERAL), ONE_OF_SEVERAL]
    elif others:
        warnings.append(_left_out(others, AT_ANOTHER_S_PLACE, named))
    return Selection(tuple(own), tuple(warnings))


def _scan_of(named: Path | None, scans: Scans) -> list[Slice] | None:
    """The scan that the file ``named`` belongs to, or a part of one if it makes a volume; else the only one."""
    volumes = [*scans.whole, *(part for part in scans.parts if len(part) >= FEWEST_SLICES)]
    own = [scan for scan in volumes if any(one.file == named for one in scan)]
    if len(own) == 1:
        return own[0]
    return scans.whole[0] if len(scans.whole) == 1 else None


def _select_grid(slices: Sequence[Slice], named: Path | None) -> Selection | None:
    """Slices of one direction, size and pixel spacing: those of ``named``, else the most.

    A reference image or a screen under the series' UID is none of them. None, where as many lie on another grid, or
    where one of the others belongs into a hole of the largest: then its header is wrong, and it is no extra.
    """
    grids = _split_grids(slices)
    if len(grids) < 2:
        return Selection(tuple(slices))
    own = [grid for grid in grids if len(grid) >= FEWEST_SLICES and any(one.file == named for one in grid)]
    chosen = own[0] if len(own) == 1 else grids[0]
    others = [one for grid in grids if grid is not chosen for one in grid]
    no_one = not own and len(grids[1]) == len(chosen)
    if no_one or any(one.place is None for one in chosen) or _fills_a_hole(others, chosen):
        return None
    warnings = [_left_out(others, ON_ANOTHER_GRID, named)]
    if own and any(len(grid) >= FEWEST_SLICES for grid in grids if grid is not chosen):
        warnings = [ONE_OF_SEVERAL]
    return Selection(tuple(chosen), tuple(warnings))


def _split_grids(slices: Sequence[Slice]) -> list[list[Slice]]:
    """``slices`` by the grid that they lie on, the most first; each in the order in which they came."""
    facts = np.array([_grid_facts(one) for one in slices])
    tolerances = np.array([*[DIRECTION_TOLERANCE] * 6, 0, 0, 0, 0, 0])
    left = np.arange(len(slices))
    grids: list[list[Slice]] = []
    while len(left) and len(grids) < MOST_GRIDS:
        first = facts[left[0]]
        most_off = tolerances + SPACING_TOLERANCE * np.array([*[0] * 6, *np.abs(first[6:8]), 0, 0, 0])
        same = (np.abs(facts[left] - first) <= most_off).all(axis=1)
        same[0] = True
        grids.append([slices[int(index)] for index in left[same]])
        left = left[~same]
    if len(left):
        grids.append([slices[int(index)] for index in left])
    return sorted(grids, key=len, reverse=True)


def _grid_facts(one: Slice) -> NDArray[np.float64]:
    """Directions (6), pixel spacings (2), rows, columns, and whether it is a screen or has no place."""
    place = one.place
    if place is None:
        return np.array([*[0.0] * 8, one.rows, one.columns, 1 + one.is_capture])
    spacings_mm = (place.column_mm, place.row_mm)
    return np.array([*place.along_row, *place.along_column, *spacings_mm, one.rows, one.columns, 3 + one.is_capture])


def _fills_a_hole(others: Sequence[Slice], stack: Sequence[Slice]) -> bool:
    """Whether one of ``others`` lies, or may lie, where ``stack`` lacks a slice."""
    holes = find_holes(heights_mm(stack, along=stack[0]))
    return bool(holes) and any(_may_lie_in(holes, one, stack[0]) for one in others)


def _may_lie_in(holes: Sequence[tuple[float, float]], one: Slice, member: Slice) -> bool:
    """Whether ``one`` is about parallel to ``member`` of a stack, in one of its ``holes``; or where nobody knows."""
    if one.place is None or member.place is None or not np.isfinite(one.place.position).all():
        return (one.rows, one.columns, one.is_capture) == (member.rows, member.columns, member.is_capture)
    cosine = float(np.cross(one.place.along_row, one.place.along_column) @ normal_lps(member.place))
    [height_mm] = heights_mm([one], along=member)
    return abs(cosine) >= PARALLEL and any(low_mm < height_mm < high_mm for low_mm, high_mm in holes)


def _left_out(others: Sequence[Slice], where: str, named: Path | None) -> ResultWarning:
    count = len(others)
    which, was = ("1 image of the series lies", "was") if count == 1 else (f"{count} images of the series lie", "were")
    given = " The given file is among them." if any(one.file == named for one in others) else ""
    return ResultWarning(WarningCode.SLICES_LEFT_OUT, f"{which} {where}, and {was} passed over.{given}")
