"""How nnU-Net brings an image's intensities to those that a network was trained on; knows arrays only."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

SMALLEST_STD = 1e-8
"""nnU-Net divides by no less (`default_normalization_schemes`)."""


@dataclass(frozen=True)
class CTNormalisation:
    """nnU-Net's CTNormalization: the intensities of the training data's foreground, in HU."""

    low: float
    high: float
    mean: float
    std: float

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        result = np.clip(image, np.float32(self.low), np.float32(self.high))
        result -= np.float32(self.mean)
        result /= np.float32(max(self.std, SMALLEST_STD))
        return result


@dataclass(frozen=True)
class ZScoreNormalisation:
    """nnU-Net's ZScoreNormalization: mean 0 and deviation 1 over the image itself.

    ``nonzero_only`` leaves the zeros around the body out of both, and at zero (nnU-Net's use_mask_for_norm).
    """

    nonzero_only: bool = False

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.nonzero_only:
            return _standardise(image)
        body = fill_holes(image != 0)
        result = np.zeros(image.shape, np.float32)
        if body.any():
            result[body] = _standardise(image[body])
        return result


Normalisation: TypeAlias = CTNormalisation | ZScoreNormalisation


def _standardise(values: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = values.mean(dtype=np.float64)
    std = values.std(dtype=np.float64)
    return (values - np.float32(mean)) / np.float32(max(float(std), SMALLEST_STD))


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``mask`` (z, y, x) and all that it encloses: what no path over faces leads out of.

    As scipy's binary_fill_holes, with which nnU-Net finds the body (`create_nonzero_mask`).
    """
    import cc3d

    # A border of background joins all that lies outside to one component, that of the corner.
    background = np.pad(~mask, 1, constant_values=True)
    components = cc3d.connected_components(background, connectivity=6)
    filled: NDArray[np.bool_] = components[1:-1, 1:-1, 1:-1] != components[0, 0, 0]
    return filled
