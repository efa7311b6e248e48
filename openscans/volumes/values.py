"""Stored values become HU, or the vendor's unit, in the narrowest type that holds a whole image; numpy only."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openscans.errors import CorruptFile, OutOfMemory

Plane: TypeAlias = NDArray[Any]
"""One slice's values, (y, x)."""

Voxels: TypeAlias = NDArray[Any]
"""A whole image, (z, y, x)."""

Kind: TypeAlias = type[np.int16] | type[np.int32] | type[np.float32]

KINDS: tuple[Kind, ...] = (np.int16, np.int32, np.float32)
"""The types of an image, from narrow to wide; nearly every CT is held by the first, in half the memory."""

LARGEST_SLOPE, LARGEST_INTERCEPT = 2**14, 2**30
"""16-bit stored values with these still fit 32 bits, so whole numbers need no floating point."""


LARGEST_VALUE = 1e30
"""Beyond any unit. Nearer to the end of float32, differences of two voxels would be infinite."""


@dataclass(frozen=True)
class Rescale:
    """Stored value · slope + intercept = HU (CT) or the vendor's unit (MR): PS3.3 C.11.1, units C.11.1.1.2.

    ``told``: the header has one of the two; else values are taken as they are stored. ``unit``: RescaleType.
    """

    slope: float = 1.0
    intercept: float = 0.0
    told: bool = True
    unit: str = field(default="", compare=False)

    def apply(self, stored: Plane) -> Plane:
        """The values that ``stored`` means: whole numbers where that is sure, else float64. Raises CorruptFile."""
        if self.slope == 0:
            raise CorruptFile("The header multiplies all values by zero.")
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored
        if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2 and self._is_whole():
            if self.slope == 1 and self._fits_16_bits(stored):
                # Sums of 16 bits come round to the right one, where that fits.
                return stored.astype(np.int16) + np.array(self.intercept, np.int64).astype(np.int16)
            values = stored.astype(np.int32)
            if self.slope != 1:
                values *= int(self.slope)
            values += int(self.intercept)
            return values
        return stored.astype(np.float64) * self.slope + self.intercept

    @property
    def stays_narrow(self) -> bool:
        """Whether values of 16 bits most likely keep to 16 bits, as the headers tell."""
        return self._is_whole() and abs(self.slope) == 1

    def _fits_16_bits(self, stored: Plane) -> bool:
        lowest, highest = int(stored.min()) + self.intercept, int(stored.max()) + self.intercept
        limits = np.iinfo(np.int16)
        return limits.min <= lowest and highest <= limits.max

    def _is_whole(self) -> bool:
        return (
            self.slope.is_integer()
            and self.intercept.is_integer()
            and abs(self.slope) <= LARGEST_SLOPE
            and abs(self.intercept) <= LARGEST_INTERCEPT
        )


@dataclass(frozen=True)
class ModalityLut:
    """A table that gives each stored value's meaning in the place of a `Rescale`: PS3.3 C.11.1.1.

    ``entries[0]`` is meant by ``first`` and all values below, the last entry by all that are beyond the table.
    ``unit``: ModalityLUTType.
    """

    first: int
    entries: NDArray[np.uint16]
    unit: str = ""

    def apply(self, stored: Plane) -> Plane:
        """The values that ``stored`` means, uint16."""
        return self.entries[np.clip(stored.astype(np.int64) - self.first, 0, len(self.entries) - 1)]

    @property
    def stays_narrow(self) -> bool:
        return bool(self.entries.max() <= np.iinfo(np.int16).max)


def allocate(shape_zyx: tuple[int, ...]) -> Voxels:
    """An array to read into, of the narrowest kind. Raises OutOfMemory with the figures."""
    try:
        return np.empty(shape_zyx, KINDS[0])
    except MemoryError as error:
        size_gb = int(np.prod(shape_zyx, dtype=np.int64)) * np.dtype(KINDS[0]).itemsize / 1e9
        raise OutOfMemory(f"The image alone needs {size_gb:.1f} GB, which are not free.") from error


def widen(voxels: Voxels, plane: Plane) -> Voxels:
    """``voxels``, widened where they cannot hold ``plane``. Raises CorruptFile where it holds NaN or infinity."""
    return voxels.astype(_kind_for(plane, at_least=KINDS.index(voxels.dtype.type)), copy=False)


def narrow(values: Voxels) -> Voxels:
    """``values`` in the narrowest of the kinds; not copied where they are. Raises CorruptFile as `widen`."""
    narrowest = 0
    for plane in values:
        narrowest = KINDS.index(_kind_for(plane, at_least=narrowest))
    return values.astype(KINDS[narrowest], copy=False)


def _kind_for(plane: Plane, *, at_least: int) -> Kind:
    # NaN is no less than anything.
    if plane.dtype.kind == "f" and not (np.abs(plane) <= LARGEST_VALUE).all():
        raise CorruptFile(
            "The image holds values that are no numbers, or beyond 1e30.", hint="Replace NaN and infinity by -1024."
        )
    return next(kind for kind in KINDS[at_least:] if _holds(kind, plane))


def _holds(kind: Kind, plane: Plane) -> bool:
    if kind is np.float32 or np.can_cast(plane.dtype, kind):
        return True
    limits = np.iinfo(np.dtype(kind).name)
    fits = bool(plane.min() >= limits.min and plane.max() <= limits.max)
    return fits and (plane.dtype.kind in "iub" or np.array_equal(plane, np.trunc(plane)))
