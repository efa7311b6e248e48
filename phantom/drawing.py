"""A synthetic CT of a spine: drawn from formulas in patient millimetres, so that any grid shows the same body.

Knows tissues, surfaces and what a perfect reader would measure; nothing of files, networks or the service.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phantom import grid
from phantom.grid import Affine, Float32
from phantom.spine import LABELS, Level, Phantom, code

Voxels = NDArray[np.int16]

CORTEX_HU, RIB_HU, DISC_HU, CANAL_HU = 1550.0, 600.0, 90.0, 15.0
AIR_HU, FAT_HU, MUSCLE_HU, LUNG_HU, ORGAN_HU = -1000.0, -100.0, 45.0, -820.0, 110.0
CORTEX_MM = 1.8
EDGE_MM = 1.2
"""Width of the soft edge of every surface, the partial volume of a voxel of about a millimetre."""


def render(
    phantom: Phantom, shape_zyx: grid.Shape, affine_lps: Affine, *, noise_hu: float = 20.0, seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The phantom on a grid: voxels (z, y, x), int16, HU, and labels (z, y, x), uint8, numbers of `LABELS`."""
    hu = np.empty(shape_zyx, np.float32)
    labels = np.zeros(shape_zyx, np.uint8)
    for slab in grid.slabs(shape_zyx):
        hu[slab] = _background(phantom, grid.positions(slab, shape_zyx, affine_lps))
    for level in phantom.levels:
        box = grid.box_around(level.center_mm, level.reach_mm, shape_zyx, affine_lps)
        if box is not None:
            surfaces = _surfaces(level, grid.positions(box, shape_zyx, affine_lps))
            _draw_vertebra(level, surfaces, hu[box])
            labels[box][surfaces.bone < 0] = LABELS[level.name]
    last = phantom.levels[-1]
    if last.name == "S1":
        below = last.center_mm - last.axes[2] * (last.height / 2 + 22)
        box = grid.box_around(below, 50, shape_zyx, affine_lps)
        if box is not None:
            _draw_sacrum(last, hu[box], labels[box], grid.positions(box, shape_zyx, affine_lps))
    if noise_hu:
        _add_noise(hu, noise_hu, seed)
    np.rint(hu, out=hu)
    return np.clip(hu, -1024, 3071).astype(np.int16), labels


def _paint(hu: Float32, distance_mm: Float32, value_hu: float | Float32) -> None:
    """Blend ``value_hu`` into ``hu`` where the signed distance to a surface is negative."""
    share = np.clip(0.5 - distance_mm / EDGE_MM, 0, 1)
    hu += share * (value_hu - hu)


def _ellipse(u: Float32, v: Float32, half_u: float, half_v: float) -> Float32:
    """Distance to an ellipse, exact on it and on its axes."""
    return (np.sqrt((u / half_u) ** 2 + (v / half_v) ** 2) - 1) * np.float32(min(half_u, half_v))


def _background(phantom: Phantom, positions: Float32) -> Float32:
    """Air, skin and fat, muscle, lungs, an organ on either side, and ribs."""
    center = np.mean([level.center_mm for level in phantom.levels], axis=0)
    x, y, z = (positions[axis] - np.float32(center[axis]) for axis in range(3))
    y = y + 25
    thorax = [level for level in phantom.levels if level.name.startswith("T")]
    hu = np.full(x.shape, AIR_HU, np.float32)
    ends = np.maximum(positions[2] - phantom.top_mm, phantom.bottom_mm - positions[2])
    trunk = np.maximum(_ellipse(x, y, 105, 80), ends)
    _paint(hu, trunk, FAT_HU)
    _paint(hu, trunk + 10, MUSCLE_HU)
    if thorax:
        chest_top, chest_bottom = (thorax[end].center_mm[2] - center[2] for end in (0, -1))
        middle, half = (chest_top + chest_bottom) / 2, max((chest_top - chest_bottom) / 2, 12.0)
        for side in (-52, 52):
            lung = _ellipse(np.hypot((x - side) / 32, (y + 22) / 36), (z - middle) / np.float32(half), 1, 1) * 30
            _paint(hu, lung.astype(np.float32), LUNG_HU)
        for level in thorax:
            _draw_ribs(level, hu, positions, z_mm=level.center_mm[2], center=center)
    else:
        for side in (-55, 55):
            _paint(hu, _ellipse(np.hypot(x - side, y + 20), z, 26, 60), ORGAN_HU)
    return hu


def _draw_ribs(level: Level, hu: Float32, positions: Float32, *, z_mm: float, center: NDArray[np.float64]) -> None:
    """A pair of ribs that leave the spine beside the vertebra and sink towards the front."""
    near = np.flatnonzero(np.abs(positions[2].reshape(len(hu), -1) - z_mm + 12).min(axis=1) < 40)
    if near.size == 0:
        return
    rows = slice(int(near[0]), int(near[-1]) + 1)
    x, y = positions[0][rows] - np.float32(center[0]), positions[1][rows] - np.float32(center[1]) + 25
    forward = np.clip((60 - y) / 120, 0, 1)
    ring = _ellipse(x, y, 88, 63)
    tube = np.hypot(ring, positions[2][rows] - np.float32(z_mm) + 25 * forward) - 4
    beside = np.maximum(tube, 30 - np.abs(x))
    _paint(hu[rows], beside.astype(np.float32), RIB_HU)


