"""Two ways to say a network's layers to OpenVINO, with the same logits: over volumes, and over planes.

Over volumes is how the network was trained. Where the runtime has no kernels for that, as on ARM, planes do: a
convolution over a volume is one over planes, whose channels are those of all the planes that the kernel's taps along z
meet; a transposed one, whose kernel is its stride, is one to more channels, sorted into planes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openscans.networks.fit import SKIP, UP
from openscans.networks.openvino_runtime import openvino, ops
from openscans.networks.plans import Triple

Values: TypeAlias = NDArray[np.float32]

BATCH_BYTES = 2**26
"""What planes that are convolved together take, with the channels of all taps, and what comes of them. All planes at
once would be four times the largest array of the network."""

KEEP: Triple = (1, 1, 1)
"""The stride of a convolution that keeps the size."""


Array: TypeAlias = tuple[openvino.Node, ...]
"""An array of the network in parts along z, in their order; over volumes always a single one."""


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution, whose kernel is its ``stride``: weight (in, out, z, y, x) and bias (out,)."""

    weight: Values
    bias: Values
    stride: Triple


class Formulation(Protocol):
    """How arrays of the network lie in OpenVINO's, and what layers are there; weights are (out, in, z, y, x)."""

    name: str
    """As it is told, and as it is part of a compiled network's key."""

    def enter(self, patch: openvino.Node) -> Array:
        """The first array, of a ``patch`` (1, 1, z, y, x)."""
        ...

    def leave(self, logits: Values) -> Values:
        """The last array, as the runtime gives it, as (class, z, y, x); a view."""
        ...

    def convolve(self, array: Array, weight: Values, stride: Triple) -> Array:
        """Padded, so that with a stride of 1 the size stays."""
        ...

    def join(self, array: Array, up: Transposed, skip: Array, weight: Values, name: str) -> Array:
        """`convolve` over the channels that ``up`` makes of ``array``, and then those of ``skip``.

        ``name``: of the convolution; where it is the sum of two, they are called so, with `UP` and `SKIP` behind.
        """
        ...

    def per_channel(self, values: Values) -> openvino.Node:
        """A constant that adds to, or multiplies, each channel's values in every part."""
        ...

    def standardise(self, array: Array, epsilon: float, precision: openvino.Type) -> Array:
        """Each channel less its mean, by the root of its variance and ``epsilon``: an instance norm without weights."""
        ...


