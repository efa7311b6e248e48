"""The voxel grids of scans of a phantom, and where their voxels lie in the patient (LPS, mm).

Knows affines and boxes; nothing of what is drawn on a grid.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from phantom.spine import Phantom

Affine = NDArray[np.float64]
Box = tuple[slice, slice, slice]
Float32 = NDArray[np.float32]
Shape = tuple[int, int, int]

SLAB_VOXELS = 4_000_000
"""The background is drawn in slabs of about so many voxels, so that temporary arrays stay small."""


def axial(phantom: Phantom, spacing_mm: Sequence[float]) -> tuple[Shape, Affine]:
    """Shape (z, y, x) and affine (x, y, z → LPS) of an axial scan from below the phantom to above it."""
    center = np.mean([level.center_mm for level in phantom.levels], axis=0)
    low = np.array([center[0] - 115, center[1] - 125, phantom.bottom_mm - 5])
    high = np.array([center[0] + 115, center[1] + 75, phantom.top_mm + 5])
    counts = np.ceil((high - low) / spacing_mm).astype(int) + 1
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = low
    return (int(counts[2]), int(counts[1]), int(counts[0])), affine


def turned(phantom: Phantom, spacing_mm: Sequence[float], angles_deg: Sequence[float]) -> tuple[Shape, Affine]:
    """`axial` turned about its middle by ``angles_deg`` about patient x, y and z, and grown to hold the spine."""
    shape, affine = axial(phantom, spacing_mm)
    middle = affine @ (*((np.array(shape[::-1]) - 1) / 2), 1.0)
    columns = _turn(angles_deg) @ affine[:3, :3]
    corners = [
        np.linalg.solve(columns, level.center_mm + axis * sign * (level.reach_mm + 10) - middle[:3])
        for level in phantom.levels
        for axis in np.eye(3)
        for sign in (-1, 1)
    ]
    half = np.maximum(np.abs(corners).max(axis=0), (np.array(shape[::-1]) - 1) / 2 * (1, 1, 0))
    counts = np.ceil(2 * half).astype(int) + 1
    return _around(middle[:3], counts, columns)


def sagittal(
    phantom: Phantom,
    in_plane_mm: float,
    between_mm: float,
    *,
    width_mm: float = 96.0,
    angles_deg: Sequence[float] = (0, 0, 0),
) -> tuple[Shape, Affine]:
    """A scan in sagittal slices ``between_mm`` apart over ``width_mm`` about the spine, turned as `turned` turns.

    The axes are those of `axial`: the slices lie along x.
    """
    shape, affine = axial(phantom, (between_mm, in_plane_mm, in_plane_mm))
    middle = (affine @ (*((np.array(shape[::-1]) - 1) / 2), 1.0))[:3]
    middle[0] = np.mean([level.center_mm[0] for level in phantom.levels])
    counts = np.array([round(width_mm / between_mm) + 1, shape[1], shape[0]])
    return _around(middle, counts, _turn(angles_deg) @ affine[:3, :3])


def _turn(angles_deg: Sequence[float]) -> NDArray[np.float64]:
    """The rotation by ``angles_deg`` about x, then y, then z."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(angles_deg)):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[one, one] = step[other, other] = np.cos(angle)
        step[other, one], step[one, other] = np.sin(angle), -np.sin(angle)
        turn = step @ turn
    return turn


def _around(
    middle_mm: NDArray[np.float64], counts_xyz: NDArray[np.int_], columns: NDArray[np.float64]
) -> tuple[Shape, Affine]:
    """The grid of so many voxels, with these steps from one to the next, about ``middle_mm``."""
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = middle_mm - columns @ ((counts_xyz - 1) / 2)
    x, y, z = (int(count) for count in counts_xyz)
    return (z, y, x), affine


def slabs(shape_zyx: Shape) -> Iterator[Box]:
    planes = max(SLAB_VOXELS // (shape_zyx[1] * shape_zyx[2]), 1)
    for start in range(0, shape_zyx[0], planes):
        yield slice(start, min(start + planes, shape_zyx[0])), slice(0, shape_zyx[1]), slice(0, shape_zyx[2])


def positions(box: Box, shape_zyx: Shape, affine_lps: Affine) -> Float32:
    """(3, z, y, x): the LPS position of each voxel in ``box``."""
    z, y, x = (np.arange(*along.indices(size), dtype=np.float32) for along, size in zip(box, shape_zyx, strict=True))
    matrix = affine_lps.astype(np.float32)
    return np.stack(
        [
            matrix[row, 0] * x + matrix[row, 1] * y[:, None] + matrix[row, 2] * z[:, None, None] + matrix[row, 3]
            for row in range(3)
        ]
    )


def box_around(center_mm: NDArray[np.float64], reach_mm: float, shape_zyx: Shape, affine_lps: Affine) -> Box | None:
    inverse = np.linalg.inv(affine_lps)
    middle = (inverse @ (*center_mm, 1.0))[:3]
    reach = np.linalg.norm(inverse[:3, :3], axis=1) * reach_mm
    slices = []
    for axis, size in zip((2, 1, 0), shape_zyx, strict=True):
        start, stop = int(np.floor(middle[axis] - reach[axis])), int(np.ceil(middle[axis] + reach[axis])) + 1
        if stop <= 0 or start >= size:
            return None
        slices.append(slice(max(start, 0), min(stop, size)))
    return slices[0], slices[1], slices[2]
