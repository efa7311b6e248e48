"""A weights folder becomes a callable from a patch to logits on a device; only room that knows OpenVINO and PyTorch.

It knows nothing of images on disk, of HTTP, or of where weights come from. Importing it loads neither library.
"""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from openscans.errors import InvalidRequest
from openscans.networks.compiled_cache import tidy
from openscans.networks.memory_estimate import patch_bytes
from openscans.networks.plans import Plan, read_plan
from openscans.system import devices
from openscans.types import InferenceOptions, ResultWarning

__all__ = [
    "TORCH_ON_CPU",
    "Load",
    "Network",
    "Plan",
    "choose_device",
    "device_full_warning",
    "load",
    "patch_bytes",
    "read_plan",
    "tidy",
]

TORCH_ON_CPU = "cpu:torch"
"""The wish for PyTorch on the CPU, where plain "cpu" means OpenVINO."""


class Network(Protocol):
    """A network that is ready to run."""

    plan: Plan
    device: str

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x) of the plan's patch size.

        The array may be overwritten by the next call. Raises OutOfMemory.
        """
        ...

    def logits_of_each(self, patches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """`logits` of ``patches`` in turn; a device with room for several may compute them at once."""
        return map(self.logits, patches)


class Load(Protocol):
    """What makes a network of a training folder, as `load` does."""

    def __call__(self, folder: Path, *, device: str, options: InferenceOptions) -> Network: ...


def load(folder: Path, *, device: str, options: InferenceOptions) -> Network:
    """The network of the training in ``folder`` on a ``device`` that `choose_device` gave.

    Raises DamagedWeights, and InvalidRequest where the device's library is not installed.
    """
    if device == "cpu":
        from openscans.networks.openvino_engine import OpenVinoNetwork

        return OpenVinoNetwork(folder, options)
    try:
        from openscans.networks.torch_engine import TorchNetwork
    except ImportError as error:
        raise InvalidRequest(
            f"The device {device} needs PyTorch, which is not installed here.", hint="Ask for the device cpu."
        ) from error
    return TorchNetwork(folder, "cpu" if device == TORCH_ON_CPU else device, options)


def choose_device(wish: str) -> tuple[str, ResultWarning | None]:
    """The device for a ``wish`` (auto, cpu, cpu:torch, cuda, cuda:N, mps); a warning where it is another one.

    ``auto`` is CUDA where there is one, else the CPU.
    """
    kind = wish.partition(":")[0]
    if wish in ("cpu", TORCH_ON_CPU):
        return wish, None
    if wish == "auto":
        return ("cuda" if _is_there("cuda", "cuda") else "cpu"), None
    if devices.WISH.fullmatch(wish) is None:
        raise InvalidRequest(f"There is no device named {wish[:20]!r}; known are auto, cpu, cuda, cuda:N and mps.")
    if _is_there(wish, kind):
        return wish, None
    why = "is not available here" if find_spec("torch") else "needs PyTorch, which is not installed here"
    return "cpu", ResultWarning("device_fallback", f"The device {wish} {why}; the CPU was used.")


def device_full_warning(device: str) -> ResultWarning:
    """The warning where a detection had to leave ``device`` for the CPU."""
    return ResultWarning("device_fallback", f"The memory of the device {device} did not suffice; the CPU was used.")


def _is_there(wish: str, kind: str) -> bool:
    if kind == "cuda" and not devices.cuda_available():
        return False
    try:
        import torch
    except ImportError:
        return False
    if kind == "mps":
        return bool(torch.backends.mps.is_available())
    number = int(wish.partition(":")[2] or "0")
    return bool(torch.cuda.is_available()) and number < torch.cuda.device_count()
