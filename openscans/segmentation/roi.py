"""Where along the spine the fine network has to look: what the coarse one found, grown by a margin.

Knows grids and label maps; nothing of files, networks or patches.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation import grids, vertebrae
from openscans.segmentation.resampling import resample_mask
from openscans.types import Bounds, Voxel
from openscans.volumes import Affine

BOX_MARGIN_MM = 20.0
"""Added on every side of the spine's box, as TotalSegmentator adds it for a subset of its classes (`python_api`)."""

SPINE_MARGIN_MM = 20.0
"""Around each vertebra that the coarse network found. Its voxels are 6 mm wide and miss the thin ends of processes; a
whole vertebra that it misses is less than 40 mm high and closed by its neighbours' margins."""


@dataclass(frozen=True)
class SpineRoi:
    """A spine's ``box`` with its margin, in the volume's voxels, and the ``mask`` (z, y, x) of its way on ``grid``.

    ``follow_spine``: patches may be laid along it, where that takes fewer than nnU-Net's grid over the box.
    """

    box: Bounds
    mask: NDArray[np.bool_]
    grid: grids.ModelGrid
    follow_spine: bool = False

    def on(self, grid: grids.ModelGrid) -> NDArray[np.bool_]:
        """The mask on another grid of the same image."""
        return resample_mask(self.mask, self.grid, grid)


def spine_roi(found: vertebrae.LabelMap, affine_lps: Affine, size: Voxel) -> SpineRoi | None:
    """Where the spine lies in a coarse label map of an image of ``size``; None where there is no vertebra."""
    extent = vertebrae.extent(found)
    if extent is None:
        return None
    box = grids.grow_box(extent, affine_lps, margin_mm=BOX_MARGIN_MM, size=size)
    reach = [ceil(SPINE_MARGIN_MM / spacing) for spacing in reversed(grids.sample_spacing_mm(found.grid, affine_lps))]
    return SpineRoi(box, _dilate(found.spine, reach), found.grid)


def join_rois(one: SpineRoi, other: SpineRoi) -> SpineRoi:
    """All that either holds, of the same image, on the grid of ``one``."""
    low = Voxel(*map(min, astuple(one.box.min), astuple(other.box.min)))
    high = Voxel(*map(max, astuple(one.box.max), astuple(other.box.max)))
    return replace(one, box=Bounds(low, high), mask=one.mask | other.on(one.grid))


def _dilate(mask: NDArray[np.bool_], reach_zyx: Sequence[int]) -> NDArray[np.bool_]:
    """``mask`` grown by a box of ``reach_zyx`` samples on either side."""
    for axis, reach in enumerate(reach_zyx):
        along = np.moveaxis(mask, axis, 0)
        grown = along.copy()
        for distance in range(1, min(reach, len(along) - 1) + 1):
            grown[distance:] |= along[:-distance]
            grown[:-distance] |= along[distance:]
        mask = np.moveaxis(grown, 0, axis)
    return mask
