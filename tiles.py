"""Which patches of an image a network computes, how their logits are weighted and summed, and what label wins.

Knows numpy and nnU-Net's sliding window; not what a vertebra is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from networks import Network, Plan
from progress import Report

GAUSSIAN_PEAK = 10.0
"""nnU-Net scales its weights so, that small ones survive float16 (`predict_from_raw_data`)."""

GAUSSIAN_REACH = 4.0
"""scipy's gaussian_filter, which nnU-Net uses, ends after so many standard deviations."""

LARGEST_FLOAT32_BYTES = 2**30
"""Sums that would take more are kept in float16, as nnU-Net keeps all of them, which rounds logits to whole numbers
at the image's corners, where a patch weighs least."""

FOUND_BYTES = 1 + 2
"""A voxel's label and probability."""

LEAST_CONTEXT = 1 / 8
"""How much of a patch that left nnU-Net's grid must lie around what is wanted: the Gaussian's sigma, within which of
its edge nnU-Net trusts a patch least. With none, trained networks gave some vertebrae a Dice of 0.98."""

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Window = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Prediction:
    """Per voxel (z, y, x): the ``labels`` that win, uint8, and the softmax ``probabilities`` they have, float16.

    How sure the network is of label 0 is not computed; its probability is given as 0.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float16]


@dataclass(frozen=True)
class Row:
    """Patches that begin at the plane ``top``; ``corners`` are their first rows and columns (y, x)."""

    top: int
    corners: tuple[tuple[int, int], ...]


def starts(size: int, patch: int, step: float) -> list[int]:
    """Where patches begin along an axis of ``size`` ≥ ``patch`` voxels: evenly, at most ``step`` · ``patch`` apart.

    nnU-Net's `compute_steps_for_sliding_window`.
    """
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    distance = (size - patch) / (count - 1) if count > 1 else 0.0
    return [int(np.round(distance * index)) for index in range(count)]


def laid(wanted: Mask, patch: Sequence[int], step: float, *, follow: bool) -> list[Row]:
    """The patches over what is ``wanted`` (z, y, x), from the top down; nnU-Net's whole grid where all is wanted.

    A patch of the grid that holds nothing wanted is left out, which changes nothing in what is wanted. ``follow``:
    where patches over the extent of what is wanted are fewer than those of the grid, they take their place, row by
    row, so that they follow what runs slantwise.
    """
    rows = []
    for top in _cover(wanted.any(axis=(1, 2)), patch[0], step, follow=follow):
        below = wanted[top : top + patch[0]].any(axis=0)
        corners = [
            (y, x)
            for y in _cover(below.any(axis=1), patch[1], step, follow=follow)
            for x in _cover(below[y : y + patch[1]].any(axis=0), patch[2], step, follow=follow)
        ]
        rows.append(Row(top, tuple(corners)))
    return rows


def _cover(held: Mask, patch: int, step: float, *, follow: bool) -> list[int]:
    """Where patches along one axis begin that together cover all that is ``held``."""
    grid = [start for start in starts(len(held), patch, step) if held[start : start + patch].any()]
    if not follow or len(grid) < 2:
        return grid
    places, context = np.flatnonzero(held), round(patch * LEAST_CONTEXT)
    first = max(int(places[0]) - context, 0)
    extent = min(int(places[-1]) + 1 + context, len(held)) - first
    if extent > patch:
        own = [first + start for start in starts(extent, patch, step)]
    else:
        own = [min(max(first + (extent - patch) // 2, 0), len(held) - patch)]
    return own if len(own) < len(grid) else grid


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


@dataclass(frozen=True)
class Wanted:
    """The voxels (z, y, x) of an image that matter. ``follow``: patches may leave nnU-Net's grid to be fewer."""

    voxels: Mask
    follow: bool = False


def predict(
    image: Float32, network: Network, *, step: float, report: Report, wanted: Wanted | None = None
) -> Prediction:
    """Run ``network`` over ``image`` (z, y, x), normalised, in patches ``step`` · patch apart.

    The image is padded with 0, centred, up to one patch. ``wanted``: None for all of it; where no patch lies the label
    is 0. ``report`` counts patches. Planes that no later patch touches become labels at once, so that memory does not
    grow with the number of planes.
    """
    patch = network.plan.patch_zyx
    padded, seen = _padded(image, patch)
    if wanted is None:
        rows = laid(np.broadcast_to(np.True_, padded.shape), patch, step, follow=False)
    else:
        rows = laid(_padded(wanted.voxels, patch)[0], patch, step, follow=wanted.follow)
    found = Prediction(np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.float16))
    total = sum(len(row.corners) for row in rows)
    if total == 0:
        return found
    report(0, total)
    if total == 1:
        corner = (rows[0].top, *rows[0].corners[0])
        _decide(_logits(network, padded, corner)[(slice(None), *seen)], None, *_parts(found, corner, seen))
        report(1, total)
        return found
    sums = _Sums(network.plan.architecture.heads, gaussian(patch)[seen], image.shape)
    done = 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        for y, x in row.corners:
            sums.add(_logits(network, padded, (row.top, y, x))[(slice(None), *seen)], y, x)
            done += 1
            report(done, total)
        ready = sums.depth if following is None else min(following.top - row.top, sums.depth)
        planes = slice(row.top, row.top + ready)
        sums.finish(found.labels[planes], found.probabilities[planes])
    return found


