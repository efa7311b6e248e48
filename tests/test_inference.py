"""What the pipeline lets a network see of an image, with a network that only looks."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import grids
import networks
from findings import EngineOptions, Order, TrainedModel, Voxel
from inference import Pipeline
from networks import Network, Plan
from phantom import layout
from phantom.files import write_nifti
from tests import small_networks

COARSE_MM = np.diag([3.0, 3.0, 3.0, 1.0])


@dataclass
class Onlooker(Network):
    """Finds nothing, and keeps every patch that it was shown."""

    plan: Plan
    device: str = "cpu"
    seen: list[NDArray[np.float32]] = field(default_factory=list)

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(patch.copy())
        return np.zeros((self.plan.architecture.heads, *patch.shape), np.float32)


@dataclass
class Onlookers:
    """Loads an `Onlooker` in the place of every network, which sees the image without normalisation."""

    loaded: list[Onlooker] = field(default_factory=list)

    def __call__(self, folder: Path, *, device: str, options: EngineOptions) -> Network:
        plan = replace(networks.read_plan(folder), normalise=lambda image: image)
        self.loaded.append(Onlooker(plan))
        return self.loaded[-1]


def mr_order(folder: Path, voxels: NDArray[np.float32]) -> Order:
    """A detection in an MR image of ``voxels`` (z, y, x), 3 mm apart, whose network has plans and no weights."""
    write_nifti(folder / "mr.nii.gz", voxels, COARSE_MM)
    training = layout.training_folder(folder, small_networks.MR)
    training.mkdir(parents=True)
    (training / "plans.json").write_text(json.dumps(layout.plans_of(small_networks.MR)))
    (training / "dataset.json").write_text(json.dumps(layout.dataset_of(small_networks.MR)))
    model = TrainedModel(training.parent.name, training, "0" * 64)
    return Order(folder / "mr.nii.gz", "vertebrae_mr", model, None, step=0.5, device="cpu")


def detect(order: Order, load: Onlookers) -> None:
    options = EngineOptions(1, "float32", order.path.parent / "compiled")
    Pipeline(options, load).detect(order, lambda _stage, _done, _total: None)


def test_an_image_without_a_localiser_keeps_its_fractions_until_it_is_resampled(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).uniform(1, 40, (6, 20, 20)).astype(np.float32)
    load = Onlookers()
    detect(mr_order(tmp_path, voxels), load)
    [patch] = load.loaded[0].seen
    grid = grids.model_grid(COARSE_MM, grids.whole(Voxel(20, 20, 6)), (1.5, 1.5, 1.5))
    expected = np.trunc(grids.sample(voxels, grid, truncate=False))
    np.testing.assert_array_equal(patch[patch > 0], expected.ravel())
