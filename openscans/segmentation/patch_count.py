"""How many patches a detection will compute, from an image's extent: at most, or before the spine is found, about.

And its refusal where they are more than any body needs, so that no image holds the queue for hours.

Knows grids and nnU-Net's sliding window; neither voxels nor networks.
"""

import math

from openscans import networks
from openscans.errors import InconsistentGeometry
from openscans.segmentation import grids
from openscans.segmentation.sliding_window import patch_starts
from openscans.types import Bounds, Voxel
from openscans.volumes import Affine, Extent

SPINE_ACROSS_MM = 180.0
"""Of a spine's box with its margin (`roi.BOX_MARGIN_MM`), to the side and from front to back: a vertebra is up to
100 mm wide, and an adult's curves take some 130 mm from front to back."""

SPINE_LENGTH_MM = 750.0
"""From the skull to the sacrum's end, with its margin, of a tall adult."""

MOST_SAMPLES = 2 * 10**9
"""In all patches of one network. Two metres of a body in a field of half a metre are 1.1 · 10⁹ of the MR network's,
whose patches overlap most: half an hour on two cores."""


def check_patches(plan: networks.Plan, box: Bounds, affine_lps: Affine, *, step: float) -> None:
    """Raises InconsistentGeometry where ``box`` of a volume takes more patches than a body does."""
    patches = _count(plan, box, affine_lps, step)
    if patches * math.prod(plan.patch_zyx) > MOST_SAMPLES:
        raise InconsistentGeometry(
            f"The image is so large that a network would compute {patches} pieces of it, more than a body takes.",
            hint="Send a smaller part of the image, such as the spine with a margin.",
        )


def count_patches(plan: networks.Plan, extent: Extent, *, step: float) -> int:
    """The patches of nnU-Net's grid over the whole image; a network that passes over air computes fewer."""
    z, y, x = extent.shape_zyx
    return _count(plan, grids.whole_box(Voxel(x, y, z)), extent.affine_lps, step)


def count_spine_patches(plan: networks.Plan, extent: Extent, *, step: float) -> int:
    """About the patches around the spine of an image that shows nothing else of the body than usual.

    A narrow image is taken to hold a spine along the whole of its head-to-foot axis.
    """
    z, y, x = extent.shape_zyx
    head_to_foot = grids.model_grid(extent.affine_lps, grids.whole_box(Voxel(x, y, z)), (1.0, 1.0, 1.0)).z.source
    limits_mm = [SPINE_LENGTH_MM if axis == head_to_foot else SPINE_ACROSS_MM for axis in range(3)]
    sizes = [
        max(min(size, math.ceil(limit_mm / spacing_mm)), 1)
        for size, limit_mm, spacing_mm in zip((x, y, z), limits_mm, grids.spacing_mm(extent.affine_lps), strict=True)
    ]
    return _count(plan, grids.whole_box(Voxel(*sizes)), extent.affine_lps, step)


def _count(plan: networks.Plan, box: Bounds, affine_lps: Affine, step: float) -> int:
    z_mm, y_mm, x_mm = plan.spacing_zyx_mm
    shape_zyx = grids.model_grid(affine_lps, box, (x_mm, y_mm, z_mm)).shape_zyx
    starts = (
        patch_starts(max(size, patch), patch, step) for size, patch in zip(shape_zyx, plan.patch_zyx, strict=True)
    )
    return math.prod(len(places) for places in starts)
