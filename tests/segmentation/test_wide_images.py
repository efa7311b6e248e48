"""The sliding window over an image so wide that its sums are kept in float16."""

import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from openscans import networks
from openscans.networks import Network
from openscans.networks.plans import Plan
from openscans.progress import ignore_progress
from openscans.segmentation import blending, sliding_window
from tests import small_networks

Float32 = NDArray[np.float32]

SHAPE_ZYX = (20, 820, 820)


@dataclass
class Bands(Network):
    """A network that cuts the range of intensities into bands, one a class; the same wherever a voxel lies."""

    plan: Plan
    device: str = "cpu"
    patch_s: float = 0.1

    def logits(self, patch: Float32) -> Float32:
        middles = np.linspace(-2, 2, self.plan.architecture.heads, dtype=np.float32)
        return -4 * (patch - middles[:, None, None, None]) ** 2


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """26 classes, patches of 16 × 64 × 64."""
    return networks.read_plan(small_networks.write(tmp_path_factory.mktemp("plan"), small_networks.MR))


def test_sums_in_float16_give_the_same_labels_in_half_the_memory(plan: Plan) -> None:
    image = np.random.default_rng(0).uniform(-2, 2, SHAPE_ZYX).astype(np.float32)
    float32_bytes = plan.architecture.heads * plan.patch_zyx[0] * image[0].size * 4
    assert float32_bytes > blending.LARGEST_FLOAT32_BYTES
    tracemalloc.start()
    found = sliding_window.predict(image, Bands(plan), sliding_window.Coverage(1.0), report=ignore_progress)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.9 * float32_bytes
    band = np.round((image + 2) / 4 * (plan.architecture.heads - 1))
    # Where patches meet corner to corner their weights are float16's smallest number, and logits become whole ones.
    assert np.mean(found.labels == band) > 0.98
    middle = (slice(None), slice(16, 48), slice(16, 48))
    np.testing.assert_array_equal(found.labels[middle], band[middle])
