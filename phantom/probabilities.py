"""Spines as a network would have labelled them: labels and probabilities without a network, faults of either to order.

Knows anatomy by figures and the label numbers of TotalSegmentator's dataset 292; nothing of images and networks. One
spine takes a tenth of a second, so that hundreds can be asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation import grids
from openscans.segmentation.blending import RunnersUp
from openscans.segmentation.vertebrae import LabelMap
from openscans.types import Voxel
from openscans.volumes import Volume
from phantom.canvas import Canvas, Float32, Pair
from phantom.course import PlacedVertebra, Shape, Vector, place
from phantom.spine import LEVELS

NUMBERS = {name: 26 - index for index, name in enumerate(LEVELS)} | {"sacrum": 1}
"""As dataset 292 has them: 26 is C1, 2 is S1."""

NAMES = {NUMBERS[name]: name for name in LEVELS}

THIRTEEN_THORACIC = (*LEVELS[:19], "T13", *LEVELS[19:])
ELEVEN_THORACIC = tuple(name for name in LEVELS if name != "T12")
SIX_LUMBAR = (*LEVELS[:24], "L6", "S1")
FOUR_LUMBAR = tuple(name for name in LEVELS if name != "L5")

BETWEEN = {"T13": ("T12", "L1"), "L6": ("L5", "S1")}
"""Levels that the network does not know, and the two that it wavers between."""

NEIGHBOURS = 3
"""A level may be taken for one so far away, and never for others."""

NOISE_VOXELS = 3.0
MARGIN_MM = 12.0


@dataclass(frozen=True)
class Settings:
    """One spine, and what is wrong with it or with the network.

    ``levels`` are those in view; one that lacks between two others the patient does not have. The network calls the
    levels of ``shifted`` by the names ``shift`` levels farther towards the foot; of ``mixed`` it calls the lower half
    by the next level's name; ``missing`` it does not see. Between ``fused`` and the level below there is bone instead
    of a disc. ``spurious_mm3``: of a blob apart from the spine. ``cut``: the image ends in the middle of the first and
    of the last level. ``sacrum``: whether it is labelled below S1. ``sharpness`` and ``noise`` are the logit of the
    level that is meant and the spread of what lies over all logits.
    """

    seed: int
    levels: tuple[str, ...] = LEVELS
    spacing_mm: float = 3.0
    shape: Shape = "straight"
    shifted: tuple[str, ...] = ()
    shift: int = 0
    mixed: str | None = None
    missing: str | None = None
    fused: str | None = None
    spurious_mm3: float = 0.0
    cut: bool = False
    sacrum: bool = True
    sharpness: float = 8.0
    noise: float = 1.0


@dataclass(frozen=True)
class TrueBody:
    """A level that the patient has in view, and the centre of its body (LPS, mm)."""

    level: str
    center_mm: Vector


@dataclass(frozen=True)
class SyntheticSpine:
    """``labels`` and their ``probabilities`` (z, y, x) on ``grid``, which is the grid of the `volume` itself.

    Who changes the labels of a spine takes its ``runners_up`` away. ``truth`` runs from head to foot.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float16]
    runners_up: RunnersUp | None
    grid: grids.ModelGrid
    affine_lps: Vector
    names: Mapping[int, str]
    truth: tuple[TrueBody, ...]

    @property
    def label_map(self) -> LabelMap:
        return LabelMap(
            self.labels, self.probabilities, self.grid, self.names, self.runners_up, sacrum=NUMBERS["sacrum"]
        )

    @property
    def volume(self) -> Volume:
        return Volume(self.labels.astype(np.int16), self.affine_lps)


def draw(settings: Settings) -> SyntheticSpine:
    """The spine of ``settings``; the same for the same settings."""
    random = np.random.default_rng(settings.seed)
    placed = [one for one in place(settings.levels, settings.shape, random) if one.level in settings.levels]
    shape_zyx, origin_mm = _field(placed, settings)
    canvas = Canvas(shape_zyx, origin_mm, settings.spacing_mm)
    _draw_bone(canvas, placed, settings)
    step = settings.spacing_mm
    affine = np.diag([-step, -step, step, 1.0])
    affine[:3, 3] = origin_mm
    z, y, x = shape_zyx
    labels, probabilities, runners_up = _softmax(canvas, settings, random)
    return SyntheticSpine(
        labels,
        probabilities,
        runners_up,
        grids.model_grid(affine, grids.whole_box(Voxel(x, y, z)), (step, step, step)),
        affine,
        NAMES,
        tuple(TrueBody(one.level, one.center_mm) for one in placed),
    )