def room_bytes(shape_zyx: Sequence[int], plan: Plan, *, step: float) -> int:
    """What `predict` takes for an image of ``shape_zyx`` of which all is wanted, beside the image and the network."""
    voxels = math.prod(shape_zyx)
    patch = plan.patch_zyx
    padded = [max(*both) for both in zip(shape_zyx, patch, strict=True)]
    need = voxels * FOUND_BYTES + (math.prod(padded) * 4 if math.prod(padded) > voxels else 0)
    if all(len(starts(size, length, step)) == 1 for size, length in zip(padded, patch, strict=True)):
        return need
    band = min(shape_zyx[0], patch[0]) * math.prod(shape_zyx[1:])
    return need + band * (plan.architecture.heads * _sum_bytes(plan.architecture.heads * band) + 4)


def _sum_bytes(values: int) -> int:
    return 4 if values * 4 <= LARGEST_FLOAT32_BYTES else 2


def _logits(network: Network, padded: Float32, corner: Sequence[int]) -> Float32:
    """The logits (class, z, y, x) of the patch of ``padded`` whose first voxel is ``corner``."""
    return network.logits(padded[_window(corner, network.plan.patch_zyx)])


def _window(corner: Sequence[int], size: Sequence[int]) -> Window:
    z, y, x = (slice(start, start + length) for start, length in zip(corner, size, strict=True))
    return z, y, x


def _parts(found: Prediction, corner: Sequence[int], seen: Window) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Labels and probabilities of the patch that begins at ``corner``, without its padding."""
    window = _window(corner, [along.stop - along.start for along in seen])
    return found.labels[window], found.probabilities[window]


def _padded(image: NDArray[Any], patch: Sequence[int]) -> tuple[NDArray[Any], Window]:
    """``image`` in the middle of zeros where it is smaller than the patch; and the part of a patch that is no padding.

    Along an axis that is padded there is but one patch, so that part is the same for all.
    """
    short = [max(length - size, 0) for size, length in zip(image.shape, patch, strict=True)]
    inside = _window([gap // 2 for gap in short], image.shape)
    seen = _window([gap // 2 for gap in short], [min(*both) for both in zip(image.shape, patch, strict=True)])
    if not any(short):
        return image, seen
    padded = np.zeros([size + gap for size, gap in zip(image.shape, short, strict=True)], image.dtype)
    padded[inside] = image
    return padded, seen


class _Sums:
    """Weighted sums of logits over a band of planes as deep as a patch, which moves down the image."""

    def __init__(self, classes: int, gaussian: Float32, image_shape: Sequence[int]) -> None:
        self._gaussian = gaussian
        self.depth = len(gaussian)
        band = (self.depth, *image_shape[1:])
        kind = np.float32 if _sum_bytes(classes * math.prod(band)) == 4 else np.float16
        self._logits: NDArray[np.floating[Any]] = np.zeros((classes, *band), kind)
        self._weights = np.zeros(band, np.float32)
        self._weighted = np.empty(gaussian.shape, np.float32)

    def add(self, logits: Float32, y: int, x: int) -> None:
        """Add a patch's ``logits`` (class, z, y, x) at row ``y`` and column ``x`` of the band."""
        window = _window((0, y, x), self._gaussian.shape)
        for own, summed in zip(logits, self._logits, strict=True):
            np.multiply(own, self._gaussian, out=self._weighted)
            summed[window] += self._weighted
        self._weights[window] += self._gaussian

    def finish(self, labels: NDArray[np.uint8], probabilities: NDArray[np.float16]) -> None:
        """Decide as many planes of the band as ``labels`` has, and move the band down by as many."""
        planes = len(labels)
        _decide(self._logits[:, :planes], self._weights[:planes], labels, probabilities)
        for held in (*self._logits, self._weights):
            held[: len(held) - planes] = held[planes:].copy()
            held[len(held) - planes :] = 0


def _decide(
    sums: NDArray[np.floating[Any]],
    weights: Float32 | None,
    labels: NDArray[np.uint8],
    probabilities: NDArray[np.float16],
) -> None:
    """Write the class of the largest of ``sums`` (class, z, y, x) and, unless it is 0, its softmax probability.

    ``sums`` divided by ``weights`` (z, y, x) are logits. A plane at a time, which stays in the processor's cache.
    """
    for plane in range(len(labels)):
        own = np.ascontiguousarray(sums[:, plane], np.float32).reshape(len(sums), -1)
        best = own[0].copy()
        winner = np.zeros(best.shape, np.uint8)
        # Many times as fast as argmax along the first axis. A later class that is better has the larger number.
        for number in range(1, len(own)):
            better = (own[number] > best).view(np.uint8)
            np.maximum(winner, better * np.uint8(number), out=winner)
            np.maximum(best, own[number], out=best)
        labels[plane] = winner.reshape(labels.shape[1:])
        named = np.flatnonzero(winner)
        below = own[:, named] - best[named]
        if weights is not None:
            below /= weights[plane].ravel()[named]
        probabilities[plane][np.unravel_index(named, labels.shape[1:])] = 1 / np.exp(below, out=below).sum(axis=0)
