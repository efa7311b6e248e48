"""What an image of a patient can be, in millimetres: beyond it a header is wrong, or no spine can be seen.

Knows numbers of voxels and their sides, which every format's header tells; opens no file.
"""

import numpy as np
from numpy.typing import NDArray

from openscans.errors import InconsistentGeometry

SMALLEST_SIDE_MM, LARGEST_SIDE_MM = 0.01, 50.0
"""Of a voxel. Scanners of bone samples reach some hundredths; a scout's slices lie some centimetres apart."""

LARGEST_VOXEL_MM3 = 20.0**3
"""As much as a whole vertebra of the neck, of which a coarser image shows nothing."""

LONGEST_MM = 3000.0
"""A CT's table travels 2 to 2.3 m, and MR is put together from as much; a frame around it is let through."""

LARGEST_MM3 = 3e9
"""3000 litres. Two metres in the widest bore's field, 0.9 m across, are 1600."""

SHORTEST_MM = 15.0
"""An image that is nowhere longer shows no two vertebrae, not even of a neck."""

OTHER_UNITS = {"micrometres": 0.001, "metres": 1000.0}
"""What programs write in the place of millimetres, and do not say so."""

Lengths = NDArray[np.float64]


def check_body(shape_zyx: tuple[int, int, int], affine: NDArray[np.float64]) -> None:
    """Raises InconsistentGeometry where a patient's image cannot have so many voxels of such sides (mm)."""
    sides_mm = np.linalg.norm(affine[:3, :3], axis=0)
    counts = np.array(shape_zyx[::-1])
    fault = _fault_of(sides_mm, counts)
    if fault is None:
        return
    voxels, sides = (" × ".join(f"{value:.5g}" for value in values) for values in (counts, sides_mm))
    raise InconsistentGeometry(
        f"{fault}: the header gives {voxels} voxels of {sides} mm.", hint=_hint_of(sides_mm, counts)
    )


def _fault_of(sides_mm: Lengths, counts: NDArray[np.int_]) -> str | None:
    lengths_mm = sides_mm * counts
    if sides_mm.min() < SMALLEST_SIDE_MM:
        return "No scanner of patients makes such small voxels"
    if lengths_mm.max() > LONGEST_MM or lengths_mm.prod() > LARGEST_MM3:
        metres = " × ".join(f"{length:.3g}" for length in lengths_mm / 1000)
        return f"The image would be {metres} m large, and no patient is"
    if sides_mm.max() > LARGEST_SIDE_MM or sides_mm.prod() > LARGEST_VOXEL_MM3:
        return "The voxels are too large to show a vertebra"
    return None


def _hint_of(sides_mm: Lengths, counts: NDArray[np.int_]) -> str:
    for unit, mm in OTHER_UNITS.items():
        if _fault_of(sides_mm * mm, counts) is None and (sides_mm * mm * counts).max() >= SHORTEST_MM:
            return f"The lengths look like {unit}; save the image again with its lengths in millimetres."
    return "Check the spacing that the header gives, which must be in millimetres, or export the image again."
