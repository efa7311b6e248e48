"""Scales a network's channels against each other, which changes none of its logits, so that one range fits them all.

Knows numpy and the order of a PlainConvUNet's layers; no engine, and not how values are rounded.

Every convolution but the first is fed by an instance norm and a leaky ReLU, or by a transposed convolution. A factor by
which one of their channels is divided can be put into the weights of whoever convolves it, since the leaky ReLU of a
positive multiple is that multiple of it (Nagel et al., Data-free quantization through weight equalization and bias
correction, 2019, section 4.1). The factors are those of Xiao et al., SmoothQuant, 2023, equation 4.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from openscans.networks.checkpoint import Tensors
from openscans.networks.fit import SKIP, UP
from openscans.networks.plans import Architecture

Factors = Mapping[str, NDArray[np.float32]]
"""By the name of a convolution what each of its input's channels is divided by."""

MIGRATION = 0.4
"""How much of the difference between channels moves into the weights: 0 none of it, 1 all. Both are rounded, so both
bear a part. Of the phantom's network, 0.35 to 0.5 kept most labels, 0 and 1 fewest."""


@dataclass(frozen=True)
class Slot:
    """Where channels lie in a tensor: along ``axis``, from ``first`` on."""

    tensor: str
    axis: int
    first: int = 0


@dataclass(frozen=True)
class Passage:
    """``count`` channels on their way: the tensors that make them, those that convolve them, and the names of these
    convolutions in the graph."""

    count: int
    makers: tuple[Slot, ...]
    takers: tuple[Slot, ...]
    names: tuple[str, ...]


def equalise(architecture: Architecture, tensors: Tensors, magnitudes: Factors) -> tuple[Tensors, Factors]:
    """The same network in other ``tensors``, and the factors by which its channels were divided.

    ``magnitudes``: by the name of a convolution the largest absolute value in each of its input's channels. Channels
    that go to a convolution without any stay as they are.
    """
    scaled = dict(tensors)
    factors: dict[str, NDArray[np.float32]] = {}
    for passage in passages(architecture):
        if not magnitudes.keys() >= set(passage.names):
            continue
        own = _factors(passage, tensors, magnitudes)
        for slot in passage.makers:
            scaled[slot.tensor] = _scaled(scaled[slot.tensor], slot, np.reciprocal(own))
        for slot in passage.takers:
            scaled[slot.tensor] = _scaled(scaled[slot.tensor], slot, own)
        factors |= dict.fromkeys(passage.names, own)
    return scaled, factors


def _factors(passage: Passage, tensors: Tensors, magnitudes: Factors) -> NDArray[np.float32]:
    values = np.max([magnitudes[name] for name in passage.names], axis=0)
    weights = np.max([_largest(tensors[slot.tensor], slot, passage.count) for slot in passage.takers], axis=0)
    alive = (values > 0) & (weights > 0)
    factors = np.ones(passage.count, np.float32)
    factors[alive] = values[alive] ** MIGRATION / weights[alive] ** (1 - MIGRATION)
    return factors


def _largest(tensor: NDArray[np.float32], slot: Slot, count: int) -> NDArray[np.float32]:
    """The largest absolute weight of each of the ``count`` channels."""
    along = np.moveaxis(tensor, slot.axis, 0)[slot.first : slot.first + count]
    return np.abs(along.reshape(count, -1)).max(axis=1)


def _scaled(tensor: NDArray[np.float32], slot: Slot, factors: NDArray[np.float32]) -> NDArray[np.float32]:
    changed = tensor.copy()
    along = np.moveaxis(changed, slot.axis, -1)
    along[..., slot.first : slot.first + len(factors)] *= factors
    return changed


def passages(architecture: Architecture) -> Iterator[Passage]:
    """The ways of channels to convolutions that are not transposed; but not the image's, nor those to the logits."""
    features = architecture.features
    deepest = len(features) - 1
    for stage, count in enumerate(architecture.encoder_convolutions):
        names = [f"encoder.stages.{stage}.0.convs.{index}" for index in range(count)]
        yield from _chain(names, features[stage])
        if stage < deepest:
            below, beside = f"encoder.stages.{stage + 1}.0.convs.0", f"decoder.stages.{deepest - 1 - stage}.convs.0"
            takers = _weight(below), _weight(beside, first=features[stage])
            yield Passage(features[stage], _norm(names[-1]), takers, (below, beside + SKIP))
    for stage, count in enumerate(architecture.decoder_convolutions):
        names = [f"decoder.stages.{stage}.convs.{index}" for index in range(count)]
        enlarged = f"decoder.transpconvs.{stage}"
        makers = Slot(f"{enlarged}.weight", 1), Slot(f"{enlarged}.bias", 0)
        yield Passage(features[-2 - stage], makers, (_weight(names[0]),), (names[0] + UP,))
        yield from _chain(names, features[-2 - stage])


def _chain(names: list[str], count: int) -> Iterator[Passage]:
    for name, following in pairwise(names):
        yield Passage(count, _norm(name), (_weight(following),), (following,))


def _norm(name: str) -> tuple[Slot, ...]:
    return Slot(f"{name}.norm.weight", 0), Slot(f"{name}.norm.bias", 0)


def _weight(name: str, first: int = 0) -> Slot:
    return Slot(f"{name}.conv.weight", 1, first)
