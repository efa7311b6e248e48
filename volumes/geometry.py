"""Slices in any order become a stack along their normal, or a named error; numpy only, no pixels.

Positions decide, never file names, InstanceNumber or SliceThickness.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from errors import InconsistentGeometry, SeveralVolumes, TooFewSlices
from volumes.headers import Place, Slice
from volumes.volume import FEWEST_SLICES, Affine

SLICE_GAP_TOLERANCE = 0.01
"""Share of the median gap a gap may differ by; with the next figure it separates rounding from missing slices."""

POSITION_ROUNDING_MM = 0.02
"""Some scanners round positions to a hundredth of a millimetre, and a gap has two ends."""

DIRECTION_TOLERANCE = 1e-3
"""Direction cosines are written with four to six digits."""

TILT_TOLERANCE = 0.002
"""Sideways drift per millimetre of travel (0.1 degrees). Rounded positions stay below it; tilts begin at 0.5°."""


LARGEST_OFFSET_VOXELS = 0.25
"""How far a slice may lie from its place in the volume; a centre is told to about a voxel, and this stays below."""


@dataclass(frozen=True)
class Stack:
    """Slices sorted along their normal, and where they lie (`Volume.affine_lps`)."""

    slices: tuple[Slice, ...]
    affine_lps: Affine


def stacked(slices: Sequence[Slice]) -> Stack:
    """Sort ``slices`` and check that they make one regular volume.

    Raises TooFewSlices, InconsistentGeometry, SeveralVolumes.
    """
    if len(slices) < FEWEST_SLICES:
        raise TooFewSlices(
            f"Found {len(slices)} slice{'s' * (len(slices) != 1)}; a volume needs at least {FEWEST_SLICES}."
        )
    placed = [(one, one.place) for one in slices if one.place is not None]
    if len(placed) < len(slices):
        raise InconsistentGeometry("The headers do not tell where the slices lie in the patient.")
    first = placed[0][1]
    _check_alike(placed)
    normal = _normal(first)
    distances = np.array([float(place.position @ normal) for _, place in placed])
    order = np.argsort(distances, kind="stable")
    _check_gaps(distances[order])
    ordered = [placed[index] for index in order]
    step = (ordered[-1][1].position - ordered[0][1].position) / (len(ordered) - 1)
    _check_tilt(step, normal)
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.column_mm
    affine[:3, 1] = first.along_column * first.row_mm
    affine[:3, 2] = step
    affine[:3, 3] = ordered[0][1].position
    _check_positions(np.array([place.position for _, place in ordered]), affine)
    return Stack(tuple(one for one, _ in ordered), affine)


def _check_alike(placed: Sequence[tuple[Slice, Place]]) -> None:
    one, place = placed[0]
    for other, its in placed[1:]:
        if (other.rows, other.columns) != (one.rows, one.columns):
            raise InconsistentGeometry(
                f"The slices have different sizes: {one.columns} × {one.rows} and {other.columns} × {other.rows}."
            )
        turned = max(np.abs(its.along_row - place.along_row).max(), np.abs(its.along_column - place.along_column).max())
        if not turned <= DIRECTION_TOLERANCE:
            raise InconsistentGeometry("The slices lie in different directions, so they make no single volume.")
        if not np.allclose((its.column_mm, its.row_mm), (place.column_mm, place.row_mm), rtol=1e-3, atol=0):
            raise InconsistentGeometry("The slices have different pixel spacings, so they make no single volume.")


def _normal(place: Place) -> NDArray[np.float64]:
    lengths = np.linalg.norm(place.along_row), np.linalg.norm(place.along_column)
    square = abs(float(place.along_row @ place.along_column)) <= DIRECTION_TOLERANCE
    if not (np.allclose(lengths, 1, atol=0.01) and square and place.column_mm > 0 and place.row_mm > 0):
        raise InconsistentGeometry("The headers give directions or pixel spacings that no image can have.")
    return np.cross(place.along_row, place.along_column)


def _check_gaps(distances: NDArray[np.float64]) -> None:
    """``distances`` (mm, ascending) must be evenly spaced."""
    gaps = np.diff(distances)
    if not np.isfinite(distances).all():
        raise InconsistentGeometry("The headers give positions that are not numbers.")
    apart = gaps > POSITION_ROUNDING_MM
    places = int(apart.sum()) + 1
    if places < FEWEST_SLICES:
        raise TooFewSlices(
            f"The {len(distances)} slices lie at only {places} place{'s' * (places != 1)}; they make no volume."
        )
    if places < len(distances):
        raise SeveralVolumes(
            f"The series has {len(distances)} slices at {places} places: several volumes, or slices twice."
        )
    typical = float(np.median(gaps))
    off = np.abs(gaps - typical) > SLICE_GAP_TOLERANCE * typical + POSITION_ROUNDING_MM
    if off.any():
        widest = float(gaps.max())
        raise InconsistentGeometry(
            f"Found a gap of {widest:.1f} mm where slices are {typical:.1f} mm apart elsewhere: slices are missing."
            if widest > 1.5 * typical
            else f"The slices are not evenly spaced: from {gaps.min():.2f} to {widest:.2f} mm apart."
        )


def _check_tilt(step: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """Slices must follow each other along their normal, not sideways."""
    sideways = step - normal * (step @ normal)
    if np.linalg.norm(sideways) > TILT_TOLERANCE * np.linalg.norm(step):
        angle_deg = float(np.degrees(np.arctan2(np.linalg.norm(sideways), abs(step @ normal))))
        raise InconsistentGeometry(
            f"The slices are sheared by {angle_deg:.1f}°, as a tilted gantry shears them; this is not read yet.",
            hint="Choose a reconstruction without gantry tilt.",
        )


def _check_positions(positions_mm: NDArray[np.float64], affine_lps: Affine) -> None:
    """Every slice must lie where the affine puts it, although only the first and the last made it."""
    expected_mm = affine_lps[:3, 3] + np.outer(np.arange(len(positions_mm)), affine_lps[:3, 2])
    off_voxels = np.linalg.solve(affine_lps[:3, :3], (positions_mm - expected_mm).T)
    if np.abs(off_voxels).max() > LARGEST_OFFSET_VOXELS:
        off_mm = float(np.linalg.norm(positions_mm - expected_mm, axis=1).max())
        raise InconsistentGeometry(f"The slices do not lie on one line: one is {off_mm:.1f} mm beside its place.")
