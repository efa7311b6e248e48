"""How the logits of overlapping patches are weighted and summed, which label wins, and what comes after it.

Knows arrays only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openscans.system.parallel import parallel_for

GAUSSIAN_PEAK = 10.0
"""nnU-Net scales its weights so, that small ones survive float16 (`predict_from_raw_data`)."""

GAUSSIAN_REACH = 4.0
"""scipy's gaussian_filter, which nnU-Net uses, ends after so many standard deviations."""

LARGEST_FLOAT32_BYTES = 2**30
"""Sums that would take more are kept in float16, as nnU-Net keeps all of them, which rounds logits to whole numbers
at the image's corners, where a patch weighs least."""

BLOCK_VOXELS = 2**13
"""Voxels that are decided together: with float32 sums of some thirty classes they stay in a core's second cache."""

Float32 = NDArray[np.float32]
Window = tuple[slice, slice, slice]


def window_of(corner: Sequence[int], size: Sequence[int]) -> Window:
    """The part of an array (z, y, x) that begins at ``corner``."""
    z, y, x = (slice(start, start + length) for start, length in zip(corner, size, strict=True))
    return z, y, x


@lru_cache(maxsize=4)
def gaussian(patch_zyx: tuple[int, int, int]) -> Float32:
    """The weight of each voxel of a patch: a Gaussian of sigma = patch / 8 about the voxel patch // 2, nowhere 0.

    nnU-Net's `compute_gaussian`, rounded to float16 as there.
    """
    weights = np.ones((1, 1, 1))
    for axis, size in enumerate(patch_zyx):
        weights = weights * _bell(size).reshape([-1 if other == axis else 1 for other in range(3)])
    rounded: NDArray[np.float32] = (weights * GAUSSIAN_PEAK).astype(np.float16).astype(np.float32)
    np.maximum(rounded, np.min(rounded[rounded > 0]), out=rounded)
    rounded.flags.writeable = False
    return rounded


def _bell(size: int) -> NDArray[np.float64]:
    sigma = size / 8
    reach = int(GAUSSIAN_REACH * sigma + 0.5)
    distance = np.arange(size) - size // 2
    return np.where(np.abs(distance) <= reach, np.exp(-0.5 * (distance / sigma) ** 2), 0.0)


def sum_type(values: int) -> type[np.float32 | np.float16]:
    """As what so many sums are kept."""
    return np.float32 if values * 4 <= LARGEST_FLOAT32_BYTES else np.float16


@dataclass(frozen=True)
class RunnersUp:
    """Of voxels that won a label but 0, in C order: the ``labels`` that come second and third, and their softmax
    ``probabilities``, both (2, voxels). Label 0 may be one of them; with the probability 0 it stands for none.

    Only of those voxels, since a bone has a few hundredths of an image.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float16]


def join_runners_up(parts: Sequence[RunnersUp]) -> RunnersUp:
    """``parts`` of an image, one behind the other."""
    return RunnersUp(
        np.concatenate([np.zeros((2, 0), np.uint8), *(part.labels for part in parts)], axis=1),
        np.concatenate([np.zeros((2, 0), np.float16), *(part.probabilities for part in parts)], axis=1),
    )


@dataclass(frozen=True)
class LogitPlane:
    """One plane of an image: ``sums`` (class, y, x) that, divided by ``weights`` (y, x), are logits; None: that are."""

    sums: NDArray[np.floating[Any]]
    weights: Float32 | None = None


@dataclass(frozen=True)
class SummedPlane(LogitPlane):
    """A plane that several patches see."""

    weights: Float32


def planes_of(logits: Float32) -> list[LogitPlane]:
    """The planes of one patch's ``logits`` (class, z, y, x), as views."""
    return [LogitPlane(logits[:, z]) for z in range(logits.shape[1])]


