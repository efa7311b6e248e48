"""The engines: the same weights give the same labels with OpenVINO and PyTorch; what does not fit is refused."""

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from numpy.typing import NDArray

from openscans import networks
from openscans.errors import DamagedWeights, InvalidRequest
from openscans.networks import TORCH_ON_CPU
from openscans.networks.engines import ENGINES
from openscans.networks.torch_network import TorchNetwork
from openscans.system import devices
from openscans.types import InferenceOptions, TrainedModel
from phantom import drawing, layout, specs, spine
from tests import small_networks

ROOT = Path(__file__).resolve().parents[2]
Float32 = NDArray[np.float32]


@pytest.fixture
def options(tmp_path: Path) -> InferenceOptions:
    return InferenceOptions(threads=None, precision="float32", cache_folder=tmp_path / "compiled")


def patch_for(spec: specs.NetworkSpec) -> Float32:
    """A patch of a synthetic CT about the middle of its spine, at the network's spacing, in HU."""
    body = spine.describe(3, spine.LEVELS[10:16])
    affine = np.diag([*[spec.spacing_mm] * 3, 1.0])
    size_mm = np.array(spec.patch_zyx[::-1]) * spec.spacing_mm
    affine[:3, 3] = body.levels[3].center_mm - size_mm / 2
    return drawing.render(body, spec.patch_zyx, affine)[0].astype(np.float32)


def logits(folder: Path, device: str, options: InferenceOptions, patch_hu: Float32) -> Float32:
    network = networks.load_folder(folder, device=device, options=options)
    return network.logits(network.plan.normalise(patch_hu)).copy()


