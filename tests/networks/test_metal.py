"""The GPU of a Mac is used for a network only after a sample had the CPU's logits there; the CPU poses as it here."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from numpy.typing import NDArray

from openscans import networks
from openscans.errors import DamagedWeights, OutOfMemory
from openscans.networks import TORCH_ON_CPU, Network, Plan, UnfitDevice
from openscans.networks.checkpoint import CHECKPOINT
from openscans.networks.engines import engine_of
from openscans.networks.metal_network import load_checked
from openscans.networks.torch_network import METAL_SHORTAGE, TorchNetwork
from openscans.types import InferenceOptions, TrainedModel
from tests import small_networks

Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def load_on_the_cpu(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    """As for a Mac, but with the CPU in the place of its GPU."""
    assert device in {"mps", TORCH_ON_CPU}
    contiguous = torch.contiguous_format
    return TorchNetwork(model, plan, device=TORCH_ON_CPU, options=options, memory_format=contiguous)


class Changed(Network):
    """A network on a device that changes what it computes."""

    def __init__(self, network: Network, change: Change) -> None:
        self.plan, self.device, self.runs = network.plan, network.device, network.runs
        self.patch_s, self._network, self._change = network.patch_s, network, change

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._change(self._network.logits(patch))


def load_changed(change: Change, model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    network = load_on_the_cpu(model, plan, device=device, options=options)
    return Changed(network, change) if device == "mps" else network


def load_where_layers_lack(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    if device == "mps":
        raise NotImplementedError("Conv3D is not supported on MPS")
    return load_on_the_cpu(model, plan, device=device, options=options)


@pytest.fixture(
    params=[small_networks.CT, small_networks.VERTEBRAE, small_networks.MR, small_networks.LAST_STAGE_FLAT],
    ids=["298", "292", "uneven strides", "756"],
)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> TrainedModel:
    folder = small_networks.write(tmp_path, request.param)
    return TrainedModel(folder.parent.name, folder, "0" * 64, request.param.spacing_mm, step=0.5)


@pytest.fixture
def options(tmp_path: Path) -> InferenceOptions:
    return InferenceOptions(threads=1, precision="auto", cache_folder=tmp_path)


def loaded(model: TrainedModel, options: InferenceOptions, load: networks.Load) -> Network:
    return load_checked(model, networks.read_plan(model.folder), device="mps", options=options, load=load)


def last_plane_lacks(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    logits[..., -1] = 0
    return logits


def shifted_by_a_plane(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.roll(logits, 1, axis=1)


def one_number_is_none(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    logits[0, 0, 0, 0] = np.nan
    return logits


def all_are_none(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full_like(logits, np.nan)


def classes_change_places(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits[::-1].copy()


def rounded_to_bfloat16(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return torch.from_numpy(logits).bfloat16().float().numpy()


def summed_in_another_order(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    noise = np.random.default_rng(1).uniform(-5e-5, 5e-5, logits.shape)
    return np.asarray(logits + noise * logits.std(), np.float32)


def test_a_network_that_agrees_with_the_cpu_runs_whole_patches(model: TrainedModel, options: InferenceOptions) -> None:
    network = loaded(model, options, load_on_the_cpu)
    patch = np.random.default_rng(0).standard_normal(network.plan.patch_zyx, np.float32)
    found = network.logits(patch).copy()
    assert found.shape == (network.plan.architecture.heads, *network.plan.patch_zyx)
    usual = networks.load(model, network.plan, device=TORCH_ON_CPU, options=options)
    np.testing.assert_allclose(found, usual.logits(patch), atol=1e-4)


def test_float_noise_is_no_disagreement(model: TrainedModel, options: InferenceOptions) -> None:
    assert loaded(model, options, partial(load_changed, summed_in_another_order)).plan


@pytest.mark.parametrize(
    "change",
    [
        last_plane_lacks,
        shifted_by_a_plane,
        one_number_is_none,
        all_are_none,
        classes_change_places,
        rounded_to_bfloat16,
    ],
)
def test_a_device_that_is_wrong_is_unfit(model: TrainedModel, options: InferenceOptions, change: Change) -> None:
    with pytest.raises(UnfitDevice):
        loaded(model, options, partial(load_changed, change))


def test_a_device_that_lacks_a_layer_is_unfit(model: TrainedModel, options: InferenceOptions) -> None:
    with pytest.raises(UnfitDevice):
        loaded(model, options, load_where_layers_lack)


@pytest.mark.parametrize("words", METAL_SHORTAGE)
def test_a_device_whose_memory_does_not_suffice_is_full_and_not_unfit(
    model: TrainedModel, options: InferenceOptions, words: str
) -> None:
    network = TorchNetwork(model, networks.read_plan(model.folder), device=TORCH_ON_CPU, options=options)

    def fill(*_: object) -> None:
        raise RuntimeError(f"{words} (MPS allocated: 8.00 GB)")

    network._module.register_forward_pre_hook(fill)
    with pytest.raises(OutOfMemory):
        network.logits(np.zeros(network.plan.patch_zyx, np.float32))


def test_damaged_weights_are_no_fault_of_the_device(model: TrainedModel, options: InferenceOptions) -> None:
    (model.folder / CHECKPOINT).write_bytes(b"")
    with pytest.raises(DamagedWeights):
        loaded(model, options, load_on_the_cpu)


def test_the_registry_s_mps_is_the_checked_one() -> None:
    assert engine_of("mps").import_network() is load_checked
