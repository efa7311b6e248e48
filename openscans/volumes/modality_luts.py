"""A DICOM file's table of what its stored values mean, in the place of slope and intercept (PS3.3 C.11.1)."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from openscans.volumes.elements import Elements
from openscans.volumes.header_values import Fault, MalformedValue
from openscans.volumes.values import ModalityLut

BROKEN_LUT = Fault("has a modality LUT that is incomplete or malformed")

LUTS_KEPT = 4
"""Different tables that are held once for all slices that share them: one has up to 128 KB, and most series one."""


def modality_lut(item: Dataset, elements: Elements) -> ModalityLut:
    """Raises MalformedValue where the table is not as long as it says, or says nothing."""
    order = "<" if elements.little_endian else ">"
    try:
        said, first, bits = _words(item.get("LUTDescriptor"), order)
        data = item.get("LUTData")
        # 2**16 entries, which 16 bits cannot tell, are said to be none (PS3.3 C.11.1.1.1).
        count = int(said) or 2**16
        # Entries of 8 bits lie in bytes or, as those of 16, in words.
        packed = bits == 8 and isinstance(data, bytes) and len(data) < 2 * count
        entries = np.frombuffer(data, np.uint8) if packed else _words(data, order)
        signed = int((elements.bits or {}).get("PixelRepresentation") or 0) == 1
    except (TypeError, ValueError) as error:
        raise MalformedValue(BROKEN_LUT) from error
    if len(entries) < count:
        raise MalformedValue(BROKEN_LUT)
    unit = str(item.get("ModalityLUTType") or "").strip().upper()
    first_mapped = int(first.astype(np.int16) if signed else first)
    return _kept_lut(first_mapped, entries[:count].astype(np.uint16).tobytes(), unit)


@lru_cache(LUTS_KEPT)
def _kept_lut(first: int, entries: bytes, unit: str) -> ModalityLut:
    return ModalityLut(first, np.frombuffer(entries, np.uint16), unit)


def _words(value: Any, order: str) -> NDArray[np.uint16]:  # noqa: ANN401 - bytes, one number, or a list of them
    """Words of 16 bits, which pydicom leaves as bytes in the file's ``order`` where it cannot tell what they are."""
    if isinstance(value, bytes):
        return np.frombuffer(value, f"{order}u2").astype(np.uint16)
    return np.atleast_1d(np.array(value, np.int64)).astype(np.uint16)
