"""A network's graph in OpenVINO, built from its plan and its checkpoint's arrays, in whichever formulation."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from openscans.networks import fit
from openscans.networks.checkpoint import Tensors
from openscans.networks.openvino_formulations import KEEP, Formulation, Transposed, Volumes
from openscans.networks.openvino_runtime import openvino, ops
from openscans.networks.plans import Architecture, Plan, Triple

GRAPH_VERSION = "4"
"""To be raised whenever `build_graph` builds another graph from the same files: compiled ones outlive an update."""


def build_graph(
    plan: Plan, tensors: Tensors, precision: openvino.Type, formulation: Formulation | None = None
) -> openvino.Model:
    """The PlainConvUNet of ``plan`` with the weights in ``tensors``, from a patch (1, 1, z, y, x) to its logits.

    ``formulation``, whose `leave` sorts the logits; None: over volumes. Raises DamagedWeights.
    """
    fit.check_tensors(plan, tensors)
    form = Volumes() if formulation is None else formulation
    patch = ops.parameter([1, 1, *plan.patch_zyx], np.float32, name="patch")
    layers = _Layers(plan.architecture, tensors, precision, form)
    logits = layers.decode(layers.encode(form.enter(patch)))
    return openvino.Model([logits], [patch], plan.dataset_name)


def build_small_graph(edge: int, weights: Iterable[tuple[int, ...]], formulation: Formulation) -> openvino.Model:
    """Convolutions alone, of ``weights`` of these shapes, over a cube (1, 1, z, y, x) of ``edge`` voxels a side."""
    patch = ops.parameter([1, 1, *[edge] * 3], np.float32)
    node = formulation.enter(patch)
    for shape in weights:
        node = formulation.convolve(node, np.ones(shape, np.float32), KEEP)
    return openvino.Model([node], [patch], "small")


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
            node = self._join(node, skips[-2 - stage], stage)
            for index in range(1, convolutions):
                node = self._convolve(node, f"decoder.stages.{stage}.convs.{index}", KEEP)
        head = f"decoder.seg_layers.{len(self.architecture.decoder_convolutions) - 1}"
        logits = _named(head, self.form.convolve(node, self.tensors[f"{head}.weight"], KEEP))
        return ops.add(logits, self.form.per_channel(self.tensors[f"{head}.bias"]))

    def _convolve(self, node: openvino.Node, name: str, stride: Triple) -> openvino.Node:
        """Convolution, instance norm, leaky ReLU. The norm takes any bias in front of it away, so that is left out."""
        return self._activate(_named(name, self.form.convolve(node, self.tensors[f"{name}.conv.weight"], stride)), name)

    def _join(self, node: openvino.Node, skip: openvino.Node, stage: int) -> openvino.Node:
        """The first convolution of a decoder's ``stage``, over its input, enlarged, and the encoder's output."""
        up, name = f"decoder.transpconvs.{stage}", f"decoder.stages.{stage}.convs.0"
        stride = self.architecture.strides[-1 - stage]
        transposed = Transposed(self.tensors[f"{up}.weight"], self.tensors[f"{up}.bias"], stride)
        joined = self.form.join(node, transposed, skip, self.tensors[f"{name}.conv.weight"], name)
        return self._activate(joined, name)

    def _activate(self, node: openvino.Node, name: str) -> openvino.Node:
        """Instance norm, leaky ReLU."""
        node = self.form.standardise(node, self.architecture.norm_epsilon, self.precision)
        node = ops.multiply(node, self.form.per_channel(self.tensors[f"{name}.norm.weight"]))
        node = ops.add(node, self.form.per_channel(self.tensors[f"{name}.norm.bias"]))
        return ops.prelu(node, np.array([self.architecture.leaky_slope], np.float32))


def _named(name: str, convolution: openvino.Node) -> openvino.Node:
    """``convolution`` as it is found again in the graph: by the name of its weights' module."""
    convolution.set_friendly_name(name)
    return convolution