class Volumes:
    """Parts are (1, channel, z, y, x)."""

    name = "volumes"

    def enter(self, patch: openvino.Node) -> Array:
        return (patch,)

    def leave(self, logits: Values) -> Values:
        view: Values = logits[0]
        return view

    def convolve(self, array: Array, weight: Values, stride: Triple) -> Array:
        [node] = array
        pads = [(size - 1) // 2 for size in weight.shape[2:]]
        return (ops.convolution(node, _constant(weight), list(stride), pads, pads, [1] * 3),)

    def join(self, array: Array, up: Transposed, skip: Array, weight: Values, name: str) -> Array:
        [node], none = array, [0] * 3
        enlarged = ops.convolution_backprop_data(
            node, _constant(up.weight), strides=list(up.stride), pads_begin=none, pads_end=none, dilations=[1] * 3
        )
        enlarged = ops.add(enlarged, self.per_channel(up.bias))
        # As the sum of two convolutions, which takes less time and memory than putting both inputs into one array.
        first, second = np.split(weight, [len(up.bias)], axis=1)
        summands = self.convolve((enlarged,), first, KEEP) + self.convolve(skip, second, KEEP)
        for summand, behind in zip(summands, (UP, SKIP), strict=True):
            summand.set_friendly_name(name + behind)
        return (ops.add(*summands),)

    def per_channel(self, values: Values) -> openvino.Node:
        return _constant(values.reshape(1, -1, 1, 1, 1))

    def standardise(self, array: Array, epsilon: float, precision: openvino.Type) -> Array:
        [node] = array
        if precision != openvino.Type.f32:
            return (ops.mvn(node, np.array([2, 3, 4]), True, epsilon, "inside_sqrt"),)
        # OpenVINO's own sums up a channel's millions of voxels in one float32, which is off by 6e-5 and after twenty
        # layers by 0.02. That is nothing beside bfloat16, but in float32 it would decide labels.
        centred = ops.subtract(node, self._mean(node))
        return (ops.divide(centred, _deviation(self._mean(ops.multiply(centred, centred)), epsilon)),)

    def _mean(self, node: openvino.Node) -> openvino.Node:
        z, y, x = (int(size) for size in node.get_output_shape(0)[2:])
        return _pool(_pool(_pool(node, [1, 1, x]), [1, y, 1]), [z, 1, 1])


class Planes:
    """Parts are (z, channel, y, x), every plane an image of its own. Never are all of an array's planes one node: what
    is made of each part can take the place of what it was made of."""

    name = "planes"

    def enter(self, patch: openvino.Node) -> Array:
        _, _, z, y, x = patch.get_output_shape(0)
        return (ops.reshape(patch, np.array([z, 1, y, x]), False),)

    def leave(self, logits: Values) -> Values:
        return logits.transpose(1, 0, 2, 3)

    def convolve(self, array: Array, weight: Values, stride: Triple) -> Array:
        return _convolve([partial(_take, array)], [weight], stride, _shape(array))

    def join(self, array: Array, up: Transposed, skip: Array, weight: Values, name: str) -> Array:
        parts = np.split(weight, [len(up.bias)], axis=1)
        return _convolve([partial(_enlarge, array, up), partial(_take, skip)], parts, KEEP, _shape(skip))

    def per_channel(self, values: Values) -> openvino.Node:
        return _constant(values.reshape(1, -1, 1, 1))

    def standardise(self, array: Array, epsilon: float, precision: openvino.Type) -> Array:
        mean = self._mean(array)
        centred = tuple(ops.subtract(part, mean) for part in array)
        deviation = _deviation(self._mean(tuple(ops.multiply(part, part) for part in centred)), epsilon)
        return tuple(ops.divide(part, deviation) for part in centred)

    def _mean(self, array: Array) -> openvino.Node:
        z, _, y, x = _shape(array)
        means = _concat([_pool(_pool(part, [1, x]), [y, 1]) for part in array], 0)
        # Planes are the batch, over which nothing is pooled.
        return _pool(ops.transpose(means, np.array([2, 1, 0, 3])), [z, 1])


TakePlanes: TypeAlias = Callable[[range], openvino.Node]
"""Neighbouring planes of an array, in which they lie, as one node."""


def _convolve(sources: Sequence[TakePlanes], weights: Sequence[Values], stride: Triple, shape: Sequence[int]) -> Array:
    """A convolution over the channels of all ``sources``, arrays of ``shape`` (but for their channels), in turn.

    ``weights`` has each source's part.
    """
    depth, _, rows, columns = shape
    step, *steps = stride
    out, _, taps, y, x = weights[0].shape
    pads = [(y - 1) // 2, (x - 1) // 2]
    # Source by source, and of each the channels of a tap after those of the tap before.
    kernel = np.concatenate([part.transpose(0, 2, 1, 3, 4).reshape(out, -1, y, x) for part in weights], 1)
    constant, convolved = _constant(kernel), []
    plane_bytes = (kernel.shape[1] + out) * rows * columns * kernel.itemsize
    for some in _batches(range(0, depth, step), plane_bytes):
        met = [plane for take in sources for plane in _meet(take, some, taps, depth)]
        convolved.append(ops.convolution(_concat(met, 1), constant, steps, pads, pads, [1, 1]))
    return tuple(convolved)


def _meet(take: TakePlanes, planes: range, taps: int, depth: int) -> Iterator[openvino.Node]:
    """For each of a kernel's ``taps`` about every one of ``planes`` those that it meets; zeros beyond ``depth``."""
    before = (taps - 1) // 2
    around = range(planes[0] - before, planes[-1] - before + taps)
    above, below = max(-around.start, 0), max(around.stop - depth, 0)
    node = take(range(around.start + above, around.stop - below))
    if above or below:
        node = ops.pad(node, [above, 0, 0, 0], [below, 0, 0, 0], "constant", np.float32(0))
    for tap in range(taps):
        yield _slice(node, range(tap, tap + planes[-1] - planes[0] + 1, planes.step))


def _take(array: Array, wanted: range) -> openvino.Node:
    """The planes of ``array`` at the indices ``wanted``."""
    found, first = [], 0
    for part in array:
        depth = part.get_output_shape(0)[0]
        inside = range(max(wanted.start - first, 0), min(wanted.stop - first, depth))
        if inside:
            found.append(_slice(part, inside))
        first += depth
    return _concat(found, 0)


def _enlarge(array: Array, up: Transposed, wanted: range) -> openvino.Node:
    """The planes at the indices ``wanted`` of what ``up`` makes of ``array``."""
    z, y, x = up.stride
    channels, own = up.weight.shape[:2]
    needed = range(wanted.start // z, -(-wanted.stop // z))
    # A convolution to all that a pixel becomes, sorted after it. OpenVINO's transposed one computes in bfloat16 on ARM
    # processors that have it, whatever precision is asked for, and is off by 0.3 %.
    flat = up.weight.transpose(2, 1, 3, 4, 0).reshape(-1, channels, 1, 1)
    convolved = ops.convolution(_take(array, needed), _constant(flat), [1, 1], [0, 0], [0, 0], [1, 1])
    _, _, rows, columns = _shape(array)
    parts = ops.reshape(convolved, np.array([len(needed) * z, own, y, x, rows, columns]), False)
    sizes = np.array([len(needed) * z, own, rows * y, columns * x])
    planes = ops.reshape(ops.transpose(parts, np.array([0, 1, 4, 2, 5, 3])), sizes, False)
    inside = _slice(planes, range(wanted.start - needed.start * z, wanted.stop - needed.start * z))
    return ops.add(inside, _constant(up.bias.reshape(1, -1, 1, 1)))


def _batches(planes: range, plane_bytes: int) -> Iterator[range]:
    """``planes``, each of which takes ``plane_bytes``, in turn, as many at once as `BATCH_BYTES` has room for."""
    at_once = max(BATCH_BYTES // plane_bytes, 1)
    for first in range(0, len(planes), at_once):
        yield planes[first : first + at_once]


def _shape(array: Array) -> tuple[int, ...]:
    """(z, channel, y, x) of all parts together."""
    depth = sum(part.get_output_shape(0)[0] for part in array)
    return (depth, *(int(size) for size in array[0].get_output_shape(0)[1:]))


def _slice(node: openvino.Node, planes: range) -> openvino.Node:
    if len(planes) == node.get_output_shape(0)[0]:
        return node
    ends = np.array([planes.start]), np.array([planes.stop])
    return ops.slice(node, *ends, np.array([planes.step]), np.array([0]))


def _concat(nodes: Sequence[openvino.Node], axis: int) -> openvino.Node:
    return nodes[0] if len(nodes) == 1 else ops.concat(list(nodes), axis)


def _deviation(variance: openvino.Node, epsilon: float) -> openvino.Node:
    return ops.sqrt(ops.add(variance, ops.constant(np.float32(epsilon))))


def _pool(node: openvino.Node, kernel: list[int]) -> openvino.Node:
    """Means along one axis. Not sums, of which OpenVINO would make successive ones a single long one."""
    none = [0] * len(kernel)
    return ops.avg_pool(node, kernel, none, none, kernel, exclude_pad=True)


def _constant(values: Values) -> openvino.Node:
    return ops.constant(np.ascontiguousarray(values))
