"""int8 runs where it labels as float32 does, and nowhere else; what was decided for some weights is kept for them."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import Pipeline
from openscans.networks import Network, int8_trials
from openscans.networks.checkpoint import CHECKPOINT, Tensors, read_tensors
from openscans.networks.compiled_cache import digest_of
from openscans.networks.equalisation import equalise, passages
from openscans.networks.openvino_compilation import CompiledNetwork, Way
from openscans.networks.openvino_formulations import Volumes
from openscans.networks.openvino_graph import build_graph
from openscans.networks.openvino_int8 import load_network
from openscans.networks.openvino_runtime import int8_count, openvino
from openscans.networks.plans import Plan, read_plan
from openscans.segmentation import grids, resampling
from openscans.types import Detection, DetectionTask, InferenceOptions, TrainedModel, Voxel, WarningCode
from phantom import layout, specs
from phantom.demo import WEIGHTS
from phantom.files import write_nifti
from tests import small_networks
from tests.networks.cores import CoreThatCompilesInt8Once, CoreWithoutInt8, CoreWithoutVolumes, needs_volumes
from tests.phantom_server import lumbar_scan

pytestmark = needs_volumes

TRAINED = specs.small(specs.SPECS[297], base_features=16, max_features=32, patch_zyx=(48, 32, 32))
"""As the network under `WEIGHTS` is; its samples lie 3 mm apart."""

FLOAT_NOISE = 1e-4

AIR = np.full(TRAINED.patch_zyx, -2, np.float32)

HOSTILE = "encoder.stages.2.0.convs.0.norm.weight"
"""A channel here reaches all that is finer through one convolution only, so that it drowns the others there."""


TRAINING = layout.training_folder(WEIGHTS, TRAINED)


def trained_model(folder: Path = TRAINING) -> TrainedModel:
    digest = digest_of(folder / name for name in (CHECKPOINT, "plans.json", "dataset.json"))
    return TrainedModel(folder.parent.name, folder, digest, TRAINED.spacing_mm, step=0.5)


@pytest.fixture(scope="module")
def hostile_model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """Trained, but for one channel that is a hundred times as large as it was."""
    torch = pytest.importorskip("torch")
    tensors = read_tensors(trained_model().folder / CHECKPOINT)
    state = {name: torch.from_numpy(values.copy()) for name, values in tensors.items()}
    state[HOSTILE][0] *= 100
    return trained_model(layout.write_training_folder(tmp_path_factory.mktemp("hostile"), TRAINED, state))


def load(
    model: TrainedModel, cache: Path, precision: str = "int8", core: Callable[[], openvino.Core] = openvino.Core
) -> Network:
    options = InferenceOptions(threads=1, precision=precision, cache_folder=cache)
    return load_network(model, read_plan(model.folder), device="cpu", options=options, core=core())


@pytest.fixture(scope="module")
def patch() -> NDArray[np.float32]:
    """The middle of four vertebrae (z, y, x), normalised."""
    voxels, affine_lps = lumbar_scan()
    z, y, x = voxels.shape
    grid = grids.model_grid(affine_lps, grids.whole_box(Voxel(x, y, z)), (3.0, 3.0, 3.0))
    image = read_plan(trained_model().folder).normalise(resampling.resample(voxels, grid, truncate=False))
    middle = np.median(np.argwhere(image > 0.5), axis=0).astype(int)
    return image[
        tuple(slice(at - size // 2, at + size // 2) for at, size in zip(middle, TRAINED.patch_zyx, strict=True))
    ]


def agreement(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The share of the voxels that logits name which they name alike."""
    labels, others = one.argmax(axis=0), other.argmax(axis=0)
    return float((labels == others)[(labels > 0) | (others > 0)].mean())


