"""Which patches of an image a network computes, how their logits are weighted and summed, and what label wins.

Knows numpy and nnU-Net's sliding window; not what a vertebra is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from networks import Network
from progress import Report

GAUSSIAN_PEAK = 10.0
"""nnU-Net scales its weights so, that small ones survive float16 (`predict_from_raw_data`)."""

GAUSSIAN_REACH = 4.0
"""scipy's gaussian_filter, which nnU-Net uses, ends after so many standard deviations."""

LARGEST_FLOAT32_BYTES = 2**30
"""Sums that would take more are kept in float16, as nnU-Net keeps all of them, which rounds logits to whole numbers
at the image's corners, where a patch weighs least."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """Per voxel (z, y, x): the ``labels`` that win, uint8, and the softmax ``probabilities`` they have, float16."""

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float16]


def starts(size: int, patch: int, step: float) -> list[int]:
    """Where patches begin along an axis of ``size`` ≥ ``patch`` voxels: evenly, at most ``step`` · ``patch`` apart.

    nnU-Net's `compute_steps_for_sliding_window`.
    """
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    distance = (size - patch) / (count - 1) if count > 1 else 0.0
    return [int(np.round(distance * index)) for index in range(count)]


def gaussian(patch_zyx: Sequence[int]) -> Float32:
    """The weight of each voxel of a patch: a Gaussian of sigma = patch / 8 about the voxel patch // 2, nowhere 0.

    nnU-Net's `compute_gaussian`, rounded to float16 as there.
    """
    weights = np.ones((1, 1, 1))
    for axis, size in enumerate(patch_zyx):
        weights = weights * _bell(size).reshape([-1 if other == axis else 1 for other in range(3)])
    rounded: NDArray[np.float16] = (weights / np.max(weights) * GAUSSIAN_PEAK).astype(np.float16)
    rounded[rounded == 0] = np.min(rounded[rounded > 0])
    return rounded.astype(np.float32)


def _bell(size: int) -> NDArray[np.float64]:
    sigma = size / 8
    reach = int(GAUSSIAN_REACH * sigma + 0.5)
    distance = np.arange(size) - size // 2
    return np.where(np.abs(distance) <= reach, np.exp(-0.5 * (distance / sigma) ** 2), 0.0)


def predict(image: Float32, network: Network, *, step: float, report: Report) -> Prediction:
    """Run ``network`` over ``image`` (z, y, x), normalised, in patches ``step`` · patch apart.

    The image is padded with 0, centred, up to one patch. ``report`` counts patches. Planes that no later patch
    touches become labels at once, so that memory does not grow with the number of planes.
    """
    patch = network.plan.patch_zyx
    padded, inside = _padded(image, patch)
    rows = [starts(size, length, step) for size, length in zip(padded.shape, patch, strict=True)]
    total = len(rows[0]) * len(rows[1]) * len(rows[2])
    report(0, total)
    labels = np.empty(padded.shape, np.uint8)
    probabilities = np.empty(padded.shape, np.float16)
    if total == 1:
        _decide(network.logits(padded), labels, probabilities)
        report(1, total)
        return Prediction(labels[inside], probabilities[inside])
    sums = _Sums(network.plan.architecture.heads, patch, padded.shape)
    done = 0
    for top, below in zip(rows[0], [*rows[0][1:], padded.shape[0]], strict=True):
        for y, x in product(rows[1], rows[2]):
            part = padded[top : top + patch[0], y : y + patch[1], x : x + patch[2]]
            sums.add(network.logits(part), y, x)
            done += 1
            report(done, total)
        ready = slice(top, below)
        sums.finish(below - top, labels[ready], probabilities[ready])
    return Prediction(labels[inside], probabilities[inside])


def _padded(image: Float32, patch: Sequence[int]) -> tuple[Float32, tuple[slice, ...]]:
    """``image`` in the middle of zeros where it is smaller than the patch, and where it lies there."""
    short = [max(length - size, 0) for size, length in zip(image.shape, patch, strict=True)]
    inside = tuple(slice(gap // 2, gap // 2 + size) for gap, size in zip(short, image.shape, strict=True))
    if not any(short):
        return image, inside
    padded = np.zeros([size + gap for size, gap in zip(image.shape, short, strict=True)], np.float32)
    padded[inside] = image
    return padded, inside


class _Sums:
    """Weighted sums of logits over a band of planes as deep as a patch, which moves down the image."""

    def __init__(self, classes: int, patch: Sequence[int], image_shape: Sequence[int]) -> None:
        self._patch = tuple(patch)
        self._gaussian = gaussian(patch)
        band = (patch[0], *image_shape[1:])
        small_enough = classes * int(np.prod(band)) * 4 <= LARGEST_FLOAT32_BYTES
        self._logits = np.zeros((classes, *band), np.float32 if small_enough else np.float16)
        self._weights = np.zeros(band, np.float32)
        self._weighted = np.empty(self._patch, np.float32)

    def add(self, logits: Float32, y: int, x: int) -> None:
        """Add a patch's ``logits`` (class, z, y, x) at row ``y`` and column ``x`` of the band."""
        window = (slice(None), slice(y, y + self._patch[1]), slice(x, x + self._patch[2]))
        for own, summed in zip(logits, self._logits, strict=True):
            np.multiply(own, self._gaussian, out=self._weighted)
            summed[window] += self._weighted
        self._weights[window] += self._gaussian

    def finish(self, planes: int, labels: NDArray[np.uint8], probabilities: NDArray[np.float16]) -> None:
        """Decide the first ``planes`` of the band, which no later patch touches, and move the band down by as many."""
        for plane in range(planes):
            # One at a time: float32 logits of many wide planes would take more than the band itself.
            one = slice(plane, plane + 1)
            _decide(self._logits[:, one] / self._weights[one], labels[one], probabilities[one])
        for held in (*self._logits, self._weights):
            held[: len(held) - planes] = held[planes:].copy()
            held[len(held) - planes :] = 0


def _decide(logits: NDArray[np.floating[Any]], labels: NDArray[np.uint8], probabilities: NDArray[np.float16]) -> None:
    """Write the class of the largest of ``logits`` (class, z, y, x) and its softmax probability, plane by plane."""
    for plane in range(logits.shape[1]):
        own = logits[:, plane].astype(np.float32)
        labels[plane] = own.argmax(axis=0)
        own -= own.max(axis=0)
        np.exp(own, out=own)
        probabilities[plane] = 1 / own.sum(axis=0)
