"""Runs a network on the GPU of a Mac with PyTorch, once a sample has had the CPU's logits there.

Conv3d was silently wrong there in one version of macOS (pytorch#197114), and for arrays whose channels lie last in some
versions of PyTorch (pytorch#141780). So arrays are contiguous, and each network is checked whenever it is loaded: what
is wrong depends on its channels, on the system and on the library.
"""

import logging
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from openscans.networks.network import Load, Network, UnfitDevice
from openscans.networks.plans import Plan
from openscans.networks.torch_engine import TORCH_ON_CPU
from openscans.networks.torch_network import TorchNetwork
from openscans.types import InferenceOptions, TrainedModel

SAMPLES_AT_THE_BOTTOM = 2
"""Along each axis of the coarsest stage. One alone has no variance that an instance norm could divide by. A whole patch
would take PyTorch's own convolution on a Mac's CPU 15 GB."""

FLOAT_NOISE = 1e-3
"""The largest error of a logit, in standard deviations of all logits.

PyTorch's kernels for this CPU (oneDNN's and its own, contiguous and channels last, one thread and two) differ by up to
5e-5 with the four networks at full size and random weights, by less with trained ones. Twenty times that leaves room
for other orders of sums. A plane that a convolution leaves out is off by 0.9, one voxel of one of its channels by 0.003
to 1, bfloat16 by 0.16.
"""

MOST_OTHER_LABELS = 1e-3
"""The share of voxels whose label may differ, as where two classes are equally likely. With the noise that was measured
it is 7e-6."""

log = logging.getLogger("openscans.networks")

_load_contiguous: Load = partial(TorchNetwork, memory_format=torch.contiguous_format)


def load_checked(
    model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions, load: Load = _load_contiguous
) -> Network:
    """The network of ``model`` on ``device``. Raises DamagedWeights, OutOfMemory, and UnfitDevice.

    ``load`` makes it, on ``device`` and on PyTorch's CPU.
    """
    sample = _sample(plan)
    expected = load(model, plan, device=TORCH_ON_CPU, options=options).logits(sample)
    try:
        network = load(model, plan, device=device, options=options)
        found = network.logits(sample)
    except RuntimeError as error:
        # An older PyTorch or macOS lacks some of the layers.
        log.warning("The device %s cannot run %s.", device, plan.dataset_name, exc_info=error)
        raise UnfitDevice from error
    _check(found, expected, f"The device {device} is wrong about {plan.dataset_name}")
    return network


def _sample(plan: Plan) -> NDArray[np.float32]:
    """Waves, an edge and noise, about as large as a normalised image; (z, y, x), the smallest that fits the network."""
    strides = np.prod(plan.architecture.strides, axis=0)
    shape = tuple(SAMPLES_AT_THE_BOTTOM * int(stride) for stride in strides)
    z, y, x = np.indices(shape, np.float32)
    waves = np.sin(z / 3) + np.cos(y / 5) * np.sin(x / 4)
    edge = (z > shape[0] / 3) & (x > shape[2] / 2)
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)
    return np.asarray(waves + edge + noise, np.float32)


def _check(found: NDArray[np.float32], expected: NDArray[np.float32], what: str) -> None:
    """Raises UnfitDevice where ``found`` is off by more than float noise; (class, z, y, x) both."""
    error = float(np.abs(found - expected).max() / expected.std())
    others = float(np.mean(found.argmax(axis=0) != expected.argmax(axis=0)))
    # Written so that what is no number is refused too.
    if not (error <= FLOAT_NOISE and others <= MOST_OTHER_LABELS):
        log.warning("%s: logits by %.1e of their spread, labels of %.1e of all voxels.", what, error, others)
        raise UnfitDevice
