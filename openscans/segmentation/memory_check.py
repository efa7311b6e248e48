"""Refuses a detection that does not fit into memory: before its image is read, and again before the fine network runs.

Knows how large the arrays of each step become, and asks a network's engine for the rest; neither files nor voxels.
Reckons the least that is needed for sure, so that nothing is refused that could have been done.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from openscans import networks
from openscans.segmentation import grids
from openscans.segmentation.blending import sum_type
from openscans.segmentation.sliding_window import patch_starts
from openscans.system import memory
from openscans.types import Bounds, Voxel
from openscans.volumes import Affine, Extent

VOXEL_BYTES = 2
"""Of the image as it is held while networks run, at least (int16)."""

FLOAT_BYTES = 4

FOUND_BYTES = 1 + 2
"""Of a voxel's label and probability."""

SAMPLE_BYTES = FLOAT_BYTES + FLOAT_BYTES + FOUND_BYTES
"""Of a voxel at a network's spacing: its value, the same normalised, and what becomes its label and probability."""


@dataclass(frozen=True)
class NetworkRun:
    """One network's part in a detection. ``held``: it has run before, and keeps what a patch takes."""

    plan: networks.Plan
    device: str
    step: float
    held: bool


def check_detection(extent: Extent, localiser: NetworkRun | None, segmenter: NetworkRun) -> None:
    """Raises OutOfMemory where an image of ``extent`` cannot be held and run through the networks.

    How much of it the segmenter will see is not known where a localiser goes first; then its one patch counts.
    """
    z, y, x = extent.shape_zyx
    whole = grids.whole_box(Voxel(x, y, z))
    first = localiser or segmenter
    first_bytes = _network_bytes(first) + _arrays_bytes(first, whole, extent.affine_lps)
    # What the localiser takes it lets go before the segmenter computes.
    need_bytes = math.prod(extent.shape_zyx) * VOXEL_BYTES + max(first_bytes, _network_bytes(segmenter))
    memory.check_free(need_bytes, "The detection")


def check_networks(runs: Sequence[NetworkRun]) -> None:
    """Raises OutOfMemory where there is no room for networks that are wanted before any image is there."""
    memory.check_free(sum(map(_network_bytes, runs)), "Loading the networks early")


def check_run(run: NetworkRun, box: Bounds, affine_lps: Affine) -> None:
    """Raises OutOfMemory where a network cannot run over ``box`` of an image that has been read."""
    # The network's own memory was reckoned before it was loaded; since then some of it is taken, and nobody tells how
    # much.
    memory.check_free(_arrays_bytes(run, box, affine_lps), "The detection")


def check_further_run(run: NetworkRun, box: Bounds, affine_lps: Affine) -> None:
    """As `check_run`, of a network that is loaded only now."""
    memory.check_free(_network_bytes(run) + _arrays_bytes(run, box, affine_lps), "Looking again")


def _arrays_bytes(run: NetworkRun, box: Bounds, affine_lps: Affine) -> int:
    z_mm, y_mm, x_mm = run.plan.spacing_zyx_mm
    shape_zyx = grids.model_grid(affine_lps, box, (x_mm, y_mm, z_mm)).shape_zyx
    return math.prod(shape_zyx) * SAMPLE_BYTES + window_bytes(shape_zyx, run.plan, step=run.step)


def window_bytes(shape_zyx: Sequence[int], plan: networks.Plan, *, step: float) -> int:
    """What `sliding_window.predict` takes for an image of ``shape_zyx`` without a mask.

    That is labels and probabilities, a padded copy where the image is smaller than a patch, and the sums of logits;
    beside the image and the network.
    """
    voxels = math.prod(shape_zyx)
    padded = [max(*both) for both in zip(shape_zyx, plan.patch_zyx, strict=True)]
    padded_bytes = math.prod(padded) * FLOAT_BYTES if math.prod(padded) > voxels else 0
    return voxels * FOUND_BYTES + padded_bytes + _accumulator_bytes(shape_zyx, plan, step)


def _accumulator_bytes(shape_zyx: Sequence[int], plan: networks.Plan, step: float) -> int:
    """What `blending.LogitAccumulator` holds: for each plane of its band the sums of all classes, and their weights."""
    padded = [max(*both) for both in zip(shape_zyx, plan.patch_zyx, strict=True)]
    tops, *across = (patch_starts(size, length, step) for size, length in zip(padded, plan.patch_zyx, strict=True))
    depth = min(shape_zyx[0], plan.patch_zyx[0])
    plane_voxels = math.prod(shape_zyx[1:])
    plane_values = plan.architecture.heads * plane_voxels
    plane_bytes = plane_values * np.dtype(sum_type(depth * plane_values)).itemsize + plane_voxels * FLOAT_BYTES
    if all(len(places) == 1 for places in across):
        # Only planes that two patches share are summed.
        depth -= min((second - first for first, second in pairwise(tops)), default=depth)
    return depth * plane_bytes


def _network_bytes(run: NetworkRun) -> int:
    return 0 if run.held else networks.patch_bytes(run.plan, run.device)
