"""The entry of PyTorch, which runs networks on CUDA, and on the CPU when asked for; loads nothing of it."""

import re

from openscans.networks.memory_estimate import cpu_patch_bytes, logits_bytes
from openscans.networks.network import Engine, Load
from openscans.networks.plans import Plan
from openscans.system import devices

TORCH_ON_CPU = "cpu:torch"
"""The wish for PyTorch on the CPU, where plain "cpu" means OpenVINO."""


def _is_available(device: str) -> bool:
    if device == TORCH_ON_CPU:
        # Who asks for it by that name wants nothing else: without PyTorch it is an error, and no fallback.
        return True
    if not devices.cuda_available():
        return False
    try:
        import torch
    except ImportError:
        return False
    _, _, number = device.partition(":")
    return bool(torch.cuda.is_available()) and int(number or "0") < torch.cuda.device_count()


def _import_network() -> Load:
    from openscans.networks.torch_network import TorchNetwork

    return TorchNetwork


def _patch_bytes(plan: Plan, device: str) -> int:
    # Of a card's own memory the driver tells; of this machine's only the logits take some.
    return cpu_patch_bytes(plan) if device == TORCH_ON_CPU else logits_bytes(plan)


TORCH = Engine(
    library="PyTorch",
    package="torch",
    devices=re.compile(f"{devices.CUDA}|{TORCH_ON_CPU}"),
    is_available=_is_available,
    import_network=_import_network,
    patch_bytes=_patch_bytes,
)
