"""Slices in any order become a stack along their normal, or a named error; numpy only, no pixels.

Positions decide, never file names, InstanceNumber or SliceThickness. A stack that is sheared or unevenly spaced tells
how it is resampled (`StoredSlices`). Sections and equations are those of DICOM PS3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openscans.errors import InconsistentGeometry, SeveralVolumes, TooFewSlices
from openscans.types import ResultWarning, Voxel, WarningCode
from openscans.volumes.headers import Place, Slice
from openscans.volumes.stored import StoredSlices
from openscans.volumes.volume import FEWEST_SLICES, Affine, Extent

SLICE_GAP_TOLERANCE = 0.01
"""Share of the median gap a gap may differ by; with the next figure it separates rounding from missing slices."""

POSITION_ROUNDING_MM = 0.02
"""Some scanners round positions to a hundredth of a millimetre, and a gap has two ends."""

WIDEST_GAP_MM = 10.0
"""What may be filled by interpolation. Even in a neck vertebrae follow each other every 15 mm, so none can vanish in
such a gap and the numbering holds; where more is missing it may not."""

FINEST_STEP_MM = 1.0
"""Unevenly spaced slices are resampled at their smallest gap, but no finer than this: the networks see 1.5 mm."""

NOWHERE = "The headers do not tell where the slices lie in the patient."

DIRECTION_TOLERANCE = 1e-3
"""Direction cosines are written with four to six digits."""

SPACING_TOLERANCE = 1e-3
"""Share of a pixel's size that rounding may change."""

TILT_TOLERANCE = 0.002
"""Sideways drift per millimetre of travel (0.1 degrees). Rounded positions stay below it; tilts begin at 0.5°."""

LARGEST_TILT_DEG = 45.0
"""Gantries tilt by up to 30°; what is sheared much further is no scan of a patient."""

LARGEST_SILENT_SHEAR_DEG = 1.0
"""Of the first two axes of an image with one matrix: moves nothing of a vertebra by more than a millimetre."""

LARGEST_OFFSET_VOXELS = 0.25
"""How far a slice may lie from its place in the volume; a centre is told to about a voxel, and this stays below."""


@dataclass(frozen=True)
class Stack:
    """Slices sorted along their normal, in the image's frame, and where the volume made of them lies.

    ``affine_lps`` is the volume's. ``stored`` is None where the slices are its planes, one for each z.
    """

    slices: tuple[Slice, ...]
    affine_lps: Affine
    stored: StoredSlices | None = None
    warnings: tuple[ResultWarning, ...] = ()

    @property
    def image_zyx(self) -> tuple[int, int, int]:
        """How many slices, rows and columns are stored."""
        return len(self.slices), self.slices[0].rows, self.slices[0].columns

    @property
    def volume_zyx(self) -> tuple[int, int, int]:
        """The shape of the volume that is made of them."""
        return self.image_zyx if self.stored is None else self.stored.volume_zyx


@dataclass(frozen=True)
class Upright:
    """A volume made of an image whose header has one matrix for all; ``stored`` is None where it is the image."""

    extent: Extent
    stored: StoredSlices | None = None
    warnings: tuple[ResultWarning, ...] = ()


def set_upright(image: Extent) -> Upright:
    """The volume made of an ``image`` in its own indices, whose axes need not be at right angles.

    Planes of constant z that are rectangles and follow each other aslant, as those of a tilted gantry, are set upright.
    Where the planes themselves are sheared, nothing is moved and a warning tells it. Raises InconsistentGeometry where
    axes are sheared beyond any gantry.
    """
    along_x, along_y, along_z = (image.affine_lps[:3, :3] / np.linalg.norm(image.affine_lps[:3, :3], axis=0)).T
    sheared_deg = math.degrees(math.asin(min(abs(float(along_x @ along_y)), 1.0)))
    if sheared_deg > LARGEST_SILENT_SHEAR_DEG:
        _check_tilt(sheared_deg)
        return Upright(image, warnings=(_shear_warning(sheared_deg),))
    normal = np.cross(along_x, along_y)
    normal /= np.linalg.norm(normal)
    # Indices may be left-handed: then the image's z runs against the normal.
    normal *= np.sign(normal @ along_z)
    tilt_deg = _tilt_deg(along_z / (along_z @ normal), normal)
    if tilt_deg == 0:
        return Upright(image)
    slices, rows, columns = image.shape_zyx
    step_lps_mm = image.affine_lps[:3, 2]
    positions_lps_mm = image.affine_lps[:3, 3] + np.outer(np.arange(slices), step_lps_mm)
    affine = image.affine_lps.copy()
    affine[:3, 2] = normal * (step_lps_mm @ normal)
    stored, affine = _resampling(Voxel(columns, rows, slices), positions_lps_mm, affine, slices)
    return Upright(Extent(stored.volume_zyx, affine), stored, (_tilt_warning(tilt_deg),))