class LogitAccumulator:
    """Weighted sums of logits over a band of planes as deep as a patch, which moves down the image.

    Where patches are as wide as the image, planes that only one of them saw need no sums, and none are made.
    """

    def __init__(self, classes: int, gaussian: Float32, image_shape: Sequence[int]) -> None:
        self._gaussian = gaussian
        self.depth = len(gaussian)
        self._shape = (classes, *image_shape[1:])
        self._kind = sum_type(self.depth * math.prod(self._shape))
        self._covers = gaussian.shape[1:] == tuple(image_shape[1:])
        self._held: list[SummedPlane | None] = [None] * self.depth
        self._alone: Float32 | None = None

    def add(self, logits: Float32, y: int, x: int) -> None:
        """Add a patch's ``logits`` (class, z, y, x) at row ``y`` and column ``x`` of the band.

        The ``logits`` of a patch as wide as the image must not change before `finish`.
        """
        if self._covers:
            self._alone = logits
        else:
            self._sum(logits, y, x, range(self.depth))

    def finish(
        self,
        labels: NDArray[np.uint8],
        probabilities: NDArray[np.float16],
        runners_up: list[RunnersUp] | None = None,
    ) -> None:
        """Decide as many planes of the band as ``labels`` has (see `argmax_softmax`), and move it down by as many."""
        ready, alone = len(labels), self._alone
        argmax_softmax(self._first_planes(ready), labels, probabilities, runners_up)
        self._held = [*self._held[ready:], *[None] * ready]
        if alone is not None:
            rest = range(self.depth - ready)
            self._sum(alone[:, ready:], 0, 0, [z for z in rest if self._held[z] is None])
            self._alone = None

    def _first_planes(self, count: int) -> list[LogitPlane]:
        """The band's, whole: with the patch that waits, where there is one."""
        if self._alone is None:
            return [plane for plane in self._held[:count] if plane is not None]
        self._sum(self._alone, 0, 0, [z for z, plane in enumerate(self._held) if plane is not None])
        own = planes_of(self._alone[:, :count])
        return [held or plane for held, plane in zip(self._held, own, strict=False)]

    def _sum(self, logits: Float32, y: int, x: int, planes: Sequence[int]) -> None:
        weights = self._gaussian[self.depth - logits.shape[1] :]
        _, rows, columns = window_of((0, y, x), self._gaussian.shape)

        def add_planes(part: slice) -> None:
            for z in planes[part]:
                held = self._held[z] or SummedPlane(
                    np.zeros(self._shape, self._kind), np.zeros(self._shape[1:], np.float32)
                )
                held.sums[:, rows, columns] += logits[:, z] * weights[z]
                held.weights[rows, columns] += weights[z]
                self._held[z] = held

        parallel_for(add_planes, len(planes))


def argmax_softmax(
    planes: Sequence[LogitPlane],
    labels: NDArray[np.uint8],
    probabilities: NDArray[np.float16],
    runners_up: list[RunnersUp] | None = None,
) -> None:
    """Write each voxel's class that has most in ``planes`` and, unless it is 0, its softmax probability, (z, y, x).

    What comes after those classes is appended to ``runners_up``, in parts that follow one another, where it is given.
    """
    by_plane: list[list[RunnersUp]] = [[] for _ in labels]

    def decide_planes(part: slice) -> None:
        rows_at_once = max(BLOCK_VOXELS // labels.shape[2], 1)
        for z in range(part.start, part.stop):
            sums, weights = planes[z].sums, planes[z].weights
            for y in range(0, labels.shape[1], rows_at_once):
                rows = slice(y, y + rows_at_once)
                own_weights = None if weights is None else weights[rows]
                ranks = None if runners_up is None else by_plane[z]
                labels[z, rows], probabilities[z, rows] = _argmax_softmax(sums[:, rows], own_weights, ranks)

    parallel_for(decide_planes, len(labels))
    if runners_up is not None:
        runners_up += chain.from_iterable(by_plane)


def _argmax_softmax(
    sums: NDArray[np.floating[Any]], weights: Float32 | None, runners_up: list[RunnersUp] | None
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """`argmax_softmax` for some rows of a plane, (class, y, x)."""
    own = np.ascontiguousarray(sums, np.float32).reshape(len(sums), -1)
    best = own.max(axis=0)
    # Most voxels are background; the rest of the work, which is the most of it, is left to the others.
    # What is infinite has no winner, as what is no number; one without a label must have no runners-up either.
    named = np.flatnonzero((best > own[0]) & (best < np.inf))
    below = own[:, named]
    below -= best[named]
    winner = np.zeros(best.shape, np.uint8)
    winner[named] = (below == 0).argmax(axis=0)  # of truth values far faster than of numbers
    if weights is not None:
        below /= weights.ravel()[named]
    probabilities = np.zeros(best.shape, np.float16)
    total = np.exp(below, out=below).sum(axis=0)
    probabilities[named] = 1 / total
    if runners_up is not None and named.size:
        runners_up.append(_runners_up(below, winner[named], total))
    return winner.reshape(sums.shape[1:]), probabilities.reshape(sums.shape[1:])


def _runners_up(exponentials: Float32, winner: NDArray[np.uint8], total: Float32) -> RunnersUp:
    """What comes after ``winner`` in ``exponentials`` (class, voxel); ``total`` is their sum.

    The lowest bits of each number make way for its class, so that the largest number tells both. With 118 classes these
    are seven of 23, and float16 keeps ten.
    """
    found = RunnersUp(np.empty((2, len(winner)), np.uint8), np.empty((2, len(winner)), np.float16))
    classes, voxels = np.arange(len(exponentials), dtype=np.uint32), np.arange(len(winner))
    low_bits = np.uint32((1 << (len(classes) - 1).bit_length()) - 1)
    # Positive floats are in the order of their bits. Class by class in memory, maxima are found nine times as fast.
    keys = exponentials.view(np.uint32).copy(order="C")
    keys &= ~low_bits
    keys |= (low_bits - classes)[:, None]
    taken: NDArray[np.integer[Any]] = winner
    for rank in range(2):
        keys[taken, voxels] = low_bits
        largest = keys.max(axis=0)
        taken = low_bits - (largest & low_bits)
        found.labels[rank] = taken
        found.probabilities[rank] = (largest & ~low_bits).view(np.float32) / total
    return found
