"""A synthetic CT with a known spine: drawn from formulas in patient millimetres, so that any grid shows the same body.

Knows numpy and the anatomy it invents; nothing of files, networks or the service.

What a network can tell the levels apart by: beside their sizes and the ribs, the 25 vertebrae C1 … S1 carry a code that
no patient has. The left half of each, body and arch alike, has one of five densities (`LEFT_HU`), the right half
another one of five (`RIGHT_HU`); each of the 25 pairs stands for one level, and neighbours differ by at least two steps
in both. So a label can be read from any piece of a vertebra's middle, wherever a field of view begins or ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
Float32 = NDArray[np.float32]
Voxels = NDArray[np.int16]

LEVELS = (
    *(f"C{number}" for number in range(1, 8)),
    *(f"T{number}" for number in range(1, 13)),
    *(f"L{number}" for number in range(1, 6)),
    "S1",
)
LABELS = {name: 50 - index for index, name in enumerate(LEVELS)} | {"sacrum": 25}
"""Numbers of TotalSegmentator's class map ``total``: 50 is C1, 26 is S1, 25 the rest of the sacrum."""

LEFT_HU = (180.0, 460.0, 740.0, 1020.0, 1300.0)
RIGHT_HU = (180.0, 460.0, 740.0, 1020.0, 1300.0)
"""Steps of 280 HU: more than ten times the noise of a usual CT."""

CORTEX_HU, RIB_HU, DISC_HU, CANAL_HU = 1550.0, 600.0, 90.0, 15.0
AIR_HU, FAT_HU, MUSCLE_HU, LUNG_HU, ORGAN_HU = -1000.0, -100.0, 45.0, -820.0, 110.0
CORTEX_MM = 1.8
EDGE_MM = 1.2
"""Width of the soft edge of every surface, the partial volume of a voxel of about a millimetre."""

SLAB_VOXELS = 4_000_000
"""The background is drawn in slabs of about so many voxels, so that temporary arrays stay small."""


def code(level: str) -> tuple[float, float]:
    """The densities (HU) of the left and the right half that stand for ``level``."""
    block, place = divmod(LEVELS.index(level), 5)
    return LEFT_HU[(2 * place) % 5], RIGHT_HU[(block + 3 * place) % 5]


@dataclass(frozen=True)
class Level:
    """One vertebra: its body's centre (LPS, mm), axes as rows (left, posterior, up), and sizes in mm."""

    name: str
    center_mm: NDArray[np.float64]
    axes: NDArray[np.float64]
    half_width: float
    half_depth: float
    height: float
    canal_radius: float

    @property
    def reach_mm(self) -> float:
        """No part of the vertebra is farther from its body's centre."""
        return self.half_depth + 2 * self.canal_radius + 6 + self.spinous_mm + 8

    @property
    def spinous_mm(self) -> float:
        return 10 + 0.7 * self.half_width


@dataclass(frozen=True)
class Phantom:
    """A spine and the body around it, in patient millimetres (LPS). ``levels`` run from head to foot."""

    levels: tuple[Level, ...]
    top_mm: float
    bottom_mm: float
    seed: int


def describe(seed: int, levels: Sequence[str] = LEVELS) -> Phantom:
    """A spine of its own for every ``seed``: sizes, curvature to the front and to the side, position.

    ``levels`` (neighbours, from head to foot) are the vertebrae it has; the body ends 15 mm beyond them.
    """
    random = np.random.default_rng(seed)
    size = random.uniform(0.93, 1.07)
    sizes = {name: _sizes(index, size, random) for index, name in enumerate(LEVELS)}
    height = sum(pitch for *_, pitch in sizes.values())
    bend = random.uniform(8, 18), random.uniform(-0.4, 0.4)
    side = random.uniform(-9, 9), random.uniform(0, 2 * np.pi)
    origin = random.uniform(-20, 20, 3)

    def curve(z: float) -> NDArray[np.float64]:
        turn = 2 * np.pi * z / height
        bent = (side[0] * np.sin(0.8 * turn + side[1]), bend[0] * np.sin(turn + bend[1]), z)
        return np.add(origin, bent)

    found = []
    z = height
    for name, (half_width, half_depth, body_height, canal, pitch) in sizes.items():
        z -= pitch
        if name in levels:
            axes = _axes(curve(z + 1) - curve(z - 1))
            found.append(Level(name, curve(z), axes, half_width, half_depth, body_height, canal))
    top = found[0].center_mm[2] + found[0].height / 2 + 15
    bottom = found[-1].center_mm[2] - found[-1].height / 2 - (60 if found[-1].name == "S1" else 15)
    return Phantom(tuple(found), float(top), float(bottom), seed)


def _sizes(index: int, size: float, random: np.random.Generator) -> tuple[float, float, float, float, float]:
    """Half width, half depth, height of the body, radius of the canal, distance to the next level; mm."""
    # Anchors at C1, C7, T1, T12, L1, L5, S1, rounded from anatomy books; between them the sizes grow evenly.
    anchors = (0, 6, 7, 18, 19, 23, 24)
    table = (
        (11, 12, 13, 18, 20, 25, 26),
        (8, 9, 10, 15, 16, 18, 18),
        (11, 13, 15, 22, 24, 27, 27),
        (8, 8, 8, 8, 8.5, 9, 9),
        (16, 18, 19, 26, 30, 34, 34),
    )
    wobble = random.uniform(0.96, 1.04)
    values = [float(np.interp(index, anchors, row)) * size * wobble for row in table]
    return values[0], values[1], values[2], values[3], values[4]


def _axes(up: NDArray[np.float64]) -> NDArray[np.float64]:
    up = up / np.linalg.norm(up)
    left = np.array([1.0, 0.0, 0.0])
    left -= up * (left @ up)
    left /= np.linalg.norm(left)
    return np.stack([left, np.cross(up, left), up])


