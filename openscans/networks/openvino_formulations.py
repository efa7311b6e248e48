"""Two ways to say a network's layers to OpenVINO, with the same logits: over volumes, and over planes.

Over volumes is how the network was trained. Where the runtime has no kernels for that, as on ARM, planes do: a
convolution over a volume is the sum of as many convolutions over planes as its kernel has taps along z, each of planes
that lie one tap further; a transposed one, whose kernel is its stride, is one to more channels, sorted into planes.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openscans.networks.openvino_runtime import openvino, ops
from openscans.networks.plans import Triple

Weight = NDArray[np.float32]
"""Of a convolution (out, in, z, y, x), of a transposed one (in, out, z, y, x)."""

JOIN_BELOW = 64
"""Channels below which the taps of a convolution are joined to one array and convolved at once. With fewer channels the
sum of the taps gets reference loops on processors with SVE."""


class Formulation(Protocol):
    """How arrays of the network lie in OpenVINO's, and what layers are there."""

    name: str
    """As it is told, and as it is part of a compiled network's key."""

    def enter(self, patch: openvino.Node) -> openvino.Node:
        """The first array, of a ``patch`` (1, 1, z, y, x)."""
        ...

    def leave(self, node: openvino.Node) -> openvino.Node:
        """The logits (1, class, z, y, x)."""
        ...

    def channels(self, node: openvino.Node) -> int: ...

    def convolve(self, node: openvino.Node, weight: Weight, stride: Triple) -> openvino.Node:
        """Padded, so that with a stride of 1 the size stays."""
        ...

    def enlarge(self, node: openvino.Node, weight: Weight, stride: Triple) -> openvino.Node:
        """Transposed convolution, whose kernel is its ``stride``."""
        ...

    def per_channel(self, values: Weight) -> openvino.Node:
        """A constant that adds to, or multiplies, each channel's values."""
        ...

    def standardise(self, node: openvino.Node, epsilon: float, precision: openvino.Type) -> openvino.Node:
        """Each channel less its mean, by the root of its variance and ``epsilon``: an instance norm without weights."""
        ...


