"""Lengths that a header gives in another unit than millimetres."""

import numpy as np

from openscans.errors import InconsistentGeometry
from openscans.volumes.body import LARGEST_SIDE_MM, SMALLEST_SIDE_MM
from openscans.volumes.volume import Affine


def affine_in_mm(affine: Affine, *, mm_per_unit: float) -> Affine:
    """``affine``, which gives positions in a unit of its own, in millimetres.

    Raises InconsistentGeometry where a unit other than the millimetre makes voxels that no image of a patient has.
    """
    if mm_per_unit == 1:
        return affine
    # Some programs name a unit without using it; 0.7 "metres" are then no image of anybody.
    scaled = np.diag([mm_per_unit, mm_per_unit, mm_per_unit, 1.0]) @ affine
    sides_mm = np.linalg.norm(scaled[:3, :3], axis=0)
    if not (sides_mm.min() >= SMALLEST_SIDE_MM and sides_mm.max() <= LARGEST_SIDE_MM):
        told = " × ".join(f"{side:.3g}" for side in sides_mm)
        raise InconsistentGeometry(f"In the unit that the header names, a voxel would have {told} mm.")
    return scaled
