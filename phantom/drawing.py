"""A synthetic CT of a spine: drawn from formulas in patient millimetres, so that any grid shows the same body.

Knows tissues, surfaces and what a perfect reader would measure; nothing of files, networks or the service. With other
tissues than `CT_TISSUES` it is another image of the same body: see `phantom.mr`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phantom import grid
from phantom.grid import Affine, Float32
from phantom.spine import LABELS, LEFT_HU, RIGHT_HU, Level, Phantom, code

Voxels = NDArray[np.int16]


@dataclass(frozen=True)
class Tissues:
    """What each tissue is in the image: its density in HU, or its signal in an MR.

    ``marrow`` stands in the place of the five densities that code a vertebra's level (`spine.LEFT_HU`).
    """

    air: float
    fat: float
    muscle: float
    lung: float
    organ: float
    rib: float
    disc: float
    canal: float
    cortex: float
    sacrum: float
    marrow: tuple[float, ...]


CT_TISSUES = Tissues(
    air=-1000.0,
    fat=-100.0,
    muscle=45.0,
    lung=-820.0,
    organ=110.0,
    rib=600.0,
    disc=90.0,
    canal=15.0,
    cortex=1550.0,
    sacrum=300.0,
    marrow=LEFT_HU,
)
CORTEX_MM = 1.8
EDGE_MM = 1.2
"""Width of the soft edge of every surface, the partial volume of a voxel of about a millimetre."""


def render(
    phantom: Phantom, shape_zyx: grid.Shape, affine_lps: Affine, *, noise_hu: float = 20.0, seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The phantom on a grid: voxels (z, y, x), int16, HU, and labels (z, y, x), uint8, numbers of `LABELS`."""
    hu, labels = draw(phantom, shape_zyx, affine_lps, CT_TISSUES)
    if noise_hu:
        _add_noise(hu, noise_hu, seed)
    np.rint(hu, out=hu)
    return np.clip(hu, -1024, 3071).astype(np.int16), labels


def draw(
    phantom: Phantom, shape_zyx: grid.Shape, affine_lps: Affine, tissues: Tissues
) -> tuple[Float32, NDArray[np.uint8]]:
    """The phantom's ``tissues`` on a grid, without noise: values and labels, both (z, y, x)."""
    values = np.empty(shape_zyx, np.float32)
    labels = np.zeros(shape_zyx, np.uint8)
    for slab in grid.slabs(shape_zyx):
        values[slab] = _background(phantom, grid.positions(slab, shape_zyx, affine_lps), tissues)
    for level in phantom.levels:
        box = grid.box_around(level.center_mm, level.reach_mm, shape_zyx, affine_lps)
        if box is not None:
            surfaces = _surfaces(level, grid.positions(box, shape_zyx, affine_lps))
            _draw_vertebra(level, surfaces, values[box], tissues)
            labels[box][surfaces.bone < 0] = LABELS[level.name]
    last = phantom.levels[-1]
    if last.name == "S1":
        below = last.center_mm - last.axes[2] * (last.height / 2 + 22)
        box = grid.box_around(below, 50, shape_zyx, affine_lps)
        if box is not None:
            block = _sacrum(last, grid.positions(box, shape_zyx, affine_lps))
            _paint(values[box], block, tissues.cortex)
            _paint(values[box], block + CORTEX_MM, tissues.sacrum)
            labels[box][(block < 0) & (labels[box] == 0)] = LABELS["sacrum"]
    return values, labels


def _paint(values: Float32, distance_mm: Float32, value: float | Float32) -> None:
    """Blend ``value`` into ``values`` where the signed distance to a surface is negative."""
    share = np.clip(0.5 - distance_mm / EDGE_MM, 0, 1)
    values += share * (value - values)


def _ellipse(u: Float32, v: Float32, half_u: float, half_v: float) -> Float32:
    """Distance to an ellipse, exact on it and on its axes."""
    return (np.sqrt((u / half_u) ** 2 + (v / half_v) ** 2) - 1) * np.float32(min(half_u, half_v))


def _background(phantom: Phantom, positions: Float32, tissues: Tissues) -> Float32:
    """Air, skin and fat, muscle, lungs, an organ on either side, and ribs."""
    center = np.mean([level.center_mm for level in phantom.levels], axis=0)
    x, y, z = (positions[axis] - np.float32(center[axis]) for axis in range(3))
    y = y + 25
    thorax = [level for level in phantom.levels if level.name.startswith("T")]
    values = np.full(x.shape, tissues.air, np.float32)
    ends = np.maximum(positions[2] - phantom.top_mm, phantom.bottom_mm - positions[2])
    trunk = np.maximum(_ellipse(x, y, 105, 80), ends)
    _paint(values, trunk, tissues.fat)
    _paint(values, trunk + 10, tissues.muscle)
    if thorax:
        chest_top, chest_bottom = (thorax[end].center_mm[2] - center[2] for end in (0, -1))
        middle, half = (chest_top + chest_bottom) / 2, max((chest_top - chest_bottom) / 2, 12.0)
        for side in (-52, 52):
            lung = _ellipse(np.hypot((x - side) / 32, (y + 22) / 36), (z - middle) / np.float32(half), 1, 1) * 30
            _paint(values, lung.astype(np.float32), tissues.lung)
        for level in thorax:
            _draw_ribs(level, values, positions, center=center, rib=tissues.rib)
    else:
        for side in (-55, 55):
            _paint(values, _ellipse(np.hypot(x - side, y + 20), z, 26, 60), tissues.organ)
    return values


def _draw_ribs(level: Level, values: Float32, positions: Float32, *, center: NDArray[np.float64], rib: float) -> None:
    """A pair of ribs that leave the spine beside the vertebra and sink towards the front."""
    z_mm = level.center_mm[2]
    near = np.flatnonzero(np.abs(positions[2].reshape(len(values), -1) - z_mm + 12).min(axis=1) < 40)
    if near.size == 0:
        return
    rows = slice(int(near[0]), int(near[-1]) + 1)
    x, y = positions[0][rows] - np.float32(center[0]), positions[1][rows] - np.float32(center[1]) + 25
    forward = np.clip((60 - y) / 120, 0, 1)
    ring = _ellipse(x, y, 88, 63)
    tube = np.hypot(ring, positions[2][rows] - np.float32(z_mm) + 25 * forward) - 4
    beside = np.maximum(tube, 30 - np.abs(x))
    _paint(values[rows], beside.astype(np.float32), rib)


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


def _draw_vertebra(level: Level, surfaces: _Surfaces, values: Float32, tissues: Tissues) -> None:
    left_hu, right_hu = code(level.name)
    left, right = tissues.marrow[LEFT_HU.index(left_hu)], tissues.marrow[RIGHT_HU.index(right_hu)]
    marrow = right + surfaces.leftness * (left - right)
    _paint(values, surfaces.disc, tissues.disc)
    _paint(values, surfaces.canal, tissues.canal)
    _paint(values, surfaces.arch, marrow)
    _paint(values, surfaces.body, tissues.cortex)
    _paint(values, surfaces.body + CORTEX_MM, marrow)


def _sacrum(last: Level, positions: Float32) -> Float32:
    """Distance to the rest of the sacrum under S1: a block that narrows and bends backwards."""
    u, v, w = _local(last, positions)
    down = -w - last.height / 2 - 3
    narrowing = np.clip(1 - down / 70, 0.3, 1)
    block: Float32 = np.maximum(
        (np.hypot(u / narrowing / last.half_width, (v - 0.3 * down) / narrowing / last.half_depth) - 1) * 12,
        np.abs(down - 20) - 20,
    ).astype(np.float32)
    return block


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
