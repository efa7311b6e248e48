"""Where voxels lie: the volume's grid, the grid a network sees, and patient millimetres; one conversion a pair.

Knows numpy and nothing of files or networks. An index is always given as (x, y, z), an array as (z, y, x). Model grid →
volume: `volume_point`, `volume_centroid`, `volume_bounds`; volume → LPS: `lps_mm`; volume → image: `Volume.image_point`
and `image_bounds`. Arrays go from grid to grid in `resampling`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openscans.types import Bounds, Point, Voxel
from openscans.volumes import Affine

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Axis:
    """One axis of a model grid: ``count`` samples from index ``first`` to ``last`` of the volume's axis ``source``.

    Corner-aligned: the first sample lies on ``first`` and the last on ``last``, as `scipy.ndimage.zoom` places them
    without ``grid_mode``: sample i at i · (length − 1) / (count − 1) voxels from the first.
    ``last`` < ``first`` where the two axes run against each other. ``source`` is 0, 1, 2 for the volume's x, y, z.
    """

    source: int
    first: int
    last: int
    count: int

    def __post_init__(self) -> None:
        if self.source not in (0, 1, 2) or self.count < 1 or min(self.first, self.last) < 0:
            raise ValueError(f"not an axis of a grid: {self}")

    @property
    def length(self) -> int:
        """Volume voxels that the axis covers."""
        return abs(self.last - self.first) + 1

    @property
    def step(self) -> float:
        """Volume indices from one sample to the next, negative where the axes run against each other."""
        return (self.last - self.first) / (self.count - 1) if self.count > 1 else 0.0

    def nearest(self) -> NDArray[np.intp]:
        """For each volume voxel, from ``first`` to ``last``, the sample nearest to it.

        Halves are rounded up as `scipy.ndimage.zoom` rounds them for order 0.
        """
        scale = (self.count - 1) / (self.length - 1) if self.length > 1 else 0.0
        return np.floor(np.arange(self.length) * scale + 0.5).astype(np.intp)

    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For each sample: how many volume voxels it is the nearest of, and the sum of their indices."""
        nearest = self.nearest()
        indices = np.linspace(self.first, self.last, self.length)
        return np.bincount(nearest, minlength=self.count).astype(float), np.bincount(nearest, indices, self.count)


@dataclass(frozen=True)
class ModelGrid:
    """The grid a network sees: axes x, y, z towards the patient's right, anterior and superior, nearest to RAS."""

    x: Axis
    y: Axis
    z: Axis

    @property
    def axes(self) -> tuple[Axis, Axis, Axis]:
        return self.x, self.y, self.z

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        return self.z.count, self.y.count, self.x.count


def spacing_mm(affine_lps: Affine) -> tuple[float, float, float]:
    """Distance between neighbouring voxels along x, y, z."""
    x, y, z = np.linalg.norm(affine_lps[:3, :3], axis=0)
    return float(x), float(y), float(z)


def _nifti_spacing_mm(affine_lps: Affine) -> list[float]:
    """`spacing_mm` as a NIfTI header holds it (float32), which is what TotalSegmentator reckons with."""
    return [float(np.float32(spacing)) for spacing in spacing_mm(affine_lps)]


def whole_box(size: Voxel) -> Bounds:
    """The box of all voxels of an image."""
    return Bounds(min=Voxel(0, 0, 0), max=Voxel(size.x - 1, size.y - 1, size.z - 1))


def grow_box(box: Bounds, affine_lps: Affine, *, margin_mm: float, size: Voxel) -> Bounds:
    """``box`` with a margin on every side, clipped to the image.

    The margin is cut down to whole voxels as TotalSegmentator cuts it (`cropping.crop_to_mask`), whose spacings are
    NIfTI's float32.
    """
    x, y, z = (int(margin_mm / spacing) for spacing in _nifti_spacing_mm(affine_lps))
    return Bounds(
        min=Voxel(max(box.min.x - x, 0), max(box.min.y - y, 0), max(box.min.z - z, 0)),
        max=Voxel(min(box.max.x + x, size.x - 1), min(box.max.y + y, size.y - 1), min(box.max.z + z, size.z - 1)),
    )


def model_grid(affine_lps: Affine, box: Bounds, target_mm: Sequence[float]) -> ModelGrid:
    """The grid over ``box`` with about ``target_mm`` (x, y, z of the model) between samples.

    Sizes are rounded as TotalSegmentator rounds them (`resampling.change_spacing`: float32 spacing over target, times
    the number of voxels, Python's round).
    """
    orientation = _canonical_orientation(RAS_FROM_LPS @ affine_lps)
    spacings = _nifti_spacing_mm(affine_lps)
    first = (box.min.x, box.min.y, box.min.z)
    last = (box.max.x, box.max.y, box.max.z)
    axes = []
    for (source, forward), target in zip(orientation, target_mm, strict=True):
        ends = (first[source], last[source]) if forward else (last[source], first[source])
        # In this order: spacing times voxels over target falls on the other side of some halves.
        count = max(round((last[source] - first[source] + 1) * (spacings[source] / target)), 1)
        axes.append(Axis(source, *ends, count))
    return ModelGrid(*axes)


