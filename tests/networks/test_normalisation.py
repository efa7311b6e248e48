"""Normalisation of images that are zero around the body, judged by nnU-Net and scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("nnunetv2")

from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization
from scipy import ndimage

from openscans import networks
from openscans.networks.normalisation import ZScoreNormalisation, fill_holes
from phantom import layout
from tests import small_networks


def scan(seed: int) -> NDArray[np.float32]:
    """Intensities within a ball that has holes of zeros in it, some open to the outside; zeros around it."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices((20, 24, 22)) - 11
    image = random.uniform(50, 900, z.shape) * (z**2 + y**2 + x**2 < 100)
    for corner in random.integers(0, 20, (6, 3)):
        image[tuple(slice(start, start + 4) for start in corner)] = 0
    return image.astype(np.float32)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.6, 0.7, 0.8, 1.0])
def test_holes_are_those_that_scipy_fills(share: float) -> None:
    # Sparse masks are mazes: a path out may turn many times.
    mask = np.random.default_rng(int(share * 10)).random((15, 18, 13)) < share
    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


def test_a_long_winding_way_out_is_found() -> None:
    mask = np.ones((1, 41, 41), bool)
    mask[0, 1::2, 1:-1] = False
    mask[0, 2:-1:4, -2] = False
    mask[0, 4:-1:4, 1] = False
    mask = np.pad(mask, ((1, 1), (0, 0), (0, 0)), constant_values=True)
    assert fill_holes(mask).all()
    mask[1, 0, 1] = False
    np.testing.assert_array_equal(fill_holes(mask), mask)


@pytest.mark.parametrize("seed", range(3))
def test_only_the_body_is_normalised_where_the_plan_says_so(seed: int) -> None:
    image = scan(seed)
    outside = np.where(create_nonzero_mask(image[None]), 0, -1)
    theirs = ZScoreNormalization(True, {}).run(image.copy(), np.squeeze(outside))
    ours = ZScoreNormalisation(nonzero_only=True)(image)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert ours.dtype == np.float32


def test_an_image_without_a_body_stays_zero() -> None:
    assert not ZScoreNormalisation(nonzero_only=True)(np.zeros((3, 4, 5), np.float32)).any()


@pytest.mark.parametrize("masked", [False, True])
def test_the_plan_says_whether_only_the_body_counts(tmp_path: Path, masked: bool) -> None:
    folder = small_networks.write(tmp_path, small_networks.MR)
    plans = layout.plans_of(small_networks.MR)
    plans["configurations"][layout.CONFIGURATION]["use_mask_for_norm"] = [masked]
    (folder / "plans.json").write_text(json.dumps(plans))
    assert networks.read_plan(folder).normalise == ZScoreNormalisation(nonzero_only=masked)
