"""Runs a network on the CPU with OpenVINO: the graph is built from the checkpoint's arrays, without PyTorch."""

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as ops

from errors import DamagedWeights
from findings import EngineOptions
from networks.checkpoint import Tensors, read_tensors
from networks.plans import Architecture, Plan, Triple, read_plan

SPATIAL_AXES = np.array([2, 3, 4])
"""Depth, height and width of OpenVINO's (batch, channel, z, y, x)."""


class OpenVinoNetwork:
    """A compiled network; see `networks.Network`."""

    device = "cpu"

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        self.plan = read_plan(folder)
        tensors = read_tensors(folder / "fold_0" / "checkpoint_final.pth")
        self._request = _compiled(_graph(self.plan, tensors), options).create_infer_request()

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x); overwritten by the next call."""
        self._request.infer({0: np.ascontiguousarray(patch[None, None])}, share_inputs=True)
        output: NDArray[np.float32] = self._request.get_output_tensor().data[0]
        return output


def _compiled(graph: openvino.Model, options: EngineOptions) -> openvino.CompiledModel:
    core = openvino.Core()
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _precision(core, options.precision),
        # Keyed by OpenVINO with the graph and its weights.
        "CACHE_DIR": str(options.cache_folder),
    }
    if options.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = options.threads
    return core.compile_model(graph, "CPU", settings)


def _precision(core: openvino.Core, wish: str) -> openvino.Type:
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return openvino.Type.bf16 if wish == "auto" and has_bfloat16 else openvino.Type.f32


def _graph(plan: Plan, tensors: Tensors) -> openvino.Model:
    """The PlainConvUNet of ``plan`` with the weights in ``tensors``, from one patch to the logits of all classes."""
    patch = ops.parameter([1, 1, *plan.patch_zyx], np.float32, name="patch")
    try:
        logits = _decoded(_encoded(patch, plan.architecture, tensors), plan.architecture, tensors)
        model = openvino.Model([logits], [patch], plan.dataset_name)
    except KeyError as error:
        raise DamagedWeights(f"The checkpoint of {plan.dataset_name} lacks the tensor {error.args[0]}.") from error
    except RuntimeError as error:
        raise DamagedWeights(f"The checkpoint of {plan.dataset_name} does not fit its plans.json.") from error
    if list(model.output().shape) != [1, plan.architecture.heads, *plan.patch_zyx]:
        raise DamagedWeights(f"The checkpoint of {plan.dataset_name} does not fit its labels or its patch.")
    return model


def _encoded(node: openvino.Node, architecture: Architecture, tensors: Tensors) -> list[openvino.Node]:
    """The output of every stage, from the finest to the coarsest."""
    outputs = []
    for stage, stride in enumerate(architecture.strides):
        for index in range(architecture.encoder_convolutions[stage]):
            name = f"encoder.stages.{stage}.0.convs.{index}"
            node = _convolved(node, name, architecture, tensors, stride if index == 0 else (1, 1, 1))
        outputs.append(node)
    return outputs


def _decoded(skips: list[openvino.Node], architecture: Architecture, tensors: Tensors) -> openvino.Node:
    node = skips[-1]
    for stage, convolutions in enumerate(architecture.decoder_convolutions):
        stride = architecture.strides[-1 - stage]
        name = f"decoder.transpconvs.{stage}"
        up = ops.convolution_backprop_data(
            node,
            tensors[f"{name}.weight"],
            strides=list(stride),
            pads_begin=[0] * 3,
            pads_end=[0] * 3,
            dilations=[1] * 3,
        )
        node = ops.concat([ops.add(up, _per_channel(tensors[f"{name}.bias"])), skips[-2 - stage]], axis=1)
        for index in range(convolutions):
            node = _convolved(node, f"decoder.stages.{stage}.convs.{index}", architecture, tensors, (1, 1, 1))
    head = f"decoder.seg_layers.{len(architecture.decoder_convolutions) - 1}"
    logits = _plain_convolution(node, tensors[f"{head}.weight"], (1, 1, 1))
    return ops.add(logits, _per_channel(tensors[f"{head}.bias"]))


def _convolved(
    node: openvino.Node, name: str, architecture: Architecture, tensors: Tensors, stride: Triple
) -> openvino.Node:
    """Convolution, instance norm, leaky ReLU. The norm takes any bias in front of it away, so that is left out."""
    node = _plain_convolution(node, tensors[f"{name}.conv.weight"], stride)
    node = ops.mvn(node, SPATIAL_AXES, True, architecture.norm_epsilon, "inside_sqrt")
    node = ops.multiply(node, _per_channel(tensors[f"{name}.norm.weight"]))
    node = ops.add(node, _per_channel(tensors[f"{name}.norm.bias"]))
    return ops.prelu(node, np.array([architecture.leaky_slope], np.float32))


def _plain_convolution(node: openvino.Node, weight: NDArray[np.float32], stride: Triple) -> openvino.Node:
    pads = [(size - 1) // 2 for size in weight.shape[2:]]
    return ops.convolution(node, weight, strides=list(stride), pads_begin=pads, pads_end=pads, dilations=[1] * 3)


def _per_channel(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.reshape(1, -1, 1, 1, 1)
