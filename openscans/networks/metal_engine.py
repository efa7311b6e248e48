"""The entry of the GPU of a Mac, on which PyTorch runs networks that agree with the CPU; loads nothing of it."""

import re

from openscans.networks.memory_estimate import cpu_patch_bytes
from openscans.networks.network import Engine, Load
from openscans.networks.plans import Plan


def _is_available(_device: str) -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.backends.mps.is_available())


def _import_network() -> Load:
    from openscans.networks.metal_network import load_checked

    return load_checked


def _patch_bytes(plan: Plan, _device: str) -> int:
    # It has no memory of its own.
    return cpu_patch_bytes(plan)


METAL = Engine(
    library="PyTorch",
    package="torch",
    devices=re.compile("mps"),
    is_available=_is_available,
    import_network=_import_network,
    patch_bytes=_patch_bytes,
)