def _canonical_orientation(affine_ras: NDArray[np.float64]) -> list[tuple[int, bool]]:
    """For right, anterior, superior in turn: the voxel axis nearest to it and whether it runs the same way.

    The algorithm of `nibabel.orientations.io_orientation`, so that the same image is turned the same way.
    """
    columns: NDArray[np.float64] = affine_ras[:3, :3]
    u, singular, vt = np.linalg.svd(columns / np.linalg.norm(columns, axis=0), full_matrices=False)
    keep = singular > np.max(singular) * 3 * np.finfo(np.float64).eps
    rotation = u[:, keep] @ vt[keep]
    found: dict[int, tuple[int, bool]] = {}
    for source in np.argsort(np.min(-(rotation**2), axis=0), kind="stable"):
        target = int(np.argmax(np.abs(rotation[:, source])))
        found[target] = int(source), bool(rotation[target, source] > 0)
        rotation[target, :] = 0
    return [found[target] for target in range(3)]


def volume_point(grid: ModelGrid, index_xyz: Sequence[float]) -> Point:
    """Where a position on ``grid`` (sample indices, fractions allowed) lies among the volume's voxels."""
    position = [0.0, 0.0, 0.0]
    for axis, index in zip(grid.axes, index_xyz, strict=True):
        position[axis.source] = axis.first + index * axis.step
    return Point(*position)


def volume_centroid(grid: ModelGrid, mask: NDArray[np.bool_], low_xyz: Sequence[int]) -> Point:
    """Centre of mass of the volume's voxels whose nearest sample is set in ``mask`` (z, y, x) from ``low_xyz`` on.

    It is that of the label map that the client would see; the mean of the samples is up to half a voxel from it,
    because samples stand for different numbers of voxels. Where they stand for none, it is that mean.
    """
    (x_counts, x_sums), (y_counts, y_sums), (z_counts, z_sums) = (
        (counts[low : low + size], sums[low : low + size])
        for (counts, sums), low, size in zip(
            (axis.shares() for axis in grid.axes), low_xyz, mask.shape[::-1], strict=True
        )
    )
    rows = mask @ x_counts
    voxels = z_counts @ rows @ y_counts
    if voxels == 0:
        middle = np.argwhere(mask).mean(axis=0)[::-1]
        return volume_point(grid, [low + float(offset) for low, offset in zip(low_xyz, middle, strict=True)])
    position = [0.0, 0.0, 0.0]
    totals = (z_counts @ (mask @ x_sums) @ y_counts, z_counts @ rows @ y_sums, z_sums @ rows @ y_counts)
    for axis, total in zip(grid.axes, totals, strict=True):
        position[axis.source] = float(total / voxels)
    return Point(*position)


def volume_bounds(grid: ModelGrid, low_xyz: Sequence[int], high_xyz: Sequence[int]) -> Bounds:
    """The volume's voxels whose nearest sample lies in the inclusive box ``low_xyz`` … ``high_xyz`` of ``grid``.

    Where the volume's voxels are so coarse that none is nearest to the box, the one nearest to its middle.
    """
    low, high = [0, 0, 0], [0, 0, 0]
    for axis, lower, upper in zip(grid.axes, low_xyz, high_xyz, strict=True):
        nearest = axis.nearest()
        inside = np.flatnonzero((nearest >= lower) & (nearest <= upper))
        if inside.size == 0:
            inside = np.array([round((lower + upper) / 2 * abs(axis.step))])
        ends = [axis.first + int(end) * (1 if axis.first <= axis.last else -1) for end in (inside[0], inside[-1])]
        low[axis.source], high[axis.source] = min(ends), max(ends)
    return Bounds(min=Voxel(*low), max=Voxel(*high))


def image_edges(
    grid: ModelGrid, size: Voxel, low_xyz: Sequence[int], shape_zyx: Sequence[int]
) -> list[tuple[bool, bool]]:
    """Of a box of samples, from ``low_xyz`` on: for each axis, z first, whether its first and last are the volume's."""
    ends = {source: {0, count - 1} for source, count in enumerate((size.x, size.y, size.z))}
    edges = [
        (low == 0 and axis.first in ends[axis.source], low + count == axis.count and axis.last in ends[axis.source])
        for axis, low, count in zip(grid.axes, low_xyz, reversed(shape_zyx), strict=True)
    ]
    return edges[::-1]


def lps_mm(affine_lps: Affine, position: Point) -> Point:
    """A position among the volume's voxels, in patient millimetres (LPS): the affine of DICOM PS3.3, C.7.6.2.1.1."""
    x, y, z = (affine_lps @ (position.x, position.y, position.z, 1.0))[:3]
    return Point(float(x), float(y), float(z))


def sample_spacing_mm(grid: ModelGrid, affine_lps: Affine) -> tuple[float, float, float]:
    """Distance between neighbouring samples of ``grid`` along its x, y, z; a lone sample's is all it stands for."""
    spacings = spacing_mm(affine_lps)
    x, y, z = (spacings[axis.source] * (abs(axis.step) if axis.count > 1 else axis.length) for axis in grid.axes)
    return x, y, z


def sample_volume_ml(grid: ModelGrid, affine_lps: Affine) -> float:
    """The volume that one sample of ``grid`` stands for."""
    return float(np.prod(sample_spacing_mm(grid, affine_lps))) / 1000
