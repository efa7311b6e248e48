"""Whether a checkpoint holds the tensors of the network that its plan describes; knows names and shapes, no engine."""

from collections.abc import Iterator

from openscans.errors import DamagedWeights
from openscans.networks.checkpoint import Tensors
from openscans.networks.plans import Architecture, Plan, Triple

Shape = tuple[int, ...]

NEEDLESS = ".conv.bias"
"""Biases in front of an instance norm, which change nothing; a network may be built without them."""

UP, SKIP = ".up", ".skip"
"""Behind the name of a convolution over two inputs: its part over what was enlarged, and over what the encoder left."""


def check_tensors(plan: Plan, tensors: Tensors) -> None:
    """Raise DamagedWeights unless ``tensors`` are those of the network of ``plan``, neither more nor less."""
    expected = dict(_shapes(plan.architecture))
    for name in expected:
        if name not in tensors and not name.endswith(NEEDLESS):
            raise DamagedWeights(f"The checkpoint of {plan.dataset_name} lacks the tensor {name}.")
    if any(expected.get(name) != tensor.shape for name, tensor in tensors.items()):
        raise DamagedWeights(f"The checkpoint of {plan.dataset_name} does not fit its plans.json.")


def _shapes(architecture: Architecture) -> Iterator[tuple[str, Shape]]:
    features, kernels = architecture.features, architecture.kernels
    channels = 1
    for stage, count in enumerate(architecture.encoder_convolutions):
        for index in range(count):
            name = f"encoder.stages.{stage}.0.convs.{index}"
            yield from _convolution(name, channels, features[stage], kernels[stage])
            channels = features[stage]
    for stage, count in enumerate(architecture.decoder_convolutions):
        own = features[-2 - stage]
        yield f"decoder.transpconvs.{stage}.weight", (channels, own, *architecture.strides[-1 - stage])
        yield f"decoder.transpconvs.{stage}.bias", (own,)
        channels = 2 * own
        for index in range(count):
            yield from _convolution(f"decoder.stages.{stage}.convs.{index}", channels, own, kernels[-2 - stage])
            channels = own
        yield f"decoder.seg_layers.{stage}.weight", (architecture.heads, own, 1, 1, 1)
        yield f"decoder.seg_layers.{stage}.bias", (architecture.heads,)


def _convolution(name: str, channels: int, features: int, kernel: Triple) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.conv.weight", (features, channels, *kernel)
    yield f"{name}.conv.bias", (features,)
    yield f"{name}.norm.weight", (features,)
    yield f"{name}.norm.bias", (features,)
