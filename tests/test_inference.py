"""What the pipeline lets a network see of an image, with a network that only looks, and which networks it refuses."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import Pipeline
from openscans.errors import DamagedWeights
from openscans.networks import Network, Plan
from openscans.segmentation import grids
from openscans.types import DetectionTask, InferenceOptions, TrainedModel, Voxel
from phantom import layout
from phantom.files import write_nifti
from phantom.specs import NetworkSpec
from tests import small_networks

COARSE_MM = np.diag([3.0, 3.0, 3.0, 1.0])
FRACTIONS = np.random.default_rng(0).uniform(1, 40, (6, 20, 20)).astype(np.float32)


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

    def __call__(self, model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
        self.loaded.append(Onlooker(replace(plan, normalise=lambda image: image)))
        return self.loaded[-1]


def model(results: Path, spec: NetworkSpec, spacing_zyx_mm: Sequence[float] | None = None) -> TrainedModel:
    """Plans of ``spec`` that name ``spacing_zyx_mm`` instead of its own, and no weights."""
    plans = layout.plans_of(spec)
    if spacing_zyx_mm is not None:
        plans["configurations"][layout.CONFIGURATION]["spacing"] = list(spacing_zyx_mm)
    folder = layout.training_folder(results, spec)
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(layout.dataset_of(spec)))
    return TrainedModel(spec.folder, folder, spec.folder, spec.spacing_mm, step=0.5)


def detect(folder: Path, load: Onlookers, segmenter: TrainedModel, localiser: TrainedModel | None = None) -> None:
    """Run a detection in an image of `FRACTIONS`, 3 mm apart."""
    write_nifti(folder / "image.nii.gz", FRACTIONS, COARSE_MM)
    order = DetectionTask(folder / "image.nii.gz", "vertebrae", segmenter, localiser, device="cpu")
    options = InferenceOptions(1, "float32", folder / "compiled")
    Pipeline(options, load).detect(order, lambda _stage, _done, _total: None)


def test_an_image_without_a_localiser_keeps_its_fractions_until_it_is_resampled(tmp_path: Path) -> None:
    load = Onlookers()
    detect(tmp_path, load, model(tmp_path, small_networks.MR))
    [patch] = load.loaded[0].seen
    grid = grids.model_grid(COARSE_MM, grids.whole_box(Voxel(20, 20, 6)), (1.5, 1.5, 1.5))
    expected = np.trunc(grids.resample(FRACTIONS, grid, truncate=False))
    np.testing.assert_array_equal(patch[patch > 0], expected.ravel())


@pytest.mark.parametrize(
    "spacing_zyx_mm", [(3.0, 3.0, 3.0), (1.5, 1.5, 1.498), (1.502, 1.5, 1.5), (1.5, float("nan"), 1.5)]
)
def test_a_network_for_another_spacing_than_its_task_s_is_refused_before_it_is_loaded(
    tmp_path: Path, spacing_zyx_mm: tuple[float, float, float]
) -> None:
    load = Onlookers()
    with pytest.raises(DamagedWeights) as refused:
        detect(tmp_path, load, model(tmp_path, small_networks.MR, spacing_zyx_mm))
    found = " × ".join(f"{spacing:g}" for spacing in spacing_zyx_mm)
    assert str(refused.value) == f"{small_networks.MR.folder} is for samples {found} mm apart, expected 1.5 mm."
    assert not load.loaded


def test_a_localiser_for_another_spacing_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    load = Onlookers()
    localiser = model(tmp_path, small_networks.CT, (3.0, 3.0, 3.0))
    with pytest.raises(DamagedWeights, match=r"Dataset298_.* 3 × 3 × 3 mm apart, expected 6 mm"):
        detect(tmp_path, load, model(tmp_path, small_networks.VERTEBRAE), localiser)
    assert not load.loaded


def test_a_spacing_that_was_rounded_where_it_was_written_is_the_task_s(tmp_path: Path) -> None:
    load = Onlookers()
    detect(tmp_path, load, model(tmp_path, small_networks.MR, (1.5, 1.4999, 1.5000001)))
    assert load.loaded[0].seen