@dataclass(frozen=True)
class _Surfaces:
    """Signed distances (mm, (z, y, x)) to the surfaces of one vertebra and what touches it."""

    body: Float32
    arch: Float32
    canal: Float32
    disc: Float32
    leftness: Float32
    """1 in the left half, 0 in the right one, with a soft edge."""

    @property
    def bone(self) -> Float32:
        return np.minimum(self.body, self.arch)


def _surfaces(level: Level, positions: Float32) -> _Surfaces:
    u, v, w = _local(level, positions)
    height = np.abs(w) - level.height / 2
    radius = level.canal_radius
    behind = v - (level.half_depth + radius - 1)
    from_axis = np.hypot(u, behind)
    ring = np.maximum(from_axis - radius - 5, radius - from_axis)
    lamina = np.maximum(ring, np.abs(w) - 0.36 * level.height)
    side = np.maximum(np.abs(u) - (level.half_width + 10), radius + 1 - np.abs(u))
    transverse = np.maximum.reduce([side, np.abs(behind + 1) - 4, np.abs(w) - 4.5])
    start, length = radius + 2, level.spinous_mm
    sinking = np.abs(w + 0.35 * (behind - start))
    spinous = np.maximum.reduce([np.abs(behind - start - length / 2) - length / 2, np.abs(u) - 3.5, sinking - 5])
    return _Surfaces(
        body=np.maximum(_ellipse(u, v, level.half_width, level.half_depth), height),
        arch=np.minimum.reduce([lamina, transverse, spinous]),
        canal=np.maximum(from_axis - radius, height - 4),
        disc=np.maximum(_ellipse(u, v, level.half_width - 1, level.half_depth - 1), height - 2.5),
        leftness=np.clip(0.5 + u / EDGE_MM, 0, 1),
    )


def _local(level: Level, positions: Float32) -> tuple[Float32, Float32, Float32]:
    """Millimetres to the left, to the back and up from the centre of the vertebra's body."""
    offset = positions - level.center_mm.astype(np.float32)[:, None, None, None]
    u, v, w = np.tensordot(level.axes.astype(np.float32), offset, 1)
    return u, v, w


def _draw_vertebra(level: Level, surfaces: _Surfaces, hu: Float32) -> None:
    left_hu, right_hu = code(level.name)
    bone_hu = right_hu + surfaces.leftness * (left_hu - right_hu)
    _paint(hu, surfaces.disc, DISC_HU)
    _paint(hu, surfaces.canal, CANAL_HU)
    _paint(hu, surfaces.arch, bone_hu)
    _paint(hu, surfaces.body, CORTEX_HU)
    _paint(hu, surfaces.body + CORTEX_MM, bone_hu)


def _draw_sacrum(last: Level, hu: Float32, labels: NDArray[np.uint8], positions: Float32) -> None:
    """The rest of the sacrum under S1: a block that narrows and bends backwards."""
    u, v, w = _local(last, positions)
    down = -w - last.height / 2 - 3
    narrowing = np.clip(1 - down / 70, 0.3, 1)
    block = np.maximum(
        (np.hypot(u / narrowing / last.half_width, (v - 0.3 * down) / narrowing / last.half_depth) - 1) * 12,
        np.abs(down - 20) - 20,
    ).astype(np.float32)
    _paint(hu, block, CORTEX_HU)
    _paint(hu, block + CORTEX_MM, 300.0)
    labels[(block < 0) & (labels == 0)] = LABELS["sacrum"]


def _add_noise(hu: Float32, noise_hu: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    for z in range(len(hu)):
        hu[z] += random.standard_normal(hu[z].shape, np.float32) * np.float32(noise_hu)


@dataclass(frozen=True)
class TrueVertebra:
    """What a vertebra measures in truth: centre of mass and inclusive corners (LPS, mm)."""

    center_mm: tuple[float, float, float]
    low_mm: tuple[float, float, float]
    high_mm: tuple[float, float, float]


def truth(phantom: Phantom, *, spacing_mm: float = 1.0) -> dict[str, TrueVertebra]:
    """Each vertebra of ``phantom``, measured on a fine grid, without regard to any scan."""
    shape, affine = grid.axial(phantom, (spacing_mm, spacing_mm, spacing_mm))
    labels = np.zeros(shape, np.uint8)
    for level in phantom.levels:
        box = grid.box_around(level.center_mm, level.reach_mm, shape, affine)
        if box is not None:
            labels[box][_surfaces(level, grid.positions(box, shape, affine)).bone < 0] = LABELS[level.name]
    return {level.name: _measured(labels == LABELS[level.name], affine) for level in phantom.levels}


def _measured(mask: NDArray[np.bool_], affine_lps: Affine) -> TrueVertebra:
    indices = np.argwhere(mask)[:, ::-1]
    corner = affine_lps[:3, 3]
    spacing = np.diag(affine_lps)[:3]
    center, low, high = (
        corner + spacing * index for index in (indices.mean(axis=0), indices.min(axis=0), indices.max(axis=0))
    )
    return TrueVertebra(_xyz(center), _xyz(low), _xyz(high))


def _xyz(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
