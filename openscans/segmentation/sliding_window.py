"""Which patches of an image a network computes, and from what they say the label of every voxel.

Knows numpy and nnU-Net's sliding window; not what a vertebra is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openscans.networks import Network
from openscans.progress import Report
from openscans.segmentation import blending
from openscans.segmentation.blending import (
    Float32,
    LogitAccumulator,
    RunnersUp,
    Window,
    argmax_softmax,
    join_runners_up,
    planes_of,
    window_of,
)

LEAST_CONTEXT = 1 / 8
"""How much of a patch that left nnU-Net's grid must lie around the mask's voxels: the Gaussian's sigma, within which of
its edge nnU-Net trusts a patch least. With none, trained networks gave some vertebrae a Dice of 0.98."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Prediction:
    """Per voxel (z, y, x): the ``labels`` that win, uint8, and the softmax ``probabilities`` they have, float16.

    How sure the network is of label 0 is not computed; its probability is given as 0. ``runners_up``: what comes after
    the labels that are not 0; None where nobody asked.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float16]
    runners_up: RunnersUp | None = None


@dataclass(frozen=True)
class Coverage:
    """Which patches cover an image: ``step`` · patch apart, and those alone that hold a voxel of the ``mask`` (z, y, x;
    None for all). ``follow_spine``: they may leave nnU-Net's grid to be fewer."""

    step: float
    mask: Mask | None = None
    follow_spine: bool = False

    def within(self, window: Window) -> "Coverage":
        """That of a part of the image."""
        return self if self.mask is None else replace(self, mask=self.mask[window])


@dataclass(frozen=True)
class PatchRow:
    """Patches that begin at the plane ``top``; ``corners`` are their first rows and columns (y, x)."""

    top: int
    corners: tuple[tuple[int, int], ...]


def patch_starts(size: int, patch: int, step: float) -> list[int]:
    """Where patches begin along an axis of ``size`` ≥ ``patch`` voxels: evenly, at most ``step`` · ``patch`` apart.

    nnU-Net's `compute_steps_for_sliding_window`.
    """
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    distance = (size - patch) / (count - 1) if count > 1 else 0.0
    return [int(np.round(distance * index)) for index in range(count)]


def patch_layout(mask: Mask, patch: Sequence[int], *, step: float, follow_spine: bool) -> list[PatchRow]:
    """The patches over ``mask`` (z, y, x), from the top down; nnU-Net's whole grid where all of it is set.

    A patch of the grid that holds nothing of the mask is left out, which changes nothing inside it. ``follow_spine``:
    where patches over the mask's extent are fewer than those of the grid, they take their place, row by row, so that
    they follow what runs slantwise.
    """
    rows = []
    for top in _cover(mask.any(axis=(1, 2)), patch[0], step=step, follow_spine=follow_spine):
        below = mask[top : top + patch[0]].any(axis=0)
        corners = [
            (y, x)
            for y in _cover(below.any(axis=1), patch[1], step=step, follow_spine=follow_spine)
            for x in _cover(below[y : y + patch[1]].any(axis=0), patch[2], step=step, follow_spine=follow_spine)
        ]
        if corners:
            rows.append(PatchRow(top, tuple(corners)))
    return rows


def _cover(held: Mask, patch: int, *, step: float, follow_spine: bool) -> list[int]:
    """Where patches along one axis begin that together cover all that is ``held``."""
    grid = [start for start in patch_starts(len(held), patch, step) if held[start : start + patch].any()]
    if not follow_spine or len(grid) < 2:
        return grid
    places, context = np.flatnonzero(held), round(patch * LEAST_CONTEXT)
    first = max(int(places[0]) - context, 0)
    extent = min(int(places[-1]) + 1 + context, len(held)) - first
    if extent > patch:
        own = [first + start for start in patch_starts(extent, patch, step)]
    else:
        own = [min(max(first + (extent - patch) // 2, 0), len(held) - patch)]
    return own if len(own) < len(grid) else grid


def predict(
    image: Float32, network: Network, coverage: Coverage, *, report: Report, with_runners_up: bool = False
) -> Prediction:
    """Run ``network`` over ``image`` (z, y, x), normalised, in the patches of ``coverage``.

    The image is padded with 0, centred, up to one patch. Where no patch lies the label is 0. ``report`` counts patches.
    Planes that no later patch touches become labels at once, so that memory does not grow with the number of planes.
    """
    patch = network.plan.patch_zyx
    padded, seen = _pad(image, patch)
    mask = coverage.mask
    inside = np.broadcast_to(np.True_, padded.shape) if mask is None else _pad(mask, patch)[0]
    rows = patch_layout(inside, patch, step=coverage.step, follow_spine=coverage.follow_spine)
    found = Prediction(np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.float16))
    runners_up: list[RunnersUp] | None = [] if with_runners_up else None
    total = sum(len(row.corners) for row in rows)
    if total == 0:
        return _with_runners_up(found, runners_up)
    report(0, total)
    corners = [(row.top, *corner) for row in rows for corner in row.corners]
    logits = network.logits_of_each(padded[window_of(corner, patch)] for corner in corners)
    if total == 1:
        planes = planes_of(next(logits)[(slice(None), *seen)])
        argmax_softmax(planes, *_parts(found, corners[0], seen), runners_up)
        report(1, total)
        return _with_runners_up(found, runners_up)
    held = LogitAccumulator(network.plan.architecture.heads, blending.gaussian(patch)[seen], image.shape)
    done = 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        for y, x in row.corners:
            held.add(next(logits)[(slice(None), *seen)], y, x)
            done += 1
            report(done, total)
        ready = held.depth if following is None else min(following.top - row.top, held.depth)
        part = slice(row.top, row.top + ready)
        held.finish(found.labels[part], found.probabilities[part], runners_up)
    return _with_runners_up(found, runners_up)


def _with_runners_up(found: Prediction, parts: Sequence[RunnersUp] | None) -> Prediction:
    # Planes are decided from the top down and each but once, so that the parts follow one another in C order.
    return found if parts is None else replace(found, runners_up=join_runners_up(parts))


def _parts(found: Prediction, corner: Sequence[int], seen: Window) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Labels and probabilities of the patch that begins at ``corner``, without its padding."""
    window = window_of(corner, [along.stop - along.start for along in seen])
    return found.labels[window], found.probabilities[window]


def _pad(image: NDArray[Any], patch: Sequence[int]) -> tuple[NDArray[Any], Window]:
    """``image`` in the middle of zeros where it is smaller than the patch; and the part of a patch that is no padding.

    As acvl_utils' `pad_nd_image` pads for nnU-Net, of odd paddings the greater part behind.
    Along an axis that is padded there is but one patch, so that part is the same for all.
    """
    short = [max(length - size, 0) for size, length in zip(image.shape, patch, strict=True)]
    inside = window_of([gap // 2 for gap in short], image.shape)
    seen = window_of([gap // 2 for gap in short], [min(*both) for both in zip(image.shape, patch, strict=True)])
    if not any(short):
        return image, seen
    padded = np.zeros([size + gap for size, gap in zip(image.shape, short, strict=True)], image.dtype)
    padded[inside] = image
    return padded, seen
