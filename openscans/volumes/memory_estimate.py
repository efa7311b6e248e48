"""How much memory a series takes, reckoned from headers before a pixel is read, and its refusal where that is short."""

import math
from pathlib import Path

from openscans.errors import InputNotFound
from openscans.system import memory
from openscans.volumes.geometry import Stack

NARROW_BYTES, WIDE_BYTES = 2, 4
"""Of a voxel in the narrowest and in the widest of `values.KINDS`."""

WAY_BYTES = 2 + 8
"""Of a pixel on its way: as it is stored, and rescaled in float64 where slopes have fractions."""


def check_memory(stack: Stack, *, at_once: int) -> None:
    """Raises OutOfMemory where the volume of ``stack`` does not fit. ``at_once``: slices on their way together."""
    narrow = all(one.rescale.stays_narrow for one in stack.slices)
    # Where a later slice needs a wider type, the image is there twice for a moment.
    need_bytes = math.prod(stack.shape_zyx) * (NARROW_BYTES if narrow else NARROW_BYTES + WIDE_BYTES)
    _, rows, columns = stack.shape_zyx
    need_bytes += min(len(stack.slices), at_once) * rows * columns * WAY_BYTES
    if stack.stored is not None:
        need_bytes += math.prod(stack.stored.shape_zyx) * (NARROW_BYTES if narrow else WIDE_BYTES)
    memory.check_free(need_bytes + _largest_file({one.file for one in stack.slices}), "The image")


def _largest_file(files: set[Path]) -> int:
    """A file of many frames is held as a whole. Raises InputNotFound where one has gone meanwhile."""
    try:
        return max(file.stat().st_size for file in files)
    except OSError as error:
        raise InputNotFound("A file of the series has gone or cannot be read.") from error