@pytest.mark.parametrize(
    "spec", [small_networks.CT, small_networks.VERTEBRAE, small_networks.MR, small_networks.LAST_STAGE_FLAT]
)
@pytest.mark.parametrize("new_plans", [False, True])
def test_engines_give_the_same_logits(
    tmp_path: Path, options: InferenceOptions, spec: specs.NetworkSpec, new_plans: bool
) -> None:
    folder = small_networks.write(tmp_path, spec, new_plans=new_plans)
    patch = patch_for(spec)
    ours = logits(folder, "cpu", options, patch)
    assert ours.shape == (spec.heads, *spec.patch_zyx)
    np.testing.assert_allclose(ours, logits(folder, TORCH_ON_CPU, options, patch), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", specs.SPECS)
def test_engines_give_the_same_labels_with_full_size_networks(
    tmp_path: Path, options: InferenceOptions, dataset: int
) -> None:
    folder = layout.write_random(tmp_path, dataset)
    patch = patch_for(specs.SPECS[dataset])
    ours = logits(folder, "cpu", options, patch).argmax(axis=0)
    gc.collect()
    theirs = logits(folder, TORCH_ON_CPU, options, patch).argmax(axis=0)
    assert len(np.unique(ours)) > 5
    assert np.mean(ours == theirs) >= 0.999


def test_the_slope_of_the_plan_reaches_both_engines(tmp_path: Path, options: InferenceOptions) -> None:
    folder = small_networks.write(tmp_path, small_networks.MR, new_plans=True)
    patch = patch_for(small_networks.MR)
    usual = logits(folder, "cpu", options, patch)
    plans = folder / "plans.json"
    plans.write_text(plans.read_text().replace('"inplace": true', '"inplace": true, "negative_slope": 0.3'))
    steeper = logits(folder, "cpu", options, patch)
    assert np.abs(steeper - usual).max() > 0.01
    np.testing.assert_allclose(steeper, logits(folder, TORCH_ON_CPU, options, patch), atol=1e-3)


def test_bfloat16_where_the_processor_has_it_gives_nearly_the_same_logits(
    tmp_path: Path, options: InferenceOptions
) -> None:
    folder = small_networks.write(tmp_path, small_networks.VERTEBRAE)
    patch = patch_for(small_networks.VERTEBRAE)
    exact = logits(folder, "cpu", options, patch)
    quick = logits(folder, "cpu", replace(options, precision="auto"), patch)
    assert quick.dtype == np.float32
    # bfloat16 keeps 8 bits: 0.4 % a step, over some twenty layers.
    assert np.abs(quick - exact).mean() < 0.05 * exact.std()


def test_a_patch_that_does_not_lie_contiguously_gives_the_same(tmp_path: Path, options: InferenceOptions) -> None:
    folder = small_networks.write(tmp_path, small_networks.MR)
    network = networks.load_folder(folder, device="cpu", options=options)
    patch = network.plan.normalise(patch_for(small_networks.MR))
    wide = np.zeros([size + 5 for size in patch.shape], np.float32)
    inside = wide[2:-3, 2:-3, 2:-3]
    inside[:] = patch
    expected = network.logits(patch).copy()
    np.testing.assert_array_equal(network.logits(inside), expected)


def cached(options: InferenceOptions) -> set[str]:
    return {path.name for path in options.cache_folder.rglob("*") if path.is_file()}


def test_the_compiled_network_is_kept_and_used_again(tmp_path: Path, options: InferenceOptions) -> None:
    folder = small_networks.write(tmp_path, small_networks.CT)
    patch = patch_for(small_networks.CT)
    first = logits(folder, "cpu", options, patch)
    kept = cached(options)
    assert kept
    np.testing.assert_array_equal(logits(folder, "cpu", options, patch), first)
    assert cached(options) == kept


def test_a_kept_network_that_was_damaged_is_compiled_again(tmp_path: Path, options: InferenceOptions) -> None:
    folder = small_networks.write(tmp_path, small_networks.CT)
    patch = patch_for(small_networks.CT)
    first = logits(folder, "cpu", options, patch)
    for name in cached(options):
        path = options.cache_folder / name
        path.write_bytes(path.read_bytes()[:-1000] + bytes(1000))
    np.testing.assert_array_equal(logits(folder, "cpu", options, patch), first)


def test_a_cache_folder_that_cannot_be_made_is_done_without(tmp_path: Path, options: InferenceOptions) -> None:
    folder = small_networks.write(tmp_path, small_networks.MR)
    (tmp_path / "file").touch()
    nowhere = replace(options, cache_folder=tmp_path / "file" / "compiled")
    assert logits(folder, "cpu", nowhere, patch_for(small_networks.MR)).any()


@pytest.mark.parametrize("name", ["decoder.seg_layers.3.bias", "encoder.stages.0.0.convs.0.conv.weight"])
def test_weights_that_differ_in_one_number_do_not_use_each_others_compiled_network(
    tmp_path: Path, options: InferenceOptions, name: str
) -> None:
    state = layout.random_state_dict(small_networks.CT, 0)
    patch = patch_for(small_networks.CT)
    logits(small_networks.write_state(tmp_path / "one", small_networks.CT, state), "cpu", options, patch)
    kept = cached(options)
    state[name].view(-1)[1] += 5
    other = small_networks.write_state(tmp_path / "other", small_networks.CT, state)
    found = logits(other, "cpu", options, patch)
    assert cached(options) > kept
    np.testing.assert_allclose(found, logits(other, TORCH_ON_CPU, options, patch), atol=1e-3)


ON_BOTH = pytest.mark.parametrize("device", ["cpu", TORCH_ON_CPU])


@ON_BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        {"base_features": 8},
        {"labels": {1: "spine"}},
        {"kernels": ((1, 3, 3),) * 5},
        {"strides": (specs.KEEP, *[specs.HALVE] * 3), "kernels": (specs.CUBE,) * 4},
        {"strides": (specs.KEEP, *[specs.HALVE] * 3, (1, 2, 2))},
    ],
    ids="+".join,
)
def test_a_checkpoint_that_does_not_fit_its_plan_is_refused(
    tmp_path: Path, options: InferenceOptions, device: str, wrong: dict[str, object]
) -> None:
    state = layout.random_state_dict(replace(small_networks.CT, **wrong), 0)
    folder = small_networks.write_state(tmp_path, small_networks.CT, state)
    with pytest.raises(DamagedWeights):
        networks.load_folder(folder, device=device, options=options)


@ON_BOTH
@pytest.mark.parametrize("name", ["encoder.stages.1.0.convs.0.norm.weight", "decoder.transpconvs.0.bias"])
def test_a_checkpoint_that_lacks_a_tensor_is_refused(
    tmp_path: Path, options: InferenceOptions, device: str, name: str
) -> None:
    state = layout.random_state_dict(small_networks.CT, 0)
    del state[name]
    state.pop(f"decoder.{name}", None)
    folder = small_networks.write_state(tmp_path, small_networks.CT, state)
    with pytest.raises(DamagedWeights):
        networks.load_folder(folder, device=device, options=options)


@ON_BOTH
def test_a_patch_that_the_strides_do_not_divide_is_refused(
    tmp_path: Path, options: InferenceOptions, device: str
) -> None:
    spec = replace(small_networks.CT, patch_zyx=(36, 16, 32))
    with pytest.raises(DamagedWeights):
        networks.load_folder(small_networks.write(tmp_path, spec), device=device, options=options)