@pytest.fixture(scope="module")
def exact(patch: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    """What float32 makes of the patch."""
    return load(trained_model(), tmp_path_factory.mktemp("exact"), "float32").logits(patch).copy()


@pytest.mark.parametrize("spec", [small_networks.CT, small_networks.MR], ids=["even strides", "uneven strides"])
def test_equalised_channels_change_no_logit(tmp_path: Path, spec: specs.NetworkSpec) -> None:
    folder = small_networks.write(tmp_path, spec)
    plan, tensors = read_plan(folder), read_tensors(folder / CHECKPOINT)
    random = np.random.default_rng(0)
    magnitudes: Mapping[str, NDArray[np.float32]] = {
        name: np.exp(random.normal(0, 2, passage.count)).astype(np.float32)
        for passage in passages(plan.architecture)
        for name in passage.names
    }
    equal, factors = equalise(plan.architecture, tensors, magnitudes)
    assert factors.keys() == magnitudes.keys()
    assert max(own.max() / own.min() for own in factors.values()) > 10
    image = random.standard_normal(plan.patch_zyx, np.float32)
    np.testing.assert_allclose(
        logits_of(plan, equal, image), logits_of(plan, tensors, image), rtol=FLOAT_NOISE, atol=FLOAT_NOISE
    )


def logits_of(plan: Plan, tensors: Tensors, patch: NDArray[np.float32]) -> NDArray[np.float32]:
    graph = build_graph(plan, tensors, openvino.Type.f32)
    exactly = {"INFERENCE_PRECISION_HINT": openvino.Type.f32}
    compiled = openvino.Core().compile_model(graph, "CPU", exactly)
    return CompiledNetwork(compiled, Way("float32", Volumes())).logits(patch)


def test_a_network_that_labels_alike_runs_in_int8_from_the_next_patch_on(
    tmp_path: Path, patch: NDArray[np.float32], exact: NDArray[np.float32]
) -> None:
    network = load(trained_model(), tmp_path)
    assert network.runs.precision == "float32"
    deciding = network.logits(patch)
    np.testing.assert_allclose(deciding, exact, atol=FLOAT_NOISE)
    assert network.runs.precision == "int8"
    assert int8_count(network.runs.kernels) > sum(network.runs.kernels.values()) / 2
    assert network.warnings == ()
    following = network.logits(patch).copy()
    assert (following != exact).any()
    assert agreement(following, exact) >= int8_trials.LEAST_AGREEMENT
    # The float32 network is gone, its logits are still those of the patch that decided.
    np.testing.assert_allclose(deciding, exact, atol=FLOAT_NOISE)


def test_where_labels_differ_more_than_a_little_the_finest_stage_stays_in_float32(
    tmp_path: Path, patch: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    fastest = load(trained_model(), tmp_path / "fastest")
    fastest.logits(patch)
    monkeypatch.setattr(int8_trials, "PLAIN_AGREEMENT", 1.1)
    network = load(trained_model(), tmp_path / "cache")
    network.logits(patch)
    assert network.runs.precision == "int8"
    assert int8_count(network.runs.kernels) == int8_count(fastest.runs.kernels) - 1
    assert load(trained_model(), tmp_path / "cache").runs.kernels == network.runs.kernels


def test_of_two_trials_that_are_good_enough_the_better_one_runs(
    tmp_path: Path, patch: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    fastest = load(trained_model(), tmp_path / "fastest")
    fastest.logits(patch)
    # Neither is good enough to be taken at once, and both to be accepted.
    monkeypatch.setattr(int8_trials, "PLAIN_AGREEMENT", 1.1)
    core = CoreThatCompilesInt8Once()
    network = load(trained_model(), tmp_path / "cache", core=lambda: core)
    network.logits(patch)
    assert network.runs.precision == "int8"
    assert network.runs.kernels == fastest.runs.kernels
    assert network.warnings == ()


def test_what_was_accepted_is_taken_from_the_disk_as_it_was_compiled(
    tmp_path: Path, patch: NDArray[np.float32]
) -> None:
    model = trained_model(Path(shutil.copytree(TRAINING, tmp_path / "Dataset297" / "training")))
    network = load(model, tmp_path / "cache")
    network.logits(patch)
    expected = network.logits(patch).copy()
    # Without it, nothing can be compiled.
    (model.folder / CHECKPOINT).unlink()
    again = load(model, tmp_path / "cache")
    assert again.runs.precision == "int8"
    np.testing.assert_array_equal(again.logits(patch), expected)


def test_an_accepted_network_whose_compiled_one_was_given_up_is_compiled_again_from_its_ranges(
    tmp_path: Path, patch: NDArray[np.float32]
) -> None:
    network = load(trained_model(), tmp_path)
    network.logits(patch)
    expected = network.logits(patch).copy()
    for blob in tmp_path.glob("*.blob"):
        blob.unlink()
    again = load(trained_model(), tmp_path)
    assert again.runs.precision == "int8"
    np.testing.assert_allclose(again.logits(patch), expected, atol=FLOAT_NOISE)


def test_a_network_that_is_hostile_to_int8_stays_in_float32_and_says_so(
    tmp_path: Path, patch: NDArray[np.float32], hostile_model: TrainedModel
) -> None:
    expected = load(hostile_model, tmp_path / "exact", "float32").logits(patch).copy()
    network = load(hostile_model, tmp_path / "cache")
    np.testing.assert_allclose(network.logits(patch), expected, rtol=FLOAT_NOISE, atol=FLOAT_NOISE)
    assert network.runs.precision == "float32"
    assert int8_count(network.runs.kernels) == 0
    np.testing.assert_array_equal(network.logits(patch), expected)
    [warning] = network.warnings
    assert warning.code == WarningCode.INT8_REFUSED
    assert "of which 99.5% must; float32 was used." in warning.message


def test_a_refusal_is_kept_and_nothing_is_tried_again(
    tmp_path: Path, patch: NDArray[np.float32], hostile_model: TrainedModel
) -> None:
    first = load(hostile_model, tmp_path)
    first.logits(patch)
    again = load(hostile_model, tmp_path)
    assert (again.runs.precision, again.warnings) == ("float32", first.warnings)
    assert len(list(tmp_path.glob("*.blob"))) == 1


def test_a_patch_in_which_nothing_is_named_decides_nothing(tmp_path: Path, patch: NDArray[np.float32]) -> None:
    network = load(trained_model(), tmp_path)
    network.logits(AIR)
    assert network.runs.precision == "float32"
    assert list(tmp_path.glob("*.int8")) == []
    network.logits(patch)
    assert network.runs.precision == "int8"


def test_a_trial_that_was_kept_damaged_is_made_anew(tmp_path: Path, patch: NDArray[np.float32]) -> None:
    load(trained_model(), tmp_path).logits(patch)
    [trial] = tmp_path.glob("*.int8")
    trial.write_bytes(trial.read_bytes()[:-10])
    assert load(trained_model(), tmp_path).runs.precision == "float32"


def test_where_int8_does_not_compile_float32_runs_and_the_next_process_tries_again(
    tmp_path: Path, patch: NDArray[np.float32], exact: NDArray[np.float32]
) -> None:
    network = load(trained_model(), tmp_path, core=CoreWithoutInt8)
    network.logits(patch)
    assert network.runs.precision == "float32"
    np.testing.assert_array_equal(network.logits(patch), exact)
    assert [warning.code for warning in network.warnings] == [WarningCode.INT8_REFUSED]
    again = load(trained_model(), tmp_path)
    again.logits(patch)
    assert (again.runs.precision, again.warnings) == ("int8", ())


def test_a_decision_that_memory_did_not_suffice_for_is_made_with_the_next_image(
    tmp_path: Path, patch: NDArray[np.float32], exact: NDArray[np.float32]
) -> None:
    core = CoreWithoutInt8()
    core.error = MemoryError()
    network = load(trained_model(), tmp_path, core=lambda: core)
    with pytest.raises(MemoryError):
        network.logits(patch)
    core.error = None
    np.testing.assert_allclose(network.logits(patch), exact, atol=FLOAT_NOISE)
    assert network.runs.precision == "int8"


def test_over_planes_float32_runs(tmp_path: Path, patch: NDArray[np.float32]) -> None:
    network = load(trained_model(), tmp_path, core=CoreWithoutVolumes)
    network.logits(patch)
    assert (network.runs.precision, network.runs.formulation, network.warnings) == ("float32", "planes", ())
    assert list(tmp_path.glob("*.int8")) == []


def detect(folder: Path, model: TrainedModel) -> Detection:
    write_nifti(folder / "ct.nii", *lumbar_scan())
    task = DetectionTask(folder / "ct.nii", "total_body", model, None, device="cpu")
    return Pipeline(InferenceOptions(1, "int8", folder / "cache")).detect(task, lambda *_: None)


def test_an_answer_tells_int8(tmp_path: Path) -> None:
    found = detect(tmp_path, trained_model())
    assert [one.label for one in found.vertebrae] == ["L3", "L4", "L5", "S1"]
    assert (found.precision, found.networks[-1].precision) == ("int8", "int8")


def test_an_answer_tells_that_int8_was_refused(tmp_path: Path, hostile_model: TrainedModel) -> None:
    found = detect(tmp_path, hostile_model)
    assert found.precision == "float32"
    assert WarningCode.INT8_REFUSED in {warning.code for warning in found.warnings}
