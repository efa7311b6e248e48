"""The entry of OpenVINO, which runs networks on the CPU; loads nothing of it."""

import re

from openscans.networks.memory_estimate import cpu_patch_bytes
from openscans.networks.network import Engine, Load
from openscans.networks.plans import Plan


def _is_available(_device: str) -> bool:
    return True


def _import_network() -> Load:
    from openscans.networks.openvino_int8 import load_network

    return load_network


def _patch_bytes(plan: Plan, _device: str) -> int:
    return cpu_patch_bytes(plan)


OPENVINO = Engine(
    library="OpenVINO",
    package="openvino",
    devices=re.compile("cpu"),
    is_available=_is_available,
    import_network=_import_network,
    patch_bytes=_patch_bytes,
)
