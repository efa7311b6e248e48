"""The engines that there are, and which of them serves a device. Another one is another module and a line here."""

from openscans.errors import InvalidRequest
from openscans.networks.metal_engine import METAL
from openscans.networks.network import Engine
from openscans.networks.openvino_engine import OPENVINO
from openscans.networks.torch_engine import TORCH

ENGINES: tuple[Engine, ...] = (
    OPENVINO,
    TORCH,
    METAL,
)


def engine_of(device: str) -> Engine:
    """The engine that serves the ``device`` of that name, whether it is here or not. Raises InvalidRequest."""
    for engine in ENGINES:
        if engine.devices.fullmatch(device):
            return engine
    raise InvalidRequest(f"There is no device named {device[:20]!r}; known are auto, cpu, cuda, cuda:N and mps.")


def is_available(device: str) -> bool:
    """Whether the ``device`` of that name is here. Raises InvalidRequest where no engine knows it."""
    return engine_of(device).is_available(device)
