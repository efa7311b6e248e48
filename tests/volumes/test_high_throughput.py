"""High-throughput JPEG 2000 is decoded by another library than the one that wrote it, and bit by bit."""

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import HTJ2K, UID, HTJ2KLossless, HTJ2KLosslessRPCL

from openscans.volumes.pixels import DECODERS


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16])
def test_noise_of_every_value_comes_back(syntax: UID, kind: type[np.integer]) -> None:
    limits = np.iinfo(kind)
    noise = np.random.default_rng(5).integers(limits.min, limits.max, (131, 70), endpoint=True, dtype=kind)
    np.testing.assert_array_equal(DECODERS[syntax](imagecodecs.htj2k_encode(noise)), noise)
