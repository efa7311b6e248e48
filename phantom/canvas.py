"""Where the bone of synthetic vertebrae lies on a grid, and how deep; knows shapes, nothing of networks."""

import numpy as np
from numpy.typing import NDArray

from openscans.types import HEAD_TO_FOOT
from phantom.course import PlacedVertebra, Vector

Float32 = NDArray[np.float32]
Pair = tuple[int, int]
"""Of labels that a network wavers between; twice the same where it does not."""

# C1, C7, T1, T12, L1, L5, S1, rounded from anatomy books as in `phantom.spine`; between them sizes grow evenly.
ANCHORS = ("C1", "C7", "T1", "T12", "L1", "L5", "S1")
HALF_WIDTHS_MM = (11, 12, 13, 18, 20, 25, 26)
HALF_DEPTHS_MM = (8, 9, 10, 15, 16, 18, 18)
HALF_CANAL_MM = 8.0

BODY_SHARE = 0.86
"""Of a level's height; the rest is disc."""


class Canvas:
    """What is drawn so far, (z, y, x): how deep a voxel lies (0: in the middle of a bone, 1: on its surface), and the
    two labels that are meant for it."""

    def __init__(self, shape_zyx: tuple[int, int, int], origin_mm: Vector, step_mm: float) -> None:
        self.depth = np.ones(shape_zyx, np.float32)
        self.first = np.zeros(shape_zyx, np.uint8)
        self.second = np.zeros(shape_zyx, np.uint8)
        self._origin_mm, self._step_mm = origin_mm, step_mm

    def draw_vertebra(self, one: PlacedVertebra, numbers: Pair, lower_numbers: Pair) -> None:
        """Body, pedicles, joints that touch the next level, arch, spinous process; the lower half by other numbers."""
        wide, deep = _half_sizes_mm(one)
        box, (u, v, w) = self._around(one, one.center_mm, (wide + 12, deep + 52, one.pitch_mm))
        behind: Float32 = v - deep - 2 * HALF_CANAL_MM
        beside: Float32 = np.abs(u) - np.float32(HALF_CANAL_MM + 4)
        parts = [
            _drum(u, v, w, halves=(wide, deep, BODY_SHARE / 2 * one.pitch_mm)),
            _ball(beside, v - deep - HALF_CANAL_MM, w, halves=(5, HALF_CANAL_MM + 6, 5)),
            _ball(beside, behind + 6, w, halves=(5, 5, 0.55 * one.pitch_mm)),
            _ball(u, behind - 3, w, halves=(HALF_CANAL_MM + 8, 6, 0.3 * one.pitch_mm)),
            _ball(u, behind - 12, w + 4, halves=(4, 14, 6)),
        ]
        self._paint_halves(box, np.minimum.reduce(parts), w, numbers, lower_numbers)

    def draw_bridge(self, upper: PlacedVertebra, lower: PlacedVertebra, numbers: Pair, lower_numbers: Pair) -> None:
        """Bone where the disc between two bodies would be; each half of it belongs to the nearer body."""
        wide, deep = (0.9 * half for half in _half_sizes_mm(lower))
        middle = (upper.center_mm + lower.center_mm) / 2
        box, (u, v, w) = self._around(lower, middle, (wide + 5, deep + 5, lower.pitch_mm / 2))
        bridge = np.maximum(_drum(u, v, w, halves=(wide, deep, 0.3 * lower.pitch_mm)), 0.5)
        self._paint_halves(box, bridge, w, numbers, lower_numbers)

    def draw_sacrum(self, last: PlacedVertebra, numbers: Pair) -> None:
        """A block below S1."""
        below = last.center_mm - last.axes[2] * (BODY_SHARE / 2 * last.pitch_mm + 20)
        box, (u, v, w) = self._around(last, below, (35, 30, 25))
        self._paint(box, _drum(u, v, w, halves=(22, 15, 19)), numbers)

    def draw_blob(self, beside: PlacedVertebra, volume_mm3: float, numbers: Pair) -> None:
        """A ball to the left of a vertebra and clear of it."""
        radius = max((3 * volume_mm3 / (4 * np.pi)) ** (1 / 3), 0.7 * self._step_mm)
        place = beside.center_mm + beside.axes[0] * (max(HALF_WIDTHS_MM) + 10 + radius)
        box, (u, v, w) = self._around(beside, place, (radius + 3,) * 3)
        # Its surface is told from its middle by nothing, or a small one would be background.
        self._paint(box, np.where(_ball(u, v, w, halves=(radius,) * 3) < 1, np.float32(0.5), np.float32(1)), numbers)

    def _paint_halves(
        self, box: tuple[slice, ...], depth: Float32, up_mm: Float32, numbers: Pair, lower_numbers: Pair
    ) -> None:
        self._paint(box, np.where(up_mm >= 0, depth, np.float32(1)), numbers)
        self._paint(box, np.where(up_mm < 0, depth, np.float32(1)), lower_numbers)

    def _paint(self, box: tuple[slice, ...], depth: Float32, numbers: Pair) -> None:
        deeper = depth < self.depth[box]
        self.depth[box][deeper] = depth[deeper]
        self.first[box][deeper], self.second[box][deeper] = numbers

    def _around(
        self, one: PlacedVertebra, center_mm: Vector, reach_mm: tuple[float, float, float]
    ) -> tuple[tuple[slice, ...], tuple[Float32, Float32, Float32]]:
        """A box of voxels that holds all within ``reach_mm`` of ``one``'s axes, and where they lie along those."""
        reach = np.abs(one.axes).T @ reach_mm
        step = np.array([-self._step_mm, -self._step_mm, self._step_mm])
        index = (center_mm - self._origin_mm) / step
        sizes = np.array(self.depth.shape[::-1])
        low = np.clip(np.floor(index - reach / self._step_mm), 0, sizes).astype(int)
        high = np.clip(np.ceil(index + reach / self._step_mm) + 1, low, sizes).astype(int)
        x, y, z = (np.arange(low[axis], high[axis]) - index[axis] for axis in range(3))
        offsets = (x * step[0], (y * step[1])[:, None], (z * step[2])[:, None, None])
        u, v, w = (
            (axis[0] * offsets[0] + axis[1] * offsets[1] + axis[2] * offsets[2]).astype(np.float32) for axis in one.axes
        )
        return tuple(slice(low[axis], high[axis]) for axis in (2, 1, 0)), (u, v, w)


def _half_sizes_mm(one: PlacedVertebra) -> tuple[float, float]:
    """Half the body's width and depth."""
    anchors, place = [HEAD_TO_FOOT.index(name) for name in ANCHORS], HEAD_TO_FOOT.index(one.level)
    wide, deep = (float(np.interp(place, anchors, sizes)) for sizes in (HALF_WIDTHS_MM, HALF_DEPTHS_MM))
    return wide * one.size, deep * one.size


def _drum(u: Float32, v: Float32, w: Float32, *, halves: tuple[float, float, float]) -> Float32:
    """0 in the middle and 1 on the surface of an ellipsoid with flat ends."""
    around = (u / np.float32(halves[0])) ** 2 + (v / np.float32(halves[1])) ** 2
    along = (w / np.float32(halves[2])) ** 2
    depth: Float32 = np.sqrt(np.sqrt(around**2 + along**2))
    return depth


def _ball(u: Float32, v: Float32, w: Float32, *, halves: tuple[float, float, float]) -> Float32:
    """The same of an ellipsoid."""
    along = [offset / np.float32(half) for offset, half in zip((u, v, w), halves, strict=True)]
    depth: Float32 = np.sqrt(along[0] ** 2 + along[1] ** 2 + along[2] ** 2)
    return depth
