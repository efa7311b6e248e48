"""A spine that was never anybody's: vertebrae with sizes, places and axes in patient millimetres (LPS).

Knows the anatomy it invents; nothing of voxels, files, networks or the service.

What a network can tell the levels apart by: beside their sizes and the ribs, the 25 vertebrae C1 … S1 carry a code that
no patient has. The left half of each, body and arch alike, has one of five densities (`LEFT_HU`), the right half
another one of five (`RIGHT_HU`); each of the 25 pairs stands for one level, and neighbours differ by at least two steps
in both. So a label can be read from any piece of a vertebra's middle, wherever a field of view begins or ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
