"""The way of a synthetic spine: where each vertebra of a patient lies, and how it is turned; nothing of voxels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openscans.types import HEAD_TO_FOOT
from phantom.spine import LEVELS

Shape: TypeAlias = Literal["straight", "scoliotic", "kyphotic", "tilted"]
Vector = NDArray[np.float64]

PITCH_MM = {"C": 17.0, "T": 24.0, "L": 34.0, "S": 34.0}
PITCH_SPREAD, SIZE_SPREAD = 0.06, 0.07
"""By how much one level's height differs from the patient's, and a patient from the mean."""


@dataclass(frozen=True)
class PlacedVertebra:
    """One vertebra: its body's centre (LPS, mm), axes as rows (left, back, up), and its height with a disc."""

    level: str
    center_mm: Vector
    axes: Vector
    pitch_mm: float
    size: float


def place(levels_in_view: Sequence[str], shape: Shape, random: np.random.Generator) -> list[PlacedVertebra]:
    """Every vertebra of the patient, in view or not, from head to foot."""
    first, last = (HEAD_TO_FOOT.index(levels_in_view[end]) for end in (0, -1))
    levels = [
        level
        for index, level in enumerate(HEAD_TO_FOOT)
        if level in levels_in_view or (level in LEVELS and not first < index < last)
    ]
    size = 1 + random.uniform(-SIZE_SPREAD, SIZE_SPREAD)
    pitches = [PITCH_MM[level[0]] * size * (1 + random.uniform(-PITCH_SPREAD, PITCH_SPREAD)) for level in levels]
    bends = _bends(shape, random)
    height = sum(pitches)
    center, passed, found = random.uniform(-20, 20, 3), 0.0, []
    for index, (level, pitch) in enumerate(zip(levels, pitches, strict=True)):
        way = (pitch + pitches[index - 1]) / 2 if index else 0.0
        center = center + way * _down((passed + way / 2) / height, bends)
        passed += way
        found.append(PlacedVertebra(level, center, _axes(-_down(passed / height, bends)), pitch, size))
    return found


@dataclass(frozen=True)
class _Bends:
    """How the spine leans, in radians, over the share of its way from head to foot: waves, and a lean of all of it."""

    back: tuple[float, float, float]
    """To the back: how much, how many turns, and where it begins; so for the side."""

    side: tuple[float, float, float]
    lean_back: float = 0.0
    lean_side: float = 0.0


def _bends(shape: Shape, random: np.random.Generator) -> _Bends:
    back = (np.radians(random.uniform(8, 16)), 1.2, random.uniform(-0.5, 0.5))
    side = (np.radians(random.uniform(-3, 3)), 0.8, random.uniform(0, 6))
    if shape == "scoliotic":
        return _Bends(back, (np.radians(random.uniform(22, 35)), random.uniform(0.8, 1.4), random.uniform(0, 6)))
    if shape == "kyphotic":
        # A quarter turn on: the head leans forward most, the lowest vertebrae the other way.
        return _Bends((np.radians(random.uniform(45, 65)), 0.65, np.pi / 2), side)
    if shape == "tilted":
        lean, towards = np.radians(random.uniform(25, 40)), random.uniform(0, 2 * np.pi)
        return _Bends(back, side, lean * np.cos(towards), lean * np.sin(towards))
    return _Bends(back, side)


def _down(share: float, bends: _Bends) -> Vector:
    """Towards the foot (LPS), where ``share`` of the way from head to foot is done."""
    back, side = (
        lean + much * np.sin(2 * np.pi * turns * share + begin)
        for lean, (much, turns, begin) in ((bends.lean_back, bends.back), (bends.lean_side, bends.side))
    )
    return np.array([np.sin(side), np.sin(back) * np.cos(side), -np.cos(back) * np.cos(side)])


def _axes(up: Vector) -> Vector:
    left = np.array([1.0, 0.0, 0.0])
    left -= up * (left @ up)
    left /= np.linalg.norm(left)
    return np.stack([left, np.cross(up, left), up])
