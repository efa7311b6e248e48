"""A network's graph in OpenVINO, built from its plan and its checkpoint's arrays, in whichever formulation."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from openscans.networks import fit
from openscans.networks.checkpoint import Tensors
from openscans.networks.openvino_formulations import KEEP, Array, Formulation, Transposed, Volumes
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
    return openvino.Model([_whole(logits)], [patch], plan.dataset_name)


def build_small_graph(edge: int, weights: Iterable[tuple[int, ...]], formulation: Formulation) -> openvino.Model:
    """Convolutions alone, of ``weights`` of these shapes, over a cube (1, 1, z, y, x) of ``edge`` voxels a side."""
    patch = ops.parameter([1, 1, *[edge] * 3], np.float32)
    array = formulation.enter(patch)
    for shape in weights:
        array = formulation.convolve(array, np.ones(shape, np.float32), KEEP)
    return openvino.Model([_whole(array)], [patch], "small")


@dataclass(frozen=True)
class _Layers:
    """Puts layers behind an array, with the weights that ``tensors`` has under their names in the module."""

    architecture: Architecture
    tensors: Tensors
    precision: openvino.Type
    form: Formulation

    def encode(self, array: Array) -> list[Array]:
        """The output of every stage, from the finest to the coarsest."""
        outputs = []
        for stage, stride in enumerate(self.architecture.strides):
            for index in range(self.architecture.encoder_convolutions[stage]):
                name = f"encoder.stages.{stage}.0.convs.{index}"
                array = self._convolve(array, name, stride if index == 0 else KEEP)
            outputs.append(array)
        return outputs

    def decode(self, skips: list[Array]) -> Array:
        """The logits, from the outputs of the encoder's stages."""
        array = skips[-1]
        for stage, convolutions in enumerate(self.architecture.decoder_convolutions):
            array = self._join(array, skips[-2 - stage], stage)
            for index in range(1, convolutions):
                array = self._convolve(array, f"decoder.stages.{stage}.convs.{index}", KEEP)
        head = f"decoder.seg_layers.{len(self.architecture.decoder_convolutions) - 1}"
        logits = _named(head, self.form.convolve(array, self.tensors[f"{head}.weight"], KEEP))
        bias = self.form.per_channel(self.tensors[f"{head}.bias"])
        return tuple(ops.add(part, bias) for part in logits)

    def _convolve(self, array: Array, name: str, stride: Triple) -> Array:
        """Convolution, instance norm, leaky ReLU. The norm takes any bias in front of it away, so that is left out."""
        convolved = self.form.convolve(array, self.tensors[f"{name}.conv.weight"], stride)
        return self._activate(_named(name, convolved), name)

    def _join(self, array: Array, skip: Array, stage: int) -> Array:
        """The first convolution of a decoder's ``stage``, over its input, enlarged, and the encoder's output."""
        up, name = f"decoder.transpconvs.{stage}", f"decoder.stages.{stage}.convs.0"
        stride = self.architecture.strides[-1 - stage]
        transposed = Transposed(self.tensors[f"{up}.weight"], self.tensors[f"{up}.bias"], stride)
        joined = self.form.join(array, transposed, skip, self.tensors[f"{name}.conv.weight"], name)
        return self._activate(joined, name)

    def _activate(self, array: Array, name: str) -> Array:
        """Instance norm, leaky ReLU."""
        scale, shift = (self.form.per_channel(self.tensors[f"{name}.norm.{kind}"]) for kind in ("weight", "bias"))
        slope = np.array([self.architecture.leaky_slope], np.float32)
        standard = self.form.standardise(array, self.architecture.norm_epsilon, self.precision)
        return tuple(ops.prelu(ops.add(ops.multiply(part, scale), shift), slope) for part in standard)


def _whole(array: Array) -> openvino.Node:
    return array[0] if len(array) == 1 else ops.concat(list(array), 0)


def _named(name: str, convolution: Array) -> Array:
    """``convolution`` as it is found again in the graph, where it is in one part: by its weights' module."""
    convolution[0].set_friendly_name(name)
    return convolution