def axial_grid(phantom: Phantom, spacing_mm: Sequence[float]) -> tuple[tuple[int, int, int], Affine]:
    """Shape (z, y, x) and affine (x, y, z → LPS) of an axial scan from below the phantom to above it."""
    center = np.mean([level.center_mm for level in phantom.levels], axis=0)
    low = np.array([center[0] - 115, center[1] - 125, phantom.bottom_mm - 5])
    high = np.array([center[0] + 115, center[1] + 75, phantom.top_mm + 5])
    counts = np.ceil((high - low) / spacing_mm).astype(int) + 1
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = low
    return (int(counts[2]), int(counts[1]), int(counts[0])), affine


def rotated_grid(
    phantom: Phantom, spacing_mm: Sequence[float], angles_deg: Sequence[float]
) -> tuple[tuple[int, int, int], Affine]:
    """`axial_grid` turned about its middle by ``angles_deg`` about patient x, y and z, and grown to hold the spine."""
    shape, affine = axial_grid(phantom, spacing_mm)
    middle = affine @ (*((np.array(shape[::-1]) - 1) / 2), 1.0)
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[one, one] = step[other, other] = np.cos(angle)
        step[other, one], step[one, other] = np.sin(angle), -np.sin(angle)
        turn = step @ turn
    columns = turn @ affine[:3, :3]
    corners = [
        np.linalg.solve(columns, level.center_mm + axis * sign * (level.reach_mm + 10) - middle[:3])
        for level in phantom.levels
        for axis in np.eye(3)
        for sign in (-1, 1)
    ]
    half = np.maximum(np.abs(corners).max(axis=0), (np.array(shape[::-1]) - 1) / 2 * (1, 1, 0))
    counts = np.ceil(2 * half).astype(int) + 1
    turned = np.eye(4)
    turned[:3, :3] = columns
    turned[:3, 3] = middle[:3] - columns @ ((counts - 1) / 2)
    return (int(counts[2]), int(counts[1]), int(counts[0])), turned


def render(
    phantom: Phantom, shape_zyx: tuple[int, int, int], affine_lps: Affine, *, noise_hu: float = 20.0, seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The phantom on a grid: voxels (z, y, x), int16, HU, and labels (z, y, x), uint8, numbers of `LABELS`."""
    hu = np.empty(shape_zyx, np.float32)
    labels = np.zeros(shape_zyx, np.uint8)
    for slab in _slabs(shape_zyx):
        hu[slab] = _background(phantom, _positions(slab, shape_zyx, affine_lps))
    for level in phantom.levels:
        box = _box_around(level.center_mm, level.reach_mm, shape_zyx, affine_lps)
        if box is not None:
            surfaces = _surfaces(level, _positions(box, shape_zyx, affine_lps))
            _draw_vertebra(level, surfaces, hu[box])
            labels[box][surfaces.bone < 0] = LABELS[level.name]
    last = phantom.levels[-1]
    if last.name == "S1":
        below = last.center_mm - last.axes[2] * (last.height / 2 + 22)
        box = _box_around(below, 50, shape_zyx, affine_lps)
        if box is not None:
            _draw_sacrum(last, hu[box], labels[box], _positions(box, shape_zyx, affine_lps))
    if noise_hu:
        _add_noise(hu, noise_hu, seed)
    np.rint(hu, out=hu)
    return np.clip(hu, -1024, 3071).astype(np.int16), labels


def _slabs(shape_zyx: tuple[int, int, int]) -> Iterator[tuple[slice, slice, slice]]:
    planes = max(SLAB_VOXELS // (shape_zyx[1] * shape_zyx[2]), 1)
    for start in range(0, shape_zyx[0], planes):
        yield slice(start, min(start + planes, shape_zyx[0])), slice(0, shape_zyx[1]), slice(0, shape_zyx[2])


def _positions(box: tuple[slice, slice, slice], shape_zyx: tuple[int, int, int], affine_lps: Affine) -> Float32:
    """(3, z, y, x): the LPS position of each voxel in ``box``."""
    z, y, x = (np.arange(*along.indices(size), dtype=np.float32) for along, size in zip(box, shape_zyx, strict=True))
    matrix = affine_lps.astype(np.float32)
    return np.stack(
        [
            matrix[row, 0] * x + matrix[row, 1] * y[:, None] + matrix[row, 2] * z[:, None, None] + matrix[row, 3]
            for row in range(3)
        ]
    )


def _box_around(
    center_mm: NDArray[np.float64], reach_mm: float, shape_zyx: tuple[int, int, int], affine_lps: Affine
) -> tuple[slice, slice, slice] | None:
    inverse = np.linalg.inv(affine_lps)
    middle = (inverse @ (*center_mm, 1.0))[:3]
    reach = np.linalg.norm(inverse[:3, :3], axis=1) * reach_mm
    slices = []
    for axis, size in zip((2, 1, 0), shape_zyx, strict=True):
        start, stop = int(np.floor(middle[axis] - reach[axis])), int(np.ceil(middle[axis] + reach[axis])) + 1
        if stop <= 0 or start >= size:
            return None
        slices.append(slice(max(start, 0), min(stop, size)))
    return slices[0], slices[1], slices[2]


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
    shape, affine = axial_grid(phantom, (spacing_mm, spacing_mm, spacing_mm))
    labels = np.zeros(shape, np.uint8)
    for level in phantom.levels:
        box = _box_around(level.center_mm, level.reach_mm, shape, affine)
        if box is not None:
            labels[box][_surfaces(level, _positions(box, shape, affine)).bone < 0] = LABELS[level.name]
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
