"""A network's graph in OpenVINO, built from its plan and its checkpoint's arrays, in whichever formulation."""

from dataclasses import dataclass

import numpy as np

from openscans.networks import fit
from openscans.networks.checkpoint import Tensors
from openscans.networks.openvino_formulations import Formulation, Volumes
from openscans.networks.openvino_runtime import openvino, ops
from openscans.networks.plans import Architecture, Plan, Triple

GRAPH_VERSION = "4"
"""To be raised whenever `build_graph` builds another graph from the same files: compiled ones outlive an update."""

KEEP: Triple = (1, 1, 1)
"""The stride of a convolution that keeps the size."""


def build_graph(
    plan: Plan, tensors: Tensors, precision: openvino.Type, formulation: Formulation | None = None
) -> openvino.Model:
    """The PlainConvUNet of ``plan`` with the weights in ``tensors``: a patch (1, 1, z, y, x) to logits of all classes.

    ``formulation`` None: over volumes. Raises DamagedWeights.
    """
    fit.check_tensors(plan, tensors)
    form = Volumes() if formulation is None else formulation
    patch = ops.parameter([1, 1, *plan.patch_zyx], np.float32, name="patch")
    layers = _Layers(plan.architecture, tensors, precision, form)
    logits = form.leave(layers.decode(layers.encode(form.enter(patch))))
    return openvino.Model([logits], [patch], plan.dataset_name)


@dataclass(frozen=True)
class _Layers:
    """Puts layers behind a node, with the weights that ``tensors`` has under their names in the module."""

    architecture: Architecture
    tensors: Tensors
    precision: openvino.Type
    form: Formulation

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
        logits = self.form.convolve(node, self.tensors[f"{head}.weight"], KEEP)
        return ops.add(logits, self.form.per_channel(self.tensors[f"{head}.bias"]))

    def _upsample(self, node: openvino.Node, name: str, stride: Triple) -> openvino.Node:
        """Transposed convolution."""
        up = self.form.enlarge(node, self.tensors[f"{name}.weight"], stride)
        return ops.add(up, self.form.per_channel(self.tensors[f"{name}.bias"]))

    def _convolve(self, node: openvino.Node, name: str, stride: Triple) -> openvino.Node:
        """Convolution, instance norm, leaky ReLU. The norm takes any bias in front of it away, so that is left out."""
        return self._activate(self.form.convolve(node, self.tensors[f"{name}.conv.weight"], stride), name)

    def _join(self, up: openvino.Node, skip: openvino.Node, name: str) -> openvino.Node:
        """`_convolve` over the channels of ``up`` and then those of ``skip``.

        As the sum of two convolutions, which takes less time and memory than putting both inputs into one array.
        """
        weight = self.tensors[f"{name}.conv.weight"]
        first = self.form.channels(up)
        parts = (self.form.convolve(up, weight[:, :first], KEEP), self.form.convolve(skip, weight[:, first:], KEEP))
        return self._activate(ops.add(*parts), name)

    def _activate(self, node: openvino.Node, name: str) -> openvino.Node:
        """Instance norm, leaky ReLU."""
        node = self.form.standardise(node, self.architecture.norm_epsilon, self.precision)
        node = ops.multiply(node, self.form.per_channel(self.tensors[f"{name}.norm.weight"]))
        node = ops.add(node, self.form.per_channel(self.tensors[f"{name}.norm.bias"]))
        return ops.prelu(node, np.array([self.architecture.leaky_slope], np.float32))
