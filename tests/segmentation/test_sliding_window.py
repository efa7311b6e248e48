"""The sliding window: nnU-Net's positions and weights, and sums that equal those over the whole image at once."""

import tracemalloc
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from numpy.typing import NDArray

from openscans import networks
from openscans.errors import Cancelled
from openscans.networks import Network
from openscans.networks.plans import Plan
from openscans.progress import ignore_progress
from openscans.segmentation import sliding_window
from openscans.segmentation.blending import gaussian
from openscans.types import InferenceOptions
from phantom import drawing, grid, spine
from tests import small_networks

Float32 = NDArray[np.float32]
Shape = tuple[int, int, int]


@dataclass
class Ramps(Network):
    """A network whose logits depend on the voxel and on where in the patch it lies, as a real one's do."""

    plan: Plan
    device: str = "cpu"
    patch_s: float = 0.1

    def logits(self, patch: Float32) -> Float32:
        z, y, x = np.indices(patch.shape, np.float32)
        place = np.sin(z / 3) + np.cos(y / 4) * 0.5 + x / patch.shape[2]
        slopes = np.linspace(-1, 1, self.plan.architecture.heads, dtype=np.float32)
        return np.stack([slope * patch + slope**2 * place for slope in slopes])


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """27 classes, patches of 16 × 64 × 64."""
    return networks.read_plan(small_networks.write(tmp_path_factory.mktemp("plan"), small_networks.MR))


def image_of(shape_zyx: Shape) -> Float32:
    return np.random.default_rng(0).standard_normal(shape_zyx, np.float32)


