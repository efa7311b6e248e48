"""Bones of spines that were never anybody's, with the shares that a network might give their levels: soft and often
mistaken ones, and clear ones. What the sequence is judged by, in tests and in `benchmarks.sequence`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation.sequence import VertebraInstance
from openscans.types import HEAD_TO_FOOT, Point

WHOLE = tuple(level for level in HEAD_TO_FOOT if level not in ("T13", "L6"))
"""The levels that networks know, which most people have."""

PLACES = {level: float(place) for place, level in enumerate(WHOLE)} | {
    "T13": WHOLE.index("T12") + 0.5,
    "L6": WHOLE.index("L5") + 0.5,
}
"""Where a network sees a level among those that it knows: a T13 like T12 and L1 alike."""

SPREAD_LEVELS = 0.7
"""Of a soft row: the standard deviation of a normal distribution over levels."""

OFF_LEVELS = 0.35
"""By how much a soft row's middle is off (standard deviation): the network then has next to no whole spine right."""

MOST_MOVED = 0.5
"""Of a soft row's mass that lies on a neighbour of its level."""

SHARE_SHIFTED, MOST_SHIFTED = 0.4, 3
"""Of spines with soft rows, in which one to three neighbours are shifted by one besides."""

STEP_DEVIATION = 0.06
"""Of the distances between neighbours."""


@dataclass(frozen=True)
class DrawnSpine:
    """``bones`` from head to foot, and the ``levels`` that they are."""

    bones: tuple[VertebraInstance, ...]
    levels: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(bone.label for bone in self.bones)


@dataclass(frozen=True)
class Run:
    """The neighbours from ``first`` on, ``count`` of them, of which the network sees the levels ``by`` further down."""

    first: int
    count: int
    by: int


def whole(*, more: str = "", fewer: str = "") -> tuple[str, ...]:
    """All levels, of a spine with one of the rare ones, or without one of the usual ones."""
    return tuple(level for level in HEAD_TO_FOOT if level in (*WHOLE, more) and level != fewer)


def draw(
    seed: int,
    levels: Sequence[str] = WHOLE,
    *,
    clear: bool = False,
    unseen: str = "",
    run: Run | None = None,
    anchored: bool = True,
) -> DrawnSpine:
    """A spine of its own for every ``seed``. ``clear``: the network's rows are sharp and right but for ``run``.

    ``unseen``: a level that the network did not find. ``anchored``: whether S1 is known to be the sacrum.
    """
    random = np.random.default_rng(seed)
    points = _points(levels, random)
    seen = np.array([PLACES[level] for level in levels])
    if run is not None:
        seen[run.first : run.first + run.count] += run.by
    elif not clear and random.random() < SHARE_SHIFTED:
        count = int(random.integers(1, MOST_SHIFTED + 1))
        first = int(random.integers(0, len(levels) - count + 1))
        seen[first : first + count] += random.choice([-1, 1])
    row = _clear_row if clear else _soft_row
    bones = [
        _bone(points[place], row(float(seen[place]), random), on_sacrum=anchored and level == "S1")
        for place, level in enumerate(levels)
    ]
    kept = [place for place, level in enumerate(levels) if level != unseen]
    return DrawnSpine(tuple(bones[place] for place in kept), tuple(levels[place] for place in kept))


def _bone(point: NDArray[np.float64], shares: NDArray[np.float64], *, on_sacrum: bool) -> VertebraInstance:
    of_levels = dict(zip(WHOLE, shares.tolist(), strict=True))
    label = max(of_levels, key=lambda level: of_levels[level])
    return VertebraInstance(label, Point(*point.tolist()), of_levels, on_sacrum)


def _soft_row(place: float, random: np.random.Generator) -> NDArray[np.float64]:
    middle = place + random.normal(0, OFF_LEVELS)
    moved = random.uniform(0, MOST_MOVED)
    mixed = (1 - moved) * _bell(middle) + moved * _bell(middle + random.choice([-1, 1]))
    row: NDArray[np.float64] = mixed / mixed.sum()
    return row


def _bell(middle: float) -> NDArray[np.float64]:
    bell: NDArray[np.float64] = np.exp(-0.5 * ((np.arange(len(WHOLE)) - middle) / SPREAD_LEVELS) ** 2)
    return bell


def _clear_row(place: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Nearly all on one level, as a trained network's rows are; halfway between two, half on each, and more on one."""
    places = np.arange(len(WHOLE))
    row = np.maximum(0, 1 - np.abs(places - np.clip(place, 0, places[-1])))
    row *= random.uniform(0.8, 1.0, len(row))
    lost = random.uniform(0.01, 0.2)
    aside = np.maximum(0, 1.5 - np.abs(places - place)) * random.uniform(0, 1, len(row))
    mixed: NDArray[np.float64] = (1 - lost) * row / row.sum() + lost * aside / aside.sum()
    return mixed


def _points(levels: Sequence[str], random: np.random.Generator) -> NDArray[np.float64]:
    """Middles (LPS, mm) along a spine that is bent forwards, aside, and lies aslant; as far apart as in patients."""
    anchors = {"C1": 16.0, "C7": 18.0, "T1": 19.0, "T12": 27.0, "L1": 30.0, "L5": 34.0, "S1": 34.0}
    usual = np.interp([PLACES[level] for level in levels], [PLACES[level] for level in anchors], [*anchors.values()])
    steps = random.uniform(0.85, 1.15) * usual * random.normal(1, STEP_DEVIATION, len(levels))
    down = np.cumsum(steps)
    along = down / 600
    back = random.uniform(10, 50) * np.sin(2 * np.pi * along + random.uniform(-0.4, 0.4))
    aside = random.uniform(-40, 40) * np.sin(2 * np.pi * along + random.uniform(0, 2 * np.pi))
    points = np.stack([aside, back, -down], axis=1) + random.normal(0, 1, (len(levels), 3))
    placed: NDArray[np.float64] = points @ _turned(random) + random.uniform(-200, 200, 3)
    return placed


def _turned(random: np.random.Generator) -> NDArray[np.float64]:
    """A rotation by up to 40° about the axis from front to back, then about that from side to side."""
    roll, pitch = np.deg2rad(random.uniform(-40, 40, 2))
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turned: NDArray[np.float64] = about_y @ about_x
    return turned
