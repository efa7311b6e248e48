"""Where along the spine the fine network has to look: what the coarse one found, grown by a margin.

Knows grids and label maps; nothing of files, networks or patches.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

import grids
import vertebrae
from findings import Bounds, Voxel

BOX_MARGIN_MM = 20.0
"""Added on every side of the spine's box, as TotalSegmentator adds it for a subset of its classes (`python_api`)."""

COURSE_MARGIN_MM = 20.0
"""Around each vertebra that the coarse network found. Its voxels are 6 mm wide and miss the thin ends of processes; a
whole vertebra that it misses is less than 40 mm high and closed by its neighbours' margins."""


@dataclass(frozen=True)
class Course:
    """A spine's ``box`` with its margin, in the client's voxels, and the ``mask`` (z, y, x) of its way on ``grid``."""

    box: Bounds
    mask: NDArray[np.bool_]
    grid: grids.ModelGrid

    def on(self, grid: grids.ModelGrid) -> NDArray[np.bool_]:
        """The mask on another grid of the same image."""
        return grids.carried(self.mask, self.grid, grid)


def course_of(found: vertebrae.LabelMap, affine_lps: grids.Affine, size: Voxel) -> Course | None:
    """The course of the spine in a coarse label map of an image of ``size``; None where there is no vertebra."""
    extent = vertebrae.extent(found)
    if extent is None:
        return None
    box = grids.grown(extent, affine_lps, margin_mm=BOX_MARGIN_MM, size=size)
    reach = [ceil(COURSE_MARGIN_MM / spacing) for spacing in reversed(grids.sample_spacing_mm(found.grid, affine_lps))]
    return Course(box, grids.thickened(found.spine, reach), found.grid)
