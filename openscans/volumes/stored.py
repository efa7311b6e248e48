"""Slices that make no upright, evenly spaced volume, and the volume that is resampled from them; numpy only.

A tilted gantry shears a stack, lost slices leave gaps, some scanners change the distance on the way. The networks see
the resampled volume; an answer counts the image's slices as they are stored.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openscans.errors import InconsistentGeometry
from openscans.types import Bounds, Point, Voxel
from openscans.volumes.values import Plane, Voxels

AIR = {"CT": -1024}
"""What lies beyond a sheared slice's edge, in HU; 0 for MR."""

MOST_ADDED = 8
"""Times the image's voxels that the volume may have. A gantry at 45° over two metres, in a field of half a metre, makes
five of one; a line of slices aslant would make thousands."""


@dataclass(frozen=True)
class StoredSlices:
    """Where the image's slices lie in the volume that is resampled from them: the way between the two frames.

    ``origins_xyz``: (slices, 3), each slice's first pixel in the volume's frame, z growing. A slice lies flat in the
    volume, its columns along x and its rows along y, in the same distances; so it is only moved, by fractions of
    voxels. ``image_size`` counts columns, rows and slices as stored, ``volume_zyx`` the volume's voxels.
    """

    origins_xyz: NDArray[np.float64]
    image_size: Voxel
    volume_zyx: tuple[int, int, int]

    def __post_init__(self) -> None:
        size = self.image_size
        times = math.prod(self.volume_zyx) / (size.x * size.y * size.z)
        if times > MOST_ADDED:
            raise InconsistentGeometry(
                f"Set upright and evenly, the image would have {times:.0f} times as many voxels: its slices are sheared"
                " or lie apart too far."
            )

    @property
    def typical_step(self) -> float:
        """The volume's planes from one slice to the next (median)."""
        return float(np.median(np.diff(self.origins_xyz[:, 2])))

    def image_point(self, volume_point: Point) -> Point:
        """A position in the volume's frame, in columns, rows and slices of the image; between slices by fractions."""
        x, y = (self.origin(volume_point.z, axis) for axis in (0, 1))
        return Point(volume_point.x - x, volume_point.y - y, self._slice_at(volume_point.z))

    def image_bounds(self, volume_box: Bounds) -> Bounds:
        """The image's voxels that hold a box of the volume's: the box around a sheared box, clipped to the image."""
        box = volume_box
        z = self._slices_between(box.min.z - 0.5, box.max.z + 0.5)
        low, high = [], []
        for axis, (first, last) in enumerate(((box.min.x, box.max.x), (box.min.y, box.max.y))):
            origins = [self.origin(height, axis) for height in (box.min.z, box.max.z)]
            low.append(round(first - max(origins)))
            high.append(round(last - min(origins)))
        x, y = (
            (min(max(first, 0), count - 1), min(max(last, 0), count - 1))
            for first, last, count in zip(low, high, (self.image_size.x, self.image_size.y), strict=True)
        )
        return Bounds(min=Voxel(x[0], y[0], z[0]), max=Voxel(x[1], y[1], z[1]))

    def resample(self, stored: Voxels, outside: int | None = None) -> Voxels:
        """The volume (z, y, x) in the type of the image ``stored`` (slice, row, column).

        Linear between slices and pixels; ``outside`` (HU) beyond the edges of slices. Where nobody knows the modality
        that is the lowest value, which is air in CT and MR alike.
        """
        if outside is None:
            outside = math.floor(stored.min())
        volume = np.empty(self.volume_zyx, stored.dtype)
        whole = np.issubdtype(stored.dtype, np.integer)
        for z, plane in enumerate(volume):
            values = self._plane(stored, z)
            values[np.isnan(values)] = outside
            plane[:] = np.rint(values, out=values) if whole else values
        return volume

    def _plane(self, stored: Voxels, z: int) -> Plane:
        """Plane ``z`` of the volume, (y, x), float64; NaN where no slice of the image reaches."""
        position = self._slice_at(z)
        # Interpolation leaves rounding errors; a plane on a slice must not be mixed with the next.
        before = min(int(position + 1e-6), len(stored) - 1)
        weight = max(position - before, 0.0)
        low = self._move(stored[before], before)
        if weight <= 1e-6:
            return low
        high = self._move(stored[before + 1], before + 1)
        mixed: Plane = low + weight * (high - low)
        # Where only one of two sheared slices reaches, it speaks alone.
        return np.where(np.isnan(low), high, np.where(np.isnan(high), low, mixed))

    def _move(self, plane: Plane, index: int) -> Plane:
        """Slice ``index`` of the image, (row, column), on the volume's rows and columns, in float64."""
        _, rows, columns = self.volume_zyx
        x, y, _ = self.origins_xyz[index]
        return _shift(_shift(plane.astype(np.float64), y, rows).T, x, columns).T

    def _slice_at(self, z: float) -> float:
        """The image's slice, by fractions, at the height ``z`` of the volume."""
        return float(np.interp(z, self.origins_xyz[:, 2], np.arange(self.image_size.z)))

    def origin(self, z: float, axis: int) -> float:
        """Where slices at the volume's height ``z`` begin along its ``axis``."""
        return float(np.interp(z, self.origins_xyz[:, 2], self.origins_xyz[:, axis]))

    def _slices_between(self, low: float, high: float) -> tuple[int, int]:
        """The image's first and last slice between two heights of the volume; the nearest where none is."""
        heights = self.origins_xyz[:, 2]
        inside = np.flatnonzero((heights >= low) & (heights <= high))
        if inside.size == 0:
            inside = np.array([round(self._slice_at((low + high) / 2))])
        return int(inside[0]), int(inside[-1])


def _shift(lines: Plane, by: float, count: int) -> Plane:
    """``lines`` moved along their first axis to begin at the index ``by`` of ``count``: linear, NaN beyond them."""
    start = math.floor(by + 1e-6)
    weight = max(by - start, 0.0)
    result = np.full((count, *lines.shape[1:]), np.nan)
    if weight <= 1e-6:
        result[start : start + len(lines)] = lines
        return result
    result[start + 1 : start + len(lines)] = weight * lines[:-1] + (1 - weight) * lines[1:]
    return result
