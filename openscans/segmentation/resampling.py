"""Arrays go from one grid to another: an image to a network's grid, labels back, a mask from grid to grid.

Knows numpy and grids; nothing of what the arrays hold.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation.grids import Axis, ModelGrid
from openscans.types import Voxel


def resample(voxels: NDArray[np.generic], grid: ModelGrid, *, truncate: bool) -> NDArray[np.float32]:
    """Linear interpolation of volume ``voxels`` (z, y, x) on ``grid``: (z, y, x), float32, unit of the voxels.

    What TotalSegmentator's `resampling.change_spacing` computes by `scipy.ndimage.zoom` of order 1.
    ``truncate``: voxels with fractions lose them before the interpolation. Of the volume only the voxels beside a
    sample are read, a plane at a time, so that no second copy of it is made.
    """
    view = _orient(voxels, grid)
    rows, columns, planes = _neighbours(grid.y), _neighbours(grid.x), _neighbours(grid.z)
    cut = truncate and not np.issubdtype(voxels.dtype, np.integer)

    @lru_cache(maxsize=2)  # Each plane is the upper neighbour of some samples and then the lower one of the next.
    def sampled(index: int) -> NDArray[np.float32]:
        return _interpolate(_interpolate(view[index], rows, axis=0, truncate=cut), columns, axis=1)

    result = np.empty(grid.shape_zyx, np.float32)
    for index, weight in enumerate(planes.weight):
        plane = sampled(int(planes.before[index]))
        result[index] = plane + weight * (sampled(int(planes.after[index])) - plane) if weight else plane
    return result


def resample_mask(mask: NDArray[np.bool_], source: ModelGrid, target: ModelGrid) -> NDArray[np.bool_]:
    """``mask`` (z, y, x) on ``source``, seen on ``target``, another grid of the same image: the nearest sample's."""
    nearest = []
    for one, other in zip((source.z, source.y, source.x), (target.z, target.y, target.x), strict=True):
        places = (other.first + np.arange(other.count) * other.step - one.first) / (one.step or 1.0)
        nearest.append(np.clip(np.rint(places).astype(np.intp), 0, one.count - 1))
    return mask[np.ix_(*nearest)]


def volume_labels(labels: NDArray[np.uint8], grid: ModelGrid, size: Voxel) -> NDArray[np.uint8]:
    """The label map (z, y, x) of ``grid`` on the volume's whole grid: nearest sample inside, 0 outside."""
    result = np.zeros((size.z, size.y, size.x), np.uint8)
    _orient(result, grid)[:] = labels[np.ix_(grid.z.nearest(), grid.y.nearest(), grid.x.nearest())]
    return result


def _orient(voxels: NDArray[np.generic], grid: ModelGrid) -> NDArray[np.generic]:
    """The part of volume ``voxels`` that ``grid`` covers, as a view whose axes run as the grid's do."""
    slices: list[slice] = [slice(None)] * 3
    for axis in grid.axes:
        low, high = min(axis.first, axis.last), max(axis.first, axis.last)
        slices[2 - axis.source] = slice(low, high + 1)
    order = [2 - axis.source for axis in (grid.z, grid.y, grid.x)]
    flips = tuple(slice(None, None, 1 if axis.first <= axis.last else -1) for axis in (grid.z, grid.y, grid.x))
    return voxels[tuple(slices)].transpose(order)[flips]


@dataclass(frozen=True)
class _Neighbours:
    """Per sample of an axis: the index before it, the index after it, and how far it lies towards the latter."""

    before: NDArray[np.intp]
    after: NDArray[np.intp]
    weight: NDArray[np.float32]

    @property
    def exact(self) -> bool:
        return not self.weight.any()


def _neighbours(axis: Axis) -> _Neighbours:
    position = np.arange(axis.count) * abs(axis.step)
    before = np.minimum(position.astype(np.intp), axis.length - 1)
    weight = (position - before).astype(np.float32)
    return _Neighbours(before, np.minimum(before + 1, axis.length - 1), weight)


def _interpolate(
    plane: NDArray[np.generic], neighbours: _Neighbours, *, axis: int, truncate: bool = False
) -> NDArray[np.float32]:
    def at(index: NDArray[np.intp]) -> NDArray[np.float32]:
        values: NDArray[np.float32] = plane.take(index, axis).astype(np.float32, copy=False)
        return np.trunc(values, out=values) if truncate else values

    # a + weight · (b − a) keeps an even region exactly even, where (1 − w) · a + w · b would fall short of a whole
    # number and be truncated to the one below.
    low = at(neighbours.before)
    if neighbours.exact:
        return low
    weight = neighbours.weight[:, None] if axis == 0 else neighbours.weight
    high = at(neighbours.after)
    high -= low
    high *= weight
    low += high
    return low