def _draw_bone(canvas: Canvas, placed: list[PlacedVertebra], settings: Settings) -> None:
    numbers = {one.level: _numbers(one.level, settings) for one in placed}
    for one in placed:
        own = numbers[one.level]
        if one.level != settings.missing:
            canvas.draw_vertebra(one, own, _towards_foot(own, 1) if one.level == settings.mixed else own)
    for upper, lower in pairwise(placed):
        if upper.level == settings.fused:
            canvas.draw_bridge(upper, lower, numbers[upper.level], numbers[lower.level])
    last, middle = placed[-1], placed[len(placed) // 2]
    if settings.sacrum and last.level == "S1":
        canvas.draw_sacrum(last, (NUMBERS["sacrum"], NUMBERS["sacrum"]))
    if settings.spurious_mm3:
        canvas.draw_blob(middle, settings.spurious_mm3, numbers[middle.level])


def _field(placed: list[PlacedVertebra], settings: Settings) -> tuple[tuple[int, int, int], Vector]:
    """Voxels (z, y, x) of the image, and where its first one lies (LPS, mm): the right, front, lower corner's."""
    centers = np.array([one.center_mm for one in placed])
    low = centers.min(axis=0) - np.array([40, 30, 0]) - MARGIN_MM
    high = centers.max(axis=0) + np.array([40, 60, 0]) + MARGIN_MM
    first, last = placed[0], placed[-1]
    has_sacrum = settings.sacrum and last.level == "S1"
    low[2] = last.center_mm[2] - (0 if settings.cut else last.pitch_mm + MARGIN_MM + 40 * has_sacrum)
    high[2] = first.center_mm[2] + (0 if settings.cut else first.pitch_mm + MARGIN_MM)
    x, y, z = np.ceil((high - low) / settings.spacing_mm).astype(int)
    return (int(z), int(y), int(x)), np.array([high[0], high[1], low[2]])


def _numbers(level: str, settings: Settings) -> Pair:
    first, second = BETWEEN.get(level, (level, level))
    shift = settings.shift if level in settings.shifted else 0
    return _towards_foot((NUMBERS[first], NUMBERS[second]), shift)


def _towards_foot(numbers: Pair, levels: int) -> Pair:
    first, second = (min(max(number - levels, NUMBERS["S1"]), NUMBERS["C1"]) for number in numbers)
    return first, second


def _softmax(
    canvas: Canvas, settings: Settings, random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float16], RunnersUp]:
    """Labels, their probabilities (z, y, x), and what comes after them."""
    bone = np.flatnonzero(canvas.first)
    first, second = canvas.first.ravel()[bone], canvas.second.ravel()[bone]
    beside = np.arange(-NEIGHBOURS, NEIGHBOURS + 1)[:, None]
    classes = np.minimum(first, second).astype(np.int16) + beside
    known = (classes >= 1) & (classes <= NUMBERS["C1"])
    logits = _noise(canvas.first.shape, bone, len(beside), random) * np.float32(settings.noise)
    # Which field lies over a class is the class's own, so that noise goes on where one vertebra ends.
    logits = np.take_along_axis(logits, classes % len(beside), axis=0)
    logits += np.float32(settings.sharpness) * ((classes == first) | (classes == second))
    logits[~known] = -np.inf
    background = np.float32(settings.sharpness) * np.square(np.square(canvas.depth.ravel()[bone]))
    logits = np.concatenate([background[None], logits])
    numbers = np.concatenate([np.zeros_like(classes[:1]), np.where(known, classes, 0)]).astype(np.uint8)
    shares = np.exp(logits - logits.max(axis=0))
    shares /= shares.sum(axis=0)
    best = np.argsort(-shares, axis=0, kind="stable")[:3]
    top: NDArray[np.uint8] = np.take_along_axis(numbers, best, axis=0)
    top_shares = np.take_along_axis(shares, best, axis=0)
    labels, probabilities = np.zeros(canvas.first.size, np.uint8), np.zeros(canvas.first.size, np.float16)
    labels[bone], probabilities[bone] = top[0], top_shares[0]
    named = top[0] != 0
    return (
        labels.reshape(canvas.first.shape),
        probabilities.reshape(canvas.first.shape),
        RunnersUp(top[1:, named], top_shares[1:, named].astype(np.float16)),
    )


def _noise(shape_zyx: tuple[int, ...], places: NDArray[np.intp], fields: int, random: np.random.Generator) -> Float32:
    """Smooth fields of spread 1 (fields, n) at the voxels ``places``: drawn every few voxels and blended between."""
    step = 2 * NOISE_VOXELS
    coarse = random.standard_normal((*(int(size / step) + 2 for size in shape_zyx), fields), np.float32)
    lower, shares = [], []
    for index in np.unravel_index(places, shape_zyx):
        at = (index / step).astype(np.float32)
        lower.append(at.astype(np.intp))
        shares.append(at - np.floor(at))
    noise, weights = np.zeros((len(places), fields), np.float32), np.zeros(len(places), np.float32)
    for corner in np.ndindex(2, 2, 2):
        share = np.prod([part if up else 1 - part for part, up in zip(shares, corner, strict=True)], axis=0)
        noise += share[:, None] * coarse[tuple(low + up for low, up in zip(lower, corner, strict=True))]
        weights += share**2
    noise /= np.sqrt(weights)[:, None]
    return noise.T
