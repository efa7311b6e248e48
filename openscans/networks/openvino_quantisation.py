"""A network's graph over volumes, made to tell the ranges of its convolutions' inputs, or to convolve in int8.

Changes a finished graph of `build_graph`, whose convolutions have names. OpenVINO takes the operation FakeQuantize in
front of a convolution, on its input and its weights, as the wish to convolve 8-bit integers; what it makes of the wish,
the compiled network's kernels tell.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from openscans.networks.openvino_runtime import openvino, ops

Values = NDArray[np.float32]

CONVOLUTION = "Convolution"
"""OpenVINO's name of one that is not transposed. Those take too little time to gain anything."""

INPUT_LEVELS = 256
"""Of 8 bits. Behind a leaky ReLU nearly all is positive, so a range has an offset of its own."""

WEIGHT_LEVELS = 255
"""Of 8 bits, even about zero."""

SPATIAL = (2, 3, 4)
"""The axes z, y, x."""


def tell_ranges(graph: openvino.Model, names: Iterable[str]) -> openvino.Model:
    """``graph`` with two results more for each of the convolutions ``names``, in order: the least and the largest value
    of each channel of its input, (channel,). The logits come last: what is asked for first is computed first, and an
    array whose range is computed at the end would be held until then.
    """
    results = []
    for node in _named(graph, names):
        for reduce in (ops.reduce_min, ops.reduce_max):
            reduced = reduce(node.input_value(0), np.array(SPATIAL), False)
            results.append(ops.reshape(reduced, np.array([-1]), False).output(0))
    results.append(graph.get_results()[0].input_value(0))
    return openvino.Model(results, graph.get_parameters(), graph.get_friendly_name())


def quantise(graph: openvino.Model, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Let the convolutions that ``ranges`` names compute in int8: each of its input between these two values.

    Weights are rounded for every output channel by its own largest. A norm behind each convolution takes any error away
    that is the same for a whole channel, so nothing is corrected.
    """
    rounded: dict[tuple[str, int, float, float], openvino.Node] = {}
    for node in _named(graph, ranges):
        source, (low, high) = node.input_value(0), ranges[node.get_friendly_name()]
        key = source.get_node().get_name(), source.get_index(), low, high
        if key not in rounded:
            rounded[key] = _fake_quantize(source, np.array(low, np.float32), np.array(high, np.float32), INPUT_LEVELS)
        weight = node.input_value(1)
        values = weight.get_node().data
        largest = np.abs(values).max(axis=(1, 2, 3, 4), keepdims=True)
        largest[largest == 0] = 1
        node.input(0).replace_source_output(rounded[key].output(0))
        node.input(1).replace_source_output(_fake_quantize(weight, -largest, largest, WEIGHT_LEVELS).output(0))
    graph.validate_nodes_and_infer_types()


def _named(graph: openvino.Model, names: Iterable[str]) -> Iterator[openvino.Node]:
    """The convolutions of these names, in the order of ``names``."""
    by_name = {node.get_friendly_name(): node for node in graph.get_ops() if node.get_type_name() == CONVOLUTION}
    return (by_name[name] for name in names)


def _fake_quantize(source: openvino.Output, low: Values, high: Values, levels: int) -> openvino.Node:
    ends = ops.constant(low), ops.constant(high)
    return ops.fake_quantize(source, *ends, *ends, levels)
