"""A network over planes is the same network; taken where volumes have no kernels, and only there."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openscans import networks
from openscans.networks.checkpoint import CHECKPOINT, read_tensors
from openscans.networks.openvino_compilation import CompiledNetwork, Way
from openscans.networks.openvino_formulations import Planes, Volumes
from openscans.networks.openvino_graph import build_graph
from openscans.networks.openvino_network import OpenVinoNetwork
from openscans.networks.openvino_runtime import openvino
from openscans.types import InferenceOptions, TrainedModel, WarningCode
from phantom.specs import NetworkSpec
from tests import small_networks
from tests.networks.cores import (
    CoreShortOfMemory,
    CoreWithoutBfloat16,
    CoreWithoutKernels,
    CoreWithoutVolumes,
    needs_volumes,
)

FLOAT_NOISE = 1e-4
"""Beside logits of about ten: sums of some thousand numbers in another order."""

HAS_BFLOAT16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def options(tmp_path: Path) -> InferenceOptions:
    return InferenceOptions(threads=1, precision="float32", cache_folder=tmp_path / "compiled")


def load(
    results: Path, options: InferenceOptions, core: openvino.Core, spec: NetworkSpec = small_networks.CT
) -> OpenVinoNetwork:
    folder = small_networks.write(results, spec)
    model = TrainedModel(folder.parent.name, folder, "0" * 64, spec.spacing_mm, step=0.5)
    return OpenVinoNetwork(model, networks.read_plan(folder), device="cpu", options=options, core=core)


def logits(network: OpenVinoNetwork) -> NDArray[np.float32]:
    return network.logits(np.random.default_rng(0).standard_normal(network.plan.patch_zyx, np.float32)).copy()


@pytest.mark.parametrize(
    "spec",
    [small_networks.CT, small_networks.MR, small_networks.LAST_STAGE_FLAT],
    ids=["even strides", "uneven strides", "last stage flat"],
)
def test_planes_have_the_logits_of_volumes(tmp_path: Path, options: InferenceOptions, spec: NetworkSpec) -> None:
    planes = load(tmp_path, options, CoreWithoutVolumes(), spec)
    assert planes.runs.formulation == "planes"
    np.testing.assert_allclose(logits(planes), logits_over_volumes(tmp_path, spec), atol=FLOAT_NOISE)


def logits_over_volumes(results: Path, spec: NetworkSpec) -> NDArray[np.float32]:
    """In float32, by whatever kernels there are."""
    folder = small_networks.write(results, spec)
    plan = networks.read_plan(folder)
    graph = build_graph(plan, read_tensors(folder / CHECKPOINT), openvino.Type.f32, Volumes())
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.f32})
    patch = np.random.default_rng(0).standard_normal(plan.patch_zyx, np.float32)
    return CompiledNetwork(compiled, Way("float32", Volumes())).logits(patch)


def test_where_volumes_have_no_kernels_no_convolution_runs_on_reference_loops(
    tmp_path: Path, options: InferenceOptions
) -> None:
    found = load(tmp_path, options, CoreWithoutVolumes()).runs
    assert sum(found.kernels.values()) > 0
    assert not any(kernel.startswith("ref") for kernel in found.kernels)
    assert not found.slow


def test_planes_have_no_transposed_convolutions_which_arm_rounds_to_bfloat16(tmp_path: Path) -> None:
    folder = small_networks.write(tmp_path, small_networks.CT)
    plan, tensors = networks.read_plan(folder), read_tensors(folder / CHECKPOINT)
    graph = build_graph(plan, tensors, openvino.Type.f32, Planes())
    assert "ConvolutionBackpropData" not in {node.get_type_name() for node in graph.get_ops()}


def test_planes_are_computed_in_float32_whatever_the_processor_has(tmp_path: Path, options: InferenceOptions) -> None:
    assert load(tmp_path, replace(options, precision="auto"), CoreWithoutVolumes()).runs.precision == "float32"


@needs_volumes
def test_each_formulation_keeps_its_own_compiled_network(tmp_path: Path, options: InferenceOptions) -> None:
    load(tmp_path, options, openvino.Core())
    # Another machine that shares the folder.
    for abilities in options.cache_folder.glob("*.abilities"):
        abilities.unlink()
    assert load(tmp_path, options, CoreWithoutVolumes()).runs.formulation == "planes"
    assert len(list(options.cache_folder.glob("*.blob"))) == 2


def test_what_the_runtime_can_do_is_tried_once(tmp_path: Path, options: InferenceOptions) -> None:
    load(tmp_path, options, CoreWithoutVolumes())
    # This core would do volumes; what was found before is taken as it is.
    assert load(tmp_path, options, openvino.Core()).runs.formulation == "planes"


def test_reference_loops_that_nothing_avoids_are_told(
    tmp_path: Path, options: InferenceOptions, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "openscans.networks"):
        found = load(tmp_path, options, CoreWithoutKernels()).runs
    assert found.slow
    slow, every = found.kernels["ref_any_f32"], sum(found.kernels.values())
    assert f"{slow} of {every} convolutions of {found.network} run on reference loops" in caplog.text
    (warning,) = networks.slow_engine_warnings([found])
    assert warning.code == WarningCode.SLOW_ENGINE


@needs_volumes
def test_a_trial_that_fails_is_made_again_by_the_next_process(tmp_path: Path, options: InferenceOptions) -> None:
    assert load(tmp_path, options, CoreShortOfMemory()).runs.formulation == "planes"
    assert load(tmp_path, options, openvino.Core()).runs.formulation == "volumes"


@needs_volumes
def test_bfloat16_that_does_not_compile_is_replaced_by_float32_and_told(
    tmp_path: Path, options: InferenceOptions, caplog: pytest.LogCaptureFixture
) -> None:
    auto = replace(options, precision="auto")
    with caplog.at_level(logging.WARNING, "openscans.networks"):
        network = load(tmp_path, auto, CoreWithoutBfloat16())
    assert network.runs.precision == "float32"
    assert "OpenVINO compiles nothing in bf16 here" in caplog.text
    exact = load(tmp_path / "exact", replace(options, cache_folder=tmp_path / "other"), openvino.Core())
    np.testing.assert_array_equal(logits(network), logits(exact))


@needs_volumes
@pytest.mark.skipif(not HAS_BFLOAT16, reason="no bfloat16 here")
def test_bfloat16_is_taken_where_it_compiles(tmp_path: Path, options: InferenceOptions) -> None:
    found = load(tmp_path, replace(options, precision="auto"), openvino.Core()).runs
    assert (found.precision, found.formulation) == ("bfloat16", "volumes")
