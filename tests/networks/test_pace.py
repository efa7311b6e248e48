"""How long a patch takes: what is reckoned before the first, what is told after it, what the next process knows."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openscans import networks
from openscans.networks import TORCH_ON_CPU, pace
from openscans.networks.openvino_compilation import Way
from openscans.networks.openvino_formulations import Formulation, Planes, Volumes
from openscans.networks.openvino_network import small_runs
from openscans.networks.openvino_runtime import openvino
from openscans.networks.pool import NetworkPool
from openscans.types import InferenceOptions, TrainedModel
from phantom import layout, specs
from tests import small_networks

MUCH_S, LITTLE_S = 2 * pace.ENOUGH_S, 0.0


@pytest.fixture
def options(tmp_path: Path) -> InferenceOptions:
    return InferenceOptions(threads=1, precision="float32", cache_folder=tmp_path / "compiled")


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    folder = small_networks.write(tmp_path, small_networks.CT)
    return TrainedModel(folder.parent.name, folder, "0" * 64, small_networks.CT.spacing_mm, step=0.5)


@pytest.mark.parametrize("spec", [small_networks.CT, small_networks.MR, small_networks.VERTEBRAE])
def test_a_plan_tells_the_multiply_adds_that_pytorch_does(tmp_path: Path, spec: specs.NetworkSpec) -> None:
    torch = pytest.importorskip("torch")
    counted = []
    module = layout.build_module(spec)
    for part in module.modules():
        if isinstance(part, torch.nn.Conv3d):
            part.register_forward_hook(
                lambda conv, given, made: counted.append(conv.weight.numel() * made[0, 0].numel())
            )
        if isinstance(part, torch.nn.ConvTranspose3d):
            part.register_forward_hook(
                lambda conv, given, made: counted.append(conv.weight.numel() * given[0][0, 0].numel())
            )
    with torch.inference_mode():
        module(torch.zeros((1, 1, *spec.patch_zyx)))
    assert networks.read_plan(small_networks.write(tmp_path, spec)).patch_multiply_adds == sum(counted)


@pytest.mark.parametrize(
    ("took_s", "edges"), [(LITTLE_S, list(pace.SMALL_EDGES)), (MUCH_S, list(pace.SMALL_EDGES[:1]))]
)
def test_the_small_run_grows_only_while_it_takes_too_little_to_be_measured(took_s: float, edges: list[int]) -> None:
    tried = []

    def make_run(edge: int) -> Callable[[], object]:
        tried.append(edge)
        return lambda: time.sleep(took_s)

    assert pace.time_multiply_add(make_run) > 0
    assert tried == edges


@pytest.mark.parametrize("formulation", [Volumes(), Planes()], ids=lambda formulation: formulation.name)
def test_the_small_run_is_one_of_the_formulation_that_networks_have(
    formulation: Formulation, options: InferenceOptions
) -> None:
    make_run = small_runs(openvino.Core(), Way("float32", formulation), options)
    [output] = make_run(8)().values()  # type: ignore[attr-defined]
    assert output.size == 32 * 8**3
    assert np.isfinite(output).all()


@pytest.mark.parametrize("device", ["cpu", TORCH_ON_CPU])
def test_a_network_tells_what_a_patch_should_take_and_then_what_the_last_one_took(
    model: TrainedModel, options: InferenceOptions, device: str
) -> None:
    if device == TORCH_ON_CPU:
        pytest.importorskip("torch")
    network = networks.load(model, networks.read_plan(model.folder), device=device, options=options)
    reckoned_s = network.patch_s
    began_s = time.perf_counter()
    network.logits(np.zeros(network.plan.patch_zyx, np.float32))
    assert 0 < network.patch_s <= time.perf_counter() - began_s
    assert network.patch_s != reckoned_s > 0


@pytest.mark.parametrize(("kept_s", "believed_s"), [(None, 10.0), (25.0, 25.0), (4.0, 4.0), (0.1, 10.0), (300.0, 10.0)])
def test_what_patches_took_is_believed_unless_the_machine_has_changed(kept_s: float | None, believed_s: float) -> None:
    assert pace.believe(10.0, kept_s) == believed_s


def test_before_a_network_was_ever_loaded_nobody_says_how_long_its_patches_take(
    model: TrainedModel, options: InferenceOptions
) -> None:
    assert NetworkPool(options).patch_s(model, "cpu") is None


def test_the_next_process_knows_what_patches_took_before_it_has_loaded_anything(
    model: TrainedModel, options: InferenceOptions
) -> None:
    first = NetworkPool(options)
    first.take(model, "cpu").patch_s = 12.5
    first.keep_pace(model, "cpu")
    assert NetworkPool(options).patch_s(model, "cpu") == 12.5


@pytest.mark.parametrize("other", [{"threads": 2}, {"precision": "auto"}], ids=str)
def test_what_patches_took_under_other_settings_is_not_told(
    model: TrainedModel, options: InferenceOptions, other: dict[str, object]
) -> None:
    first = NetworkPool(options)
    first.take(model, "cpu").patch_s = 12.5
    first.keep_pace(model, "cpu")
    assert NetworkPool(replace(options, **other)).patch_s(model, "cpu") is None  # type: ignore[arg-type]
    assert NetworkPool(options).patch_s(model, "cuda") is None


def test_the_small_run_is_timed_once_for_a_machine(model: TrainedModel, options: InferenceOptions) -> None:
    networks.load_folder(model.folder, device="cpu", options=options)
    [kept] = options.cache_folder.glob(f"*{pace.SUFFIX}")
    written = kept.stat().st_ino
    first_s = networks.load_folder(model.folder, device="cpu", options=options).patch_s
    assert networks.load_folder(model.folder, device="cpu", options=options).patch_s == first_s
    assert kept.stat().st_ino == written


def test_a_small_run_beside_another_program_is_corrected_by_the_first_patch(tmp_path: Path) -> None:
    book, facts = pace.PaceBook(tmp_path), ("small run",)
    book.put(1e-9, *facts)

    def refuse(edge: int) -> Callable[[], object]:
        raise AssertionError("what is kept is taken")

    found = pace.reckon(book, facts, 1_000_000_000, refuse)
    assert found.patch_s == 1.0
    found.correct(0.5)
    assert book.get(*facts) == 1e-9
    found.correct(0.05)
    assert book.get(*facts) == pytest.approx(5e-11)


def test_no_machine_is_named_in_what_is_kept(tmp_path: Path) -> None:
    pace.PaceBook(tmp_path).put(12.5, "a fact")
    [kept] = tmp_path.iterdir()
    assert kept.suffix == pace.SUFFIX
    assert kept.read_bytes().splitlines()[1] == b"12.5"


def test_what_is_no_number_is_as_if_nothing_was_kept(tmp_path: Path) -> None:
    book = pace.PaceBook(tmp_path)
    book.put(12.5, "a fact")
    assert book.get("a fact") == 12.5
    [kept] = tmp_path.iterdir()
    content = b"soon"
    kept.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    assert book.get("a fact") is None
