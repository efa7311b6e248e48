"""What a checkpoint's pickle says of its weights' tensors; knows what PyTorch writes, and reads no numbers."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from openscans.errors import DamagedWeights
from openscans.networks.pickle_machine import BROKEN, INERT, PickleMachine

WEIGHTS = "network_weights"

MOST_AXES = 8
"""Of a tensor; a convolution's weights have five."""


class Known(Enum):
    """What of all that a pickle may name means something; nothing is ever looked up in a module."""

    DICTIONARY = ("collections", "OrderedDict")
    TENSOR = ("torch._utils", "_rebuild_tensor_v2")
    PARAMETER = ("torch._utils", "_rebuild_parameter")


KNOWN: Mapping[tuple[str, str], Known] = {known.value: known for known in Known}


class StorageKind(NamedTuple):
    """A global like ``torch.FloatStorage``; called by nobody, named by persistent ids."""

    name: str


class StoredNumbers(NamedTuple):
    """A storage: the kind of its numbers, and the name of its entry in the zip."""

    kind: str
    key: str


class DescribedTensor(NamedTuple):
    """A tensor that was described but not read yet: where it lies in its storage, counted in numbers."""

    storage: StoredNumbers
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_weights(content: bytes | bytearray) -> Mapping[str, DescribedTensor]:
    """Name → tensor, as a checkpoint's pickle describes its network's weights. Raises DamagedWeights."""
    machine = _WeightsMachine(content)
    try:
        whole = machine.run()
    except BROKEN as error:
        raise DamagedWeights("The checkpoint's list of tensors cannot be read.") from error
    weights = whole.get(WEIGHTS) if isinstance(whole, dict) else machine.weights
    if not isinstance(weights, dict):
        raise DamagedWeights("The checkpoint holds no network weights.")
    return {name: tensor for name, tensor in weights.items() if isinstance(tensor, DescribedTensor)}


class _WeightsMachine(PickleMachine):
    """Ends where the weights are whole: nnU-Net writes them first, and its logs are a thousand times as long."""

    weights: object = None

    def name(self, module: str, name: str) -> object:
        if module == "torch" and name.endswith("Storage"):
            return StorageKind(name)
        return KNOWN.get((module, name), INERT)

    def call(self, function: object, arguments: object) -> object:
        if function is Known.DICTIONARY:
            return self.new_dictionary()
        if function is Known.TENSOR:
            return _described(arguments)
        if function is Known.PARAMETER and isinstance(arguments, tuple) and arguments:
            return arguments[0]
        return INERT

    def persistent(self, pid: object) -> object:
        if not isinstance(pid, tuple) or len(pid) < 3 or pid[0] != "storage" or not isinstance(pid[1], StorageKind):
            return INERT
        return StoredNumbers(pid[1].name, pid[2]) if isinstance(pid[2], str) else INERT

    def is_done(self) -> bool:
        """Whether another value of the outermost dictionary is begun behind the weights, or whole."""
        if len(self.below) != 1 or len(self.below[0]) != 1:
            return False
        at = next((index for index in range(0, len(self.stack) - 3, 2) if self.stack[index] == WEIGHTS), None)
        if at is None:
            return False
        weights, key, begun = self.stack[at + 1 : at + 4]
        # A tensor that is begun there is the weights' own last, under the key before it.
        if isinstance(weights, dict) and weights and isinstance(key, str) and not isinstance(begun, Known):
            self.weights = weights
        return self.weights is not None


def _described(arguments: object) -> object:
    """What the arguments of ``_rebuild_tensor_v2`` describe."""
    if not isinstance(arguments, tuple) or len(arguments) < 4:
        return INERT
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, StoredNumbers) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        return INERT
    if max(len(shape), len(strides)) > MOST_AXES or {type(one) for one in (offset, *shape, *strides)} != {int}:
        raise ValueError("The pickle describes a tensor by what are no numbers.")
    return DescribedTensor(storage, offset, shape, strides)
