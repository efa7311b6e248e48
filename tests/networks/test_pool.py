"""Networks that load while something else is done: each once, and again where it failed."""

from pathlib import Path

import pytest

from openscans.errors import DamagedWeights
from openscans.networks.pool import NetworkPool
from openscans.types import InferenceOptions, TrainedModel
from tests import small_networks
from tests.live_server import eventually


@pytest.fixture
def shelf(tmp_path: Path) -> NetworkPool:
    return NetworkPool(InferenceOptions(1, "float32", tmp_path / "compiled"))


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    folder = small_networks.write(tmp_path, small_networks.CT)
    return TrainedModel(folder.parent.name, folder, "0" * 64, small_networks.CT.spacing_mm, step=0.5)


def test_a_network_is_loaded_once(shelf: NetworkPool, model: TrainedModel) -> None:
    shelf.prepare(model, "cpu")
    network = shelf.take(model, "cpu")
    shelf.prepare(model, "cpu")
    assert shelf.take(model, "cpu") is network


def test_a_network_that_was_not_prepared_is_loaded_when_it_is_taken(shelf: NetworkPool, model: TrainedModel) -> None:
    assert shelf.take(model, "cpu").plan.patch_zyx == small_networks.CT.patch_zyx


def test_a_failure_that_nobody_was_told_of_is_not_the_next_image_s(shelf: NetworkPool, model: TrainedModel) -> None:
    plans = model.folder / "plans.json"
    whole = plans.read_text()
    plans.write_text("{")
    shelf.prepare(model, "cpu")
    assert eventually(lambda: not shelf.holds(model, "cpu"))
    plans.write_text(whole)
    shelf.prepare(model, "cpu")
    assert shelf.take(model, "cpu").device == "cpu"


def test_damaged_weights_are_told_when_they_are_taken_and_tried_again_when_they_are_whole(
    shelf: NetworkPool, model: TrainedModel
) -> None:
    plans = model.folder / "plans.json"
    whole = plans.read_text()
    plans.write_text("{")
    shelf.prepare(model, "cpu")
    with pytest.raises(DamagedWeights):
        shelf.take(model, "cpu")
    plans.write_text(whole)
    assert shelf.take(model, "cpu").device == "cpu"
