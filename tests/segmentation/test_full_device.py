"""A device that is full, or wrong, leaves the detection to the CPU, with a warning; the image is read once."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.detect import task
from benchmarks.scan import WEIGHTS
from inference import Pipeline
from openscans import networks
from openscans.errors import OutOfMemory
from openscans.networks import TORCH_ON_CPU, Network, Plan, UnfitDevice
from openscans.progress import Forecast
from openscans.types import Detection, DetectionTask, InferenceOptions, TrainedModel
from phantom import drawing, grid, spine
from phantom.files import write_nifti

pytest.importorskip("torch")


class Full(Network):
    """A network whose device has no memory left for a patch."""

    def __init__(self, network: Network) -> None:
        self.patch_s = network.patch_s
        self.plan, self.device, self.runs = network.plan, network.device, network.runs

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        raise OutOfMemory("There is not enough memory on the device.")


def full_but_for_the_cpu(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    network = networks.load(model, plan, device=device, options=options)
    return network if device == "cpu" else Full(network)


def too_full_for_weights(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    if device != "cpu":
        raise OutOfMemory("There is not enough memory on the device.")
    return networks.load(model, plan, device=device, options=options)


def always_full(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    return Full(networks.load(model, plan, device=device, options=options))


@dataclass
class Unfit:
    """Finds every device but the CPU unfit, and notes for which devices it was to load something."""

    asked: list[str] = field(default_factory=list)

    def __call__(self, model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
        self.asked.append(device)
        if device != "cpu":
            raise UnfitDevice
        return networks.load(model, plan, device=device, options=options)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> DetectionTask:
    """For the lower back in `fast_mode`, on a device other than the CPU's own engine."""
    body = spine.describe(3, spine.LEVELS[19:23])
    shape_zyx, affine_lps = grid.axial(body, (2.0, 2.0, 2.0))
    path = tmp_path_factory.mktemp("image") / "ct.nii"
    write_nifti(path, drawing.render(body, shape_zyx, affine_lps)[0], affine_lps)
    return replace(task(path, WEIGHTS, fast=True), device=TORCH_ON_CPU)


def detected(asked: DetectionTask, load: networks.Load, cache: Path) -> tuple[Detection, list[str]]:
    """What is found, and every stage each time that it begins."""
    begun: list[str] = []

    def report(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        if done == 0:
            begun.append(stage)

    return Pipeline(InferenceOptions(None, "float32", cache), load).detect(asked, report), begun


@pytest.mark.parametrize("load", [full_but_for_the_cpu, too_full_for_weights])
def test_the_cpu_detects_what_a_full_device_cannot(asked: DetectionTask, load: networks.Load, tmp_path: Path) -> None:
    found, begun = detected(asked, load, tmp_path)
    assert found.device == "cpu"
    assert [vertebra.label for vertebra in found.vertebrae] == ["L1", "L2", "L3", "L4"]
    [warning] = [warning for warning in found.warnings if warning.code == "device_fallback"]
    assert "memory" in warning.message
    assert begun.count("reading") == 1


def test_what_does_not_fit_on_the_cpu_either_is_an_error(asked: DetectionTask, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory):
        detected(asked, always_full, tmp_path)


def test_a_device_that_is_wrong_is_not_tried_again(asked: DetectionTask, tmp_path: Path) -> None:
    unfit = Unfit()
    pipeline = Pipeline(InferenceOptions(None, "float32", tmp_path), unfit)
    first, second = (pipeline.detect(asked, lambda *_: None) for _ in range(2))
    assert unfit.asked == [TORCH_ON_CPU, TORCH_ON_CPU, "cpu", "cpu"]
    for found in (first, second):
        assert found.device == "cpu"
        assert [vertebra.label for vertebra in found.vertebrae] == ["L1", "L2", "L3", "L4"]
        [warning] = [warning for warning in found.warnings if warning.code == "device_fallback"]
        assert "computes otherwise than the CPU" in warning.message


def test_a_card_that_was_full_is_tried_again(asked: DetectionTask, tmp_path: Path) -> None:
    pipeline = Pipeline(InferenceOptions(None, "float32", tmp_path), too_full_for_weights)
    for _ in range(2):
        assert "memory" in pipeline.detect(asked, lambda *_: None).warnings[0].message