class Volumes:
    """Arrays are (1, channel, z, y, x)."""

    name = "volumes"

    def enter(self, patch: openvino.Node) -> openvino.Node:
        return patch

    def leave(self, node: openvino.Node) -> openvino.Node:
        return node

    def channels(self, node: openvino.Node) -> int:
        return int(node.get_output_shape(0)[1])

    def convolve(self, node: openvino.Node, weight: Weight, stride: Triple) -> openvino.Node:
        pads = [(size - 1) // 2 for size in weight.shape[2:]]
        return ops.convolution(node, _constant(weight), list(stride), pads, pads, [1] * 3)

    def enlarge(self, node: openvino.Node, weight: Weight, stride: Triple) -> openvino.Node:
        none = [0] * 3
        return ops.convolution_backprop_data(
            node, _constant(weight), strides=list(stride), pads_begin=none, pads_end=none, dilations=[1] * 3
        )

    def per_channel(self, values: Weight) -> openvino.Node:
        return _constant(values.reshape(1, -1, 1, 1, 1))

    def standardise(self, node: openvino.Node, epsilon: float, precision: openvino.Type) -> openvino.Node:
        if precision == openvino.Type.bf16:
            return ops.mvn(node, np.array([2, 3, 4]), True, epsilon, "inside_sqrt")
        return _standardise(node, epsilon, self._mean)

    def _mean(self, node: openvino.Node) -> openvino.Node:
        z, y, x = (int(size) for size in node.get_output_shape(0)[2:])
        return _pool(_pool(_pool(node, [1, 1, x]), [1, y, 1]), [z, 1, 1])


class Planes:
    """Arrays are (z, channel, y, x): every plane is an image of its own."""

    name = "planes"

    def enter(self, patch: openvino.Node) -> openvino.Node:
        _, _, z, y, x = patch.get_output_shape(0)
        return ops.reshape(patch, np.array([z, 1, y, x]), False)

    def leave(self, node: openvino.Node) -> openvino.Node:
        return ops.unsqueeze(ops.transpose(node, np.array([1, 0, 2, 3])), np.array(0))

    def channels(self, node: openvino.Node) -> int:
        return int(node.get_output_shape(0)[1])

    def convolve(self, node: openvino.Node, weight: Weight, stride: Triple) -> openvino.Node:
        step, *steps = stride
        out, channels, taps, y, x = weight.shape
        pads = [(y - 1) // 2, (x - 1) // 2]
        along = self._taps(node, taps, step)
        if taps > 1 and channels < JOIN_BELOW:
            joined = _constant(weight.transpose(0, 2, 1, 3, 4).reshape(out, taps * channels, y, x))
            return ops.convolution(ops.concat(list(along), 1), joined, steps, pads, pads, [1, 1])
        parts = (
            ops.convolution(planes, _constant(weight[:, :, tap]), steps, pads, pads, [1, 1])
            for tap, planes in enumerate(along)
        )
        total = next(parts)
        for part in parts:
            total = ops.add(total, part)
        return total

    def enlarge(self, node: openvino.Node, weight: Weight, stride: Triple) -> openvino.Node:
        channels, own, *_ = weight.shape
        planes, _, rows, columns = node.get_output_shape(0)
        z, y, x = stride
        # The planes that one plane becomes are channels first; in memory they lie in the order of planes already.
        flat = _constant(weight.transpose(0, 2, 1, 3, 4).reshape(channels, z * own, y, x))
        node = ops.convolution_backprop_data(
            node, flat, strides=[y, x], pads_begin=[0, 0], pads_end=[0, 0], dilations=[1, 1]
        )
        return ops.reshape(node, np.array([planes * z, own, rows * y, columns * x]), False)

    def per_channel(self, values: Weight) -> openvino.Node:
        return _constant(values.reshape(1, -1, 1, 1))

    def standardise(self, node: openvino.Node, epsilon: float, precision: openvino.Type) -> openvino.Node:
        return _standardise(node, epsilon, self._mean)

    def _mean(self, node: openvino.Node) -> openvino.Node:
        z, _, y, x = (int(size) for size in node.get_output_shape(0))
        node = _pool(_pool(node, [1, x]), [y, 1])
        # Planes are the batch, over which nothing is pooled.
        return _pool(ops.transpose(node, np.array([2, 1, 0, 3])), [z, 1])

    def _taps(self, node: openvino.Node, taps: int, step: int) -> Iterator[openvino.Node]:
        """For each tap of a kernel along z the planes that it meets, every ``step``-th; zeros beyond the ends."""
        planes, *plane = node.get_output_shape(0)
        if taps == step == 1:
            yield node
            return
        pad = (taps - 1) // 2
        if pad:
            beyond = _constant(np.zeros((pad, *plane), np.float32))
            node = ops.concat([beyond, node, beyond], 0)
        for tap in range(taps):
            first, last = np.array([tap]), np.array([tap + planes])
            yield ops.slice(node, first, last, np.array([step]), np.array([0]))


def _standardise(node: openvino.Node, epsilon: float, mean: Callable[[openvino.Node], openvino.Node]) -> openvino.Node:
    """`Formulation.standardise` to float32's full precision; ``mean`` gives each channel's.

    OpenVINO's own sums up a channel's millions of voxels in one float32, which is off by 6e-5 and after twenty layers
    by 0.02. That is nothing beside bfloat16, but in float32 it would decide labels.
    """
    centred = ops.subtract(node, mean(node))
    variance = mean(ops.multiply(centred, centred))
    return ops.divide(centred, ops.sqrt(ops.add(variance, ops.constant(np.float32(epsilon)))))


def _pool(node: openvino.Node, kernel: list[int]) -> openvino.Node:
    """Means along one axis. Not sums, of which OpenVINO would make successive ones a single long one."""
    none = [0] * len(kernel)
    return ops.avg_pool(node, kernel, none, none, kernel, exclude_pad=True)


def _constant(values: Weight) -> openvino.Node:
    return ops.constant(np.ascontiguousarray(values))