def test_weights_in_half_precision_are_run_like_others(tmp_path: Path, options: InferenceOptions) -> None:
    state = {name: tensor.half() for name, tensor in layout.random_state_dict(small_networks.MR, 0).items()}
    folder = small_networks.write_state(tmp_path, small_networks.MR, state)
    patch = patch_for(small_networks.MR)
    np.testing.assert_allclose(
        logits(folder, "cpu", options, patch), logits(folder, TORCH_ON_CPU, options, patch), atol=1e-3
    )


class TwoAtOnce(TorchNetwork):
    """As on a card with room for two patches."""

    def at_once(self) -> int:
        return 2


def test_patches_that_are_computed_together_have_the_logits_that_each_has_alone(
    tmp_path: Path, options: InferenceOptions
) -> None:
    folder = small_networks.write(tmp_path, small_networks.MR)
    model = TrainedModel(folder.parent.name, folder, "0" * 64, small_networks.MR.spacing_mm, step=0.5)
    network = TwoAtOnce(model, networks.read_plan(folder), device=TORCH_ON_CPU, options=options)
    random = np.random.default_rng(0)
    patches = [random.standard_normal(network.plan.patch_zyx).astype(np.float32) for _ in range(3)]
    alone = [network.logits(patch).copy() for patch in patches]
    for together, single in zip(network.logits_of_each(patches), alone, strict=True):
        np.testing.assert_allclose(together, single, atol=1e-3)


@pytest.mark.parametrize("wish", ["cpu", TORCH_ON_CPU])
def test_the_cpu_is_given_as_wished(wish: str) -> None:
    assert networks.choose_device(wish) == (wish, None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("wish", ["cuda", "cuda:0", "cuda:7", "mps"])
def test_a_device_that_is_not_there_becomes_the_cpu_with_a_notice(wish: str) -> None:
    device, warning = networks.choose_device(wish)
    assert device == "cpu"
    assert warning is not None
    assert warning.code == "device_fallback"
    assert wish in warning.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_the_cpu_is_chosen_without_a_notice_where_nothing_is_wished() -> None:
    assert networks.choose_device("auto") == ("cpu", None)


@pytest.mark.parametrize("wish", ["", "gpu", "tpu:0", "cpu:onnx", "cuda:", "cuda:x", "CUDA", "cuda:-1"])
def test_a_device_of_an_unknown_name_is_refused(wish: str) -> None:
    with pytest.raises(InvalidRequest):
        networks.choose_device(wish)


@pytest.mark.parametrize("module", ["networks", "networks.plans", "networks.checkpoint", "segmentation.sliding_window"])
def test_importing_loads_neither_torch_nor_openvino(module: str) -> None:
    code = f"import openscans.{module}, sys; print(sorted({{'torch', 'openvino', 'scipy'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_running_on_the_cpu_loads_no_torch(tmp_path: Path, options: InferenceOptions) -> None:
    folder = small_networks.write(tmp_path, small_networks.MR)
    code = (
        "import sys\nfrom pathlib import Path\nfrom openscans import networks\n"
        "from openscans.types import InferenceOptions\n"
        f"options = InferenceOptions(1, 'auto', Path({str(options.cache_folder)!r}))\n"
        f"networks.load_folder(Path({str(folder)!r}), device='cpu', options=options)\nprint('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_every_device_that_may_be_asked_for_has_one_engine() -> None:
    named = ["cpu", TORCH_ON_CPU, "cuda", "cuda:0", "cuda:12", "mps"]
    for device in named:
        assert len([engine for engine in ENGINES if engine.devices.fullmatch(device)]) == 1
    assert all(devices.WISH.fullmatch(device) for device in named if device != TORCH_ON_CPU)
    assert set(devices.AUTOMATIC) <= set(named)


@pytest.mark.parametrize("wish", ["auto", "cpu", "cuda", "cuda:0", "mps"])
def test_health_tells_the_device_that_a_detection_takes(wish: str) -> None:
    device, _ = networks.choose_device(wish)
    assert devices.resolve_device(wish) == device


@pytest.mark.parametrize(("device", "on_this_machine"), [("cpu", True), (TORCH_ON_CPU, True), ("cuda:1", False)])
def test_what_a_patch_takes_of_this_machine_s_memory_depends_on_where_it_is_computed(
    tmp_path: Path, device: str, on_this_machine: bool
) -> None:
    plan = networks.read_plan(small_networks.write(tmp_path, small_networks.CT))
    logits_bytes = 118 * 32 * 16 * 32 * 4
    wide_bytes = 3 * 4 * 32 * 16 * 32 * 2
    assert networks.patch_bytes(plan, device) == logits_bytes + (wide_bytes if on_this_machine else 0)