def heights_mm(slices: Sequence[Slice], *, along: Slice) -> NDArray[np.float64]:
    """How high each of ``slices``, of which all have a place, lies along the normal of ``along``.

    Raises InconsistentGeometry where that has no direction that an image can have.
    """
    if along.place is None:
        raise InconsistentGeometry(NOWHERE)
    normal = normal_lps(along.place)
    return np.array([float(one.place.position @ normal) for one in slices if one.place is not None])


def find_holes(heights_mm: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Between which heights slices are missing, as far as gaps that are wider than most tell."""
    ascending = np.sort(heights_mm)
    # Of phases at the same places one is enough.
    ascending = ascending[np.diff(ascending, prepend=-np.inf) > POSITION_ROUNDING_MM]
    gaps = np.diff(ascending)
    if not len(gaps):
        return []
    wide = np.flatnonzero(gaps > 1.5 * np.median(gaps))
    return [(float(ascending[index]), float(ascending[index + 1])) for index in wide]


def stack_slices(slices: Sequence[Slice]) -> Stack:
    """Sort ``slices`` and check that they make one volume, if need be resampled.

    Raises TooFewSlices, InconsistentGeometry, SeveralVolumes.
    """
    if len(slices) < FEWEST_SLICES:
        raise TooFewSlices(
            f"Found {len(slices)} slice{'s' * (len(slices) != 1)}; a volume needs at least {FEWEST_SLICES}."
        )
    placed = [(one, one.place) for one in slices if one.place is not None]
    if len(placed) < len(slices):
        raise InconsistentGeometry(NOWHERE)
    first = placed[0][1]
    _check_alike(placed)
    normal = normal_lps(first)
    distances_mm = np.array([float(place.position @ normal) for _, place in placed])
    order = np.argsort(distances_mm, kind="stable")
    ordered = tuple(placed[index][0] for index in order)
    positions_lps_mm = np.array([placed[index][1].position for index in order])
    _check_places(distances_mm[order])
    return _placed_stack(ordered, positions_lps_mm, distances_mm[order] - distances_mm[order[0]], first)


def _placed_stack(
    ordered: tuple[Slice, ...], positions_lps_mm: NDArray[np.float64], heights_mm: NDArray[np.float64], place: Place
) -> Stack:
    """The stack of sorted slices.

    ``positions_lps_mm``: (slices, 3), each one's first pixel. ``heights_mm``: (slices,), along the normal from the
    first slice.

    The matrix is that of equation C.7.6.2.1-1, which maps a column and a row of one slice to LPS mm: directions of
    ImageOrientationPatient by PixelSpacing, from ImagePositionPatient. Its third column, which is zero there, is the
    way from one plane to the next.
    """
    normal = normal_lps(place)
    travel = (positions_lps_mm[-1] - positions_lps_mm[0]) / heights_mm[-1]
    _check_line(positions_lps_mm, heights_mm, travel, place)
    tilt_deg = _tilt_deg(travel, normal)
    warnings = [] if tilt_deg == 0 else [_tilt_warning(tilt_deg)]
    planes = len(ordered)
    if not is_even(heights_mm):
        warnings.append(_gap_warning(heights_mm))
        planes = _planes_over(heights_mm)
    step_mm = heights_mm[-1] / (planes - 1)
    affine = np.eye(4)
    affine[:3, 0] = place.along_row * place.column_mm
    affine[:3, 1] = place.along_column * place.row_mm
    affine[:3, 2] = (travel if tilt_deg == 0 else normal) * step_mm
    affine[:3, 3] = positions_lps_mm[0]
    if not warnings:
        return Stack(ordered, affine)
    size = Voxel(ordered[0].columns, ordered[0].rows, len(ordered))
    stored, affine = _resampling(size, positions_lps_mm, affine, planes)
    return Stack(ordered, affine, stored, tuple(warnings))


def _resampling(
    image_size: Voxel, positions_lps_mm: NDArray[np.float64], affine_lps: Affine, planes: int
) -> tuple[StoredSlices, Affine]:
    """How an image's slices become ``planes`` planes of a volume: at ``affine_lps``, moved so that all have room.

    The slices' origins in the volume's frame are the inverse of equation C.7.6.2.1-1 of their positions.
    """
    origins = np.linalg.solve(affine_lps[:3, :3], (positions_lps_mm - affine_lps[:3, 3]).T).T
    # What positions are rounded to is no tilt, and where slices are even a plane is a slice and no mixture of two.
    origins[:, :2][:, np.ptp(origins[:, :2], axis=0) <= LARGEST_OFFSET_VOXELS] = 0
    if is_even(origins[:, 2] * float(np.linalg.norm(affine_lps[:3, 2]))):
        origins[:, 2] = np.rint(origins[:, 2])
    low = np.array([*np.floor(origins[:, :2].min(axis=0)), 0])
    origins -= low
    moved = affine_lps.copy()
    moved[:3, 3] += affine_lps[:3, :3] @ low
    wider = [math.ceil(most - 1e-6) for most in origins[:, :2].max(axis=0)]
    volume_zyx = (planes, image_size.y + wider[1], image_size.x + wider[0])
    return StoredSlices(origins, image_size, volume_zyx), moved


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
        if not np.allclose(
            (its.column_mm, its.row_mm), (place.column_mm, place.row_mm), rtol=SPACING_TOLERANCE, atol=0
        ):
            raise InconsistentGeometry("The slices have different pixel spacings, so they make no single volume.")


def normal_lps(place: Place) -> NDArray[np.float64]:
    """The direction (LPS) that slices follow: that of growing columns × that of growing rows.

    C.7.6.2.1.1 demands that both have the length 1 and are square to each other. Raises InconsistentGeometry.
    """
    lengths = np.linalg.norm(place.along_row), np.linalg.norm(place.along_column)
    square = abs(float(place.along_row @ place.along_column)) <= DIRECTION_TOLERANCE
    if not (np.allclose(lengths, 1, atol=0.01) and square and place.column_mm > 0 and place.row_mm > 0):
        raise InconsistentGeometry("The headers give directions or pixel spacings that no image can have.")
    return np.cross(place.along_row, place.along_column)


def _check_places(distances_mm: NDArray[np.float64]) -> None:
    """``distances_mm`` along the normal, ascending, must be numbers, and each slice's must be its own."""
    if not np.isfinite(distances_mm).all():
        raise InconsistentGeometry("The headers give positions that are not numbers.")
    gaps = np.diff(distances_mm)
    places = int((gaps > POSITION_ROUNDING_MM).sum()) + 1
    if places < FEWEST_SLICES:
        raise TooFewSlices(
            f"The {len(distances_mm)} slices lie at only {places} place{'s' * (places != 1)}; they make no volume."
        )
    if places < len(distances_mm):
        raise SeveralVolumes(
            f"The series has {len(distances_mm)} slices at {places} places: several volumes, or slices twice."
        )


def _check_line(
    positions_lps_mm: NDArray[np.float64], heights_mm: NDArray[np.float64], travel: NDArray[np.float64], place: Place
) -> None:
    """Slices must follow each other on one line, along the normal or not.

    ``travel``: the way in LPS mm for each mm of height.
    """
    beside_mm = positions_lps_mm - positions_lps_mm[0] - np.outer(heights_mm, travel)
    off_voxels = beside_mm @ np.transpose([place.along_row / place.column_mm, place.along_column / place.row_mm])
    if np.abs(off_voxels).max() > LARGEST_OFFSET_VOXELS:
        off_mm = float(np.linalg.norm(beside_mm, axis=1).max())
        raise InconsistentGeometry(f"The slices do not lie on one line: one is {off_mm:.1f} mm beside its place.")


def _tilt_deg(travel: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """The angle between the slices' normal and the line they follow; 0 where it is rounding only."""
    sideways = float(np.linalg.norm(travel - normal))
    if sideways <= TILT_TOLERANCE:
        return 0.0
    angle_deg = math.degrees(math.atan(sideways))
    _check_tilt(angle_deg)
    return angle_deg


def _check_tilt(angle_deg: float) -> None:
    if angle_deg > LARGEST_TILT_DEG:
        raise InconsistentGeometry(f"The slices are sheared by {angle_deg:.1f}°, more than any gantry tilts.")


def _shear_warning(angle_deg: float) -> ResultWarning:
    text = (
        f"The image's first two axes are {90 - angle_deg:.1f}° apart, and no right angle; it was read as if they were"
    )
    return ResultWarning(WarningCode.SHEARED_AXES, f"{text} at one, so vertebrae may be missed. Positions are right.")


def _tilt_warning(angle_deg: float) -> ResultWarning:
    text = f"The slices are sheared by {angle_deg:.1f}°, as a tilted gantry shears them; they were set upright."
    return ResultWarning(WarningCode.GANTRY_TILT_CORRECTED, f"{text} Positions are given on the slices as stored.")


def is_even(heights_mm: NDArray[np.float64]) -> bool:
    """Whether every gap is like the others and every slice near its place in an evenly spaced volume.

    ``heights_mm``: two or more, ascending.
    """
    gaps = np.diff(heights_mm)
    typical = float(np.median(gaps))
    alike = np.abs(gaps - typical) <= SLICE_GAP_TOLERANCE * typical + POSITION_ROUNDING_MM
    from_first_mm = heights_mm - heights_mm[0]
    off_voxels = np.abs(from_first_mm * (len(gaps) / from_first_mm[-1]) - np.arange(len(heights_mm)))
    return bool(alike.all() and off_voxels.max() <= LARGEST_OFFSET_VOXELS)


def _gap_warning(heights_mm: NDArray[np.float64]) -> ResultWarning:
    """What is odd about the gaps. Raises InconsistentGeometry where one is too wide to be filled."""
    gaps = np.diff(heights_mm)
    typical, narrowest, widest = float(np.median(gaps)), float(gaps.min()), float(gaps.max())
    if widest > WIDEST_GAP_MM:
        raise InconsistentGeometry(
            f"Found a gap of {widest:.1f} mm where slices are {typical:.1f} mm apart elsewhere: slices are missing."
        )
    steps = np.rint(gaps / typical)
    whole = np.abs(gaps - steps * typical) <= steps * (SLICE_GAP_TOLERANCE * typical + POSITION_ROUNDING_MM)
    if whole.all() and widest > 1.5 * typical:
        lost = int((steps - 1).sum())
        text = f"{lost} slice{'s' * (lost != 1)} missing, the widest gap is {widest:.1f} mm; filled by interpolation."
        return ResultWarning(WarningCode.MISSING_SLICES, text)
    text = f"The slices are unevenly spaced, {narrowest:.2f} to {widest:.2f} mm apart; they were resampled evenly."
    return ResultWarning(WarningCode.UNEVEN_SPACING, text)


def _planes_over(heights_mm: NDArray[np.float64]) -> int:
    """How many evenly spaced planes of a volume show as much as the slices of the image do."""
    gaps = np.diff(heights_mm)
    step_mm = max(float(gaps.min()), min(FINEST_STEP_MM, float(np.median(gaps))))
    return max(round(float(heights_mm[-1]) / step_mm) + 1, FEWEST_SLICES)
