"""How much memory reading takes, for every kind of file, and its refusal where less is free.

Knows sizes that headers tell, before a voxel is read; opens no file. Each estimate is one small function, called by
whoever is about to read. All raise OutOfMemory.
"""

import math

import numpy as np
from numpy.typing import DTypeLike

from openscans.system import memory
from openscans.volumes.values import KINDS

NARROW_BYTES, WIDE_BYTES = np.dtype(KINDS[0]).itemsize, np.dtype(KINDS[-1]).itemsize
"""Of a voxel in the narrowest and in the widest of `values.KINDS`."""

PENDING_PIXEL_BYTES = 2 + 8
"""Of a pixel that waits for its place: as it is stored, and rescaled in float64 where slopes have fractions."""

ITK_VOXEL_BYTES = 2 * 8
"""At most 8 as they are stored, and a copy of them as an array."""

INFLATED_COPIES = 2
"""pydicom unpacks into one piece of memory and copies it into another."""


def check_series(
    image_zyx: tuple[int, int, int],
    *,
    resampled_zyx: tuple[int, int, int] | None,
    narrow: bool,
    at_once: int,
    kept_file_bytes: int,
) -> None:
    """Whether a series of ``image_zyx`` (slices, rows, columns) fits, and the volume resampled from it, if any.

    ``narrow``: the headers tell that 16 bits hold all values. ``at_once``: decoded slices that wait for their place
    together. ``kept_file_bytes``: of files that are held at one time, as one of many frames is held as a whole.
    """
    slices, rows, columns = image_zyx
    # Where a later slice needs a wider type, the image is there twice for a moment.
    need_bytes = math.prod(image_zyx) * (NARROW_BYTES if narrow else NARROW_BYTES + WIDE_BYTES)
    need_bytes += min(slices, at_once) * rows * columns * PENDING_PIXEL_BYTES
    if resampled_zyx is not None:
        need_bytes += math.prod(resampled_zyx) * (NARROW_BYTES if narrow else WIDE_BYTES)
    memory.check_free(need_bytes + kept_file_bytes, "The image")


def check_nifti(shape: tuple[int, ...], dtype: DTypeLike, *, resampled_zyx: tuple[int, int, int] | None) -> None:
    """Whether ``shape`` voxels fit, stored as ``dtype``: these and, at worst, their values in the widest kind.

    And the volume resampled from them, if any.
    """
    need_bytes = math.prod(shape) * (np.dtype(dtype).itemsize + WIDE_BYTES)
    memory.check_free(need_bytes + _resampled_bytes(resampled_zyx), "The image")


def check_itk(shape: tuple[int, ...], *, resampled_zyx: tuple[int, int, int] | None) -> None:
    """Whether ``shape`` voxels fit, which SimpleITK reads and hands over as a copy, and what is resampled of them."""
    memory.check_free(math.prod(shape) * ITK_VOXEL_BYTES + _resampled_bytes(resampled_zyx), "The image")


def _resampled_bytes(volume_zyx: tuple[int, int, int] | None) -> int:
    return 0 if volume_zyx is None else math.prod(volume_zyx) * WIDE_BYTES


def check_inflated(unpacked_bytes: int) -> None:
    """Whether a deflated DICOM file fits that has ``unpacked_bytes`` when it is unpacked."""
    memory.check_free(INFLATED_COPIES * unpacked_bytes, "The unpacked file")