def all_at_once(image: Float32, network: networks.Network, step: float) -> Float32:
    """nnU-Net's sliding window without its float16: weighted logits (class, z, y, x) of the whole padded image."""
    patch = network.plan.patch_zyx
    gaps = [max(length - size, 0) for size, length in zip(image.shape, patch, strict=True)]
    pads = [(gap // 2, gap - gap // 2) for gap in gaps]
    padded = np.pad(image, pads)
    weights = compute_gaussian(tuple(patch), 1 / 8, 10, device=torch.device("cpu")).double().numpy()
    sums = np.zeros((network.plan.architecture.heads, *padded.shape))
    counts = np.zeros(padded.shape)
    for corner in product(*compute_steps_for_sliding_window(padded.shape, patch, step)):
        window = tuple(slice(start, start + length) for start, length in zip(corner, patch, strict=True))
        sums[(slice(None), *window)] += network.logits(padded[window]) * weights
        counts[window] += weights
    inside = tuple(slice(low, low + size) for (low, _), size in zip(pads, image.shape, strict=True))
    return (sums / counts)[(slice(None), *inside)].astype(np.float32)


@pytest.mark.parametrize("step", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("patch", [16, 80, 112, 128])
def test_patches_start_where_nnunets_do(patch: int, step: float) -> None:
    for size in range(patch, 5 * patch, 3):
        assert (
            sliding_window.patch_starts(size, patch, step)
            == compute_steps_for_sliding_window((size,), (patch,), step)[0]
        )


@pytest.mark.parametrize(
    "patch_zyx", [(128, 128, 128), (112, 112, 128), (80, 64, 80), (28, 256, 256), (16, 17, 19), (8, 8, 8)]
)
def test_a_patch_is_weighted_as_by_nnunet(patch_zyx: Shape) -> None:
    theirs = compute_gaussian(patch_zyx, 1 / 8, 10, device=torch.device("cpu")).numpy()
    np.testing.assert_allclose(gaussian(patch_zyx), theirs.astype(np.float32), rtol=2e-3, atol=0)


@pytest.mark.parametrize(
    "shape_zyx", [(16, 64, 64), (40, 64, 64), (16, 90, 70), (41, 100, 65), (10, 40, 64), (9, 70, 33), (1, 1, 1)]
)
@pytest.mark.parametrize("step", [0.5, 0.8])
def test_labels_are_those_of_the_whole_image_at_once(plan: Plan, shape_zyx: Shape, step: float) -> None:
    image = image_of(shape_zyx)
    found = sliding_window.predict(image, Ramps(plan), sliding_window.Coverage(step), report=ignore_progress)
    expected = all_at_once(image, Ramps(plan), step)
    assert found.labels.shape == found.probabilities.shape == shape_zyx
    assert np.mean(found.labels == expected.argmax(axis=0)) >= 0.999
    softmax = torch.from_numpy(expected).softmax(0).max(0).values.numpy()
    # How sure the network is of the background is nobody's question.
    softmax[found.labels == 0] = 0
    np.testing.assert_allclose(found.probabilities.astype(np.float32), softmax, atol=2e-3)


def test_an_image_smaller_than_the_patch_lies_in_its_middle(plan: Plan) -> None:
    seen: list[Float32] = []

    class Looking(Ramps):
        def logits(self, patch: Float32) -> Float32:
            seen.append(patch.copy())
            return super().logits(patch)

    sliding_window.predict(
        np.ones((11, 64, 61), np.float32), Looking(plan), sliding_window.Coverage(0.5), report=ignore_progress
    )
    assert len(seen) == 1
    # 5 planes and 3 columns are missing: the odd one goes behind, as nnU-Net's pad_nd_image puts it.
    np.testing.assert_array_equal(np.argwhere(seen[0]).min(axis=0), [2, 0, 1])
    np.testing.assert_array_equal(np.argwhere(seen[0]).max(axis=0), [12, 63, 61])


def test_progress_counts_patches(plan: Plan) -> None:
    heard: list[tuple[int, int]] = []
    sliding_window.predict(
        image_of((24, 96, 64)), Ramps(plan), sliding_window.Coverage(0.5), report=lambda *told: heard.append(told)
    )
    assert heard == [(done, 4) for done in range(5)]


@pytest.mark.parametrize("shape_zyx", [(16, 64, 64), (40, 64, 64)])
def test_asking_to_stop_stops_between_patches(plan: Plan, shape_zyx: Shape) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        sliding_window.predict(image_of(shape_zyx), Ramps(plan), sliding_window.Coverage(0.5), report=stop)


def peak_beyond_outputs_bytes(plan: Plan, planes: int) -> int:
    image = image_of((planes, 64, 96))
    tracemalloc.start()
    found = sliding_window.predict(image, Ramps(plan), sliding_window.Coverage(0.8), report=ignore_progress)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - found.labels.nbytes - found.probabilities.nbytes


def test_memory_does_not_grow_with_the_number_of_planes(plan: Plan) -> None:
    # 27 classes in float32 on 448 more planes would take 297 MB.
    assert peak_beyond_outputs_bytes(plan, 512) < peak_beyond_outputs_bytes(plan, 64) + 2**20


@pytest.mark.parametrize(
    "spec", [small_networks.MR, small_networks.VERTEBRAE, small_networks.CT], ids=lambda s: s.dataset
)
@pytest.mark.parametrize("step", [0.5, 0.8])
@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_labels_are_those_of_nnunets_predictor(
    tmp_path: Path, spec: small_networks.specs.NetworkSpec, step: float
) -> None:
    folder = small_networks.write(tmp_path, spec)
    network = networks.load_folder(
        folder, device="cpu", options=InferenceOptions(None, "float32", tmp_path / "compiled")
    )
    body = spine.describe(1, spine.LEVELS[8:12])
    _, affine = grid.axial(body, [3, 3, 3])
    voxels, _ = drawing.render(body, (25, 66, 77), affine)
    image = network.plan.normalise(voxels.astype(np.float32))
    predictor = nnUNetPredictor(
        tile_step_size=step,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    theirs = predictor.predict_sliding_window_return_logits(torch.from_numpy(image)[None]).numpy()
    ours = sliding_window.predict(image, network, sliding_window.Coverage(step), report=ignore_progress).labels
    assert len(np.unique(ours)) > 5
    # Not theirs.argmax: nnU-Net sums in float16, in which several classes of a random network often come out equal.
    assert np.mean(np.take_along_axis(theirs, ours[None].astype(int), 0)[0] == theirs.max(0)) >= 0.999
