"""What a network is to those who run it, and an engine to those who choose one; knows no library."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openscans.networks.plans import Plan
from openscans.types import InferenceOptions, ResultWarning, RunningNetwork, TrainedModel


class Network(Protocol):
    """A network that is ready to run.

    ``patch_s``: the seconds that a patch should take, reckoned from a small timed run before any was computed; then
    what the last one took.
    """

    plan: Plan
    device: str
    runs: RunningNetwork
    """How it is run; of a library that tells no kernels, without them. May change with a patch that is run."""

    patch_s: float
    warnings: tuple[ResultWarning, ...] = ()
    """What the reader of its labels should know of how it is run."""

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x) of the plan's patch size.

        The array may be overwritten by the next call. Raises OutOfMemory.
        """
        ...

    def logits_of_each(self, patches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """`logits` of ``patches`` in turn; a device with room for several may compute them at once."""
        return map(self.logits, patches)

    def release(self) -> None:
        """Let go of the memory that computing took, the logits' too, until it computes again; weights stay."""
        return


class UnfitDevice(Exception):
    """A device computes a network otherwise than the CPU, or not at all."""


class Load(Protocol):
    """What makes a network of a model's weights and the plan that was read with them, as `networks.load` does."""

    def __call__(self, model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network: ...


@dataclass(frozen=True)
class Engine:
    """A library that runs networks. Its entry says what it can do, and loads nothing of it.

    ``library`` is its name for people, ``package`` the one that is imported, ``devices`` are the names of its devices.
    """

    library: str
    package: str
    devices: re.Pattern[str]

    is_available: Callable[[str], bool]
    """Whether the device of that name is here."""

    import_network: Callable[[], Load]
    """Loads the library, and returns what makes its networks. Raises ImportError where it is not installed."""

    patch_bytes: Callable[[Plan, str], int]
    """The least that one run of a plan on a device takes of this machine's memory."""
