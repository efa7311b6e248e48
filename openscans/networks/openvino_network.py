"""Runs a network on the CPU with OpenVINO: the graph is built from the checkpoint's arrays, without PyTorch."""

import logging
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openscans.networks import compiled_cache, fit
from openscans.networks.checkpoint import CHECKPOINT, Tensors, read_tensors
from openscans.networks.network import Network
from openscans.networks.plans import Architecture, Plan, Triple
from openscans.system import parallel
from openscans.types import InferenceOptions, TrainedModel

# Importing openvino tells its makers of it, and writes to the user's home, unless this part of it cannot be found.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

log = logging.getLogger("openscans.networks")

GRAPH_VERSION = "3"
"""To be raised whenever `graph` builds another graph from the same files: compiled ones outlive an update."""

KEEP: Triple = (1, 1, 1)
"""The stride of a convolution that keeps the size."""

SPATIAL_AXES = np.array([2, 3, 4])
"""Depth, height and width of OpenVINO's (batch, channel, z, y, x)."""


class OpenVinoNetwork(Network):
    """A compiled network; see `network.Network`."""

    def __init__(self, model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> None:
        self.plan = plan
        self.device = device
        self._request = _compile(model, plan, options).create_infer_request()

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x); overwritten by the next call."""
        self._request.infer({0: np.ascontiguousarray(patch[None, None])}, share_inputs=True)
        output: NDArray[np.float32] = self._request.get_output_tensor().data[0]
        return output


def _compile(model: TrainedModel, plan: Plan, options: InferenceOptions) -> openvino.CompiledModel:
    """The network of ``model``: as it was compiled before where that was kept, else compiled, and kept.

    OpenVINO's own cache is keyed by node names too, which count on through the process: it finds a network only where
    as many were built before it as last time, and only after the checkpoint was read and the graph was built.
    """
    core = openvino.Core()
    settings = _settings(core, options)
    key = _key(core, model, settings)
    cache = compiled_cache.open_cache(options.cache_folder)
    known = cache.get(key)
    if known is not None:
        try:
            return core.import_model(known, "CPU", settings)
        except RuntimeError:
            log.warning("A compiled network was kept, but OpenVINO refuses it; it is compiled again.")
    graph = build_graph(plan, read_tensors(model.folder / CHECKPOINT), settings["INFERENCE_PRECISION_HINT"])
    compiled = core.compile_model(graph, "CPU", settings)
    cache.put(key, compiled.export_model().getbuffer())
    return compiled


def _key(core: openvino.Core, model: TrainedModel, settings: dict[str, object]) -> str:
    """Changes with the weights, and with all that a compiled network depends on beside them.

    The weights' digest is the one that was made when they were installed: another look at hundreds of megabytes would
    take longer than all the rest of loading what was kept.
    """
    processor = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
    precision = str(settings["INFERENCE_PRECISION_HINT"])
    return compiled_cache.key_of(model.sha256, GRAPH_VERSION, openvino.get_version(), processor, precision)


def _settings(core: openvino.Core, options: InferenceOptions) -> dict[str, object]:
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _precision(core, options.precision),
    }
    threads = parallel.thread_limit() if options.threads is None else options.threads
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def _precision(core: openvino.Core, wish: str) -> openvino.Type:
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return openvino.Type.bf16 if wish == "auto" and has_bfloat16 else openvino.Type.f32


def build_graph(plan: Plan, tensors: Tensors, precision: openvino.Type) -> openvino.Model:
    """The PlainConvUNet of ``plan`` with the weights in ``tensors``, from one patch to the logits of all classes."""
    fit.check_tensors(plan, tensors)
    patch = ops.parameter([1, 1, *plan.patch_zyx], np.float32, name="patch")
    network = _Layers(plan.architecture, tensors, precision)
    return openvino.Model([network.decode(network.encode(patch))], [patch], plan.dataset_name)


@dataclass(frozen=True)
class _Layers:
    """Puts layers behind a node, with the weights that ``tensors`` has under their names in the module."""

    architecture: Architecture
    tensors: Tensors
    precision: openvino.Type

    def encode(self, node: openvino.Node) -> list[openvino.Node]:
        """The output of every stage, from the finest to the coarsest."""
        outputs = []
        for stage, stride in enumerate(self.architecture.strides):
            for index in range(self.architecture.encoder_convolutions[stage]):
                name = f"encoder.stages.{stage}.0.convs.{index}"
                node = self._convolve(node, name, stride if index == 0 else KEEP)
            outputs.append(node)
        return outputs

    def decode(self, skips: list[openvino.Node]) -> openvino.Node:
        """The logits, from the outputs of the encoder's stages."""
        node = skips[-1]
        for stage, convolutions in enumerate(self.architecture.decoder_convolutions):
            up = self._upsample(node, f"decoder.transpconvs.{stage}", self.architecture.strides[-1 - stage])
            node = self._join(up, skips[-2 - stage], f"decoder.stages.{stage}.convs.0")
            for index in range(1, convolutions):
                node = self._convolve(node, f"decoder.stages.{stage}.convs.{index}", KEEP)
        head = f"decoder.seg_layers.{len(self.architecture.decoder_convolutions) - 1}"
        logits = _convolution(node, self.tensors[f"{head}.weight"], KEEP)
        return ops.add(logits, _per_channel(self.tensors[f"{head}.bias"]))

    def _upsample(self, node: openvino.Node, name: str, stride: Triple) -> openvino.Node:
        """Transposed convolution."""
        none = [0] * 3
        weight = ops.constant(self.tensors[f"{name}.weight"])
        up = ops.convolution_backprop_data(
            node, weight, strides=list(stride), pads_begin=none, pads_end=none, dilations=[1] * 3
        )
        return ops.add(up, _per_channel(self.tensors[f"{name}.bias"]))

    def _convolve(self, node: openvino.Node, name: str, stride: Triple) -> openvino.Node:
        """Convolution, instance norm, leaky ReLU. The norm takes any bias in front of it away, so that is left out."""
        return self._activate(_convolution(node, self.tensors[f"{name}.conv.weight"], stride), name)

    def _join(self, up: openvino.Node, skip: openvino.Node, name: str) -> openvino.Node:
        """`_convolve` over the channels of ``up`` and then those of ``skip``.

        As the sum of two convolutions, which takes less time and memory than putting both inputs into one array.
        """
        weight = self.tensors[f"{name}.conv.weight"]
        first = up.get_output_shape(0)[1]
        parts = (_convolution(up, weight[:, :first], KEEP), _convolution(skip, weight[:, first:], KEEP))
        return self._activate(ops.add(*parts), name)

    def _activate(self, node: openvino.Node, name: str) -> openvino.Node:
        """Instance norm, leaky ReLU."""
        node = self._normalise(node)
        node = ops.multiply(node, _per_channel(self.tensors[f"{name}.norm.weight"]))
        node = ops.add(node, _per_channel(self.tensors[f"{name}.norm.bias"]))
        return ops.prelu(node, np.array([self.architecture.leaky_slope], np.float32))

    def _normalise(self, node: openvino.Node) -> openvino.Node:
        """Instance norm, without its weights.

        OpenVINO's own sums up a channel's millions of voxels in one float32, which is off by 6e-5 and after twenty
        layers by 0.02. That is nothing beside bfloat16, but in float32 it would decide labels.
        """
        epsilon = self.architecture.norm_epsilon
        if self.precision == openvino.Type.bf16:
            return ops.mvn(node, SPATIAL_AXES, True, epsilon, "inside_sqrt")
        centred = ops.subtract(node, _mean(node))
        variance = _mean(ops.multiply(centred, centred))
        return ops.divide(centred, ops.sqrt(ops.add(variance, ops.constant(np.float32(epsilon)))))


def _mean(node: openvino.Node) -> openvino.Node:
    """Each channel's mean, axis by axis, so that no sum is long; pools, because successive sums would be made one."""
    z, y, x = (int(size) for size in node.get_output_shape(0)[2:])
    for kernel in ([1, 1, x], [1, y, 1], [z, 1, 1]):
        node = ops.avg_pool(node, kernel, [0] * 3, [0] * 3, kernel, exclude_pad=True)
    return node


def _convolution(node: openvino.Node, weight: NDArray[np.float32], stride: Triple) -> openvino.Node:
    pads = [(size - 1) // 2 for size in weight.shape[2:]]
    kernel = ops.constant(np.ascontiguousarray(weight))
    return ops.convolution(node, kernel, list(stride), pads_begin=pads, pads_end=pads, dilations=[1] * 3)


def _per_channel(values: NDArray[np.float32]) -> openvino.Node:
    return ops.constant(values.reshape(1, -1, 1, 1, 1))
