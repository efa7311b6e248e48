"""OpenVINO itself, imported here and nowhere else; and which of its kernels compute a network's convolutions.

OpenVINO names the kernel of every layer. Those whose names begin with "ref" are oneDNN's reference loops: right, and a
hundred times slower than a real kernel. On ARM that is what every convolution over volumes gets.
"""

import json
import logging
import os
import platform
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from openscans.networks import compiled_cache
from openscans.system.disk_cache import DiskCache

# Importing openvino tells its makers of it, and writes to the user's home, unless this part of it cannot be found.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

__all__ = [
    "Abilities",
    "abilities_of",
    "convolution_kernels",
    "int8_count",
    "machine_facts",
    "open_abilities",
    "openvino",
    "ops",
    "reference_count",
]

CONVOLUTIONS = frozenset({"Convolution", "Deconvolution"})
"""The runtime's names of a convolution and of a transposed one."""

REFERENCE = "ref"
"""How the name of a kernel begins that is a reference loop."""

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that make oneDNN do without a part of the processor; which kernels there are follows from them."""

CHANNELS, SIDE = 32, 8
"""Of the volume that is convolved for a trial: as many channels as the finest stage has, and so few voxels that even
reference loops take a second at most."""

SUFFIX = ".abilities"

MOST_KEPT = 16
"""Machines, versions and precisions whose abilities are kept; each is some bytes."""

log = logging.getLogger("openscans.networks")


@dataclass(frozen=True)
class Abilities:
    """What the runtime can do on this machine in one precision.

    ``convolves_volumes``: whether it has real kernels for convolutions over volumes, transposed ones too. False also
    where it cannot use that precision at all, whatever it says of the processor.
    """

    convolves_volumes: bool


def open_abilities(folder: Path) -> DiskCache:
    """What machines with this ``folder`` were found to be able to do."""
    return DiskCache(folder, SUFFIX, MOST_KEPT)


def abilities_of(core: openvino.Core, precision: openvino.Type, cache: DiskCache) -> Abilities:
    """What ``core`` can do in ``precision``: tried once for a machine and a version, and kept in ``cache``.

    Where the trial fails it is made again by the next process.
    """
    key = compiled_cache.key_of(openvino.get_version(), *machine_facts(core), str(precision))
    known = cache.get(key)
    if known is not None:
        try:
            return Abilities(**json.loads(known))
        except (TypeError, ValueError):
            log.warning("What was kept of the runtime's abilities is not understood; they are tried again.")
    found = _try(core, precision)
    if found is None:
        # Not kept: it may have been for want of memory.
        return Abilities(convolves_volumes=False)
    cache.put(key, json.dumps(asdict(found)).encode())
    return found


def machine_facts(core: openvino.Core) -> tuple[str, ...]:
    """All that decides, beside the runtime's version, which kernels it has."""
    limits = (f"{name}={os.environ.get(name, '')}" for name in LIMITS)
    # An emulated ARM processor has the name of the one that emulates it.
    return platform.machine(), str(core.get_property("CPU", "FULL_DEVICE_NAME")), *limits


def _try(core: openvino.Core, precision: openvino.Type) -> Abilities | None:
    """Compile a convolution over a volume and a transposed one, and see which kernels they got; None if it fails."""
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    try:
        compiled = core.compile_model(_small_model(), "CPU", settings)
    except RuntimeError as error:
        log.warning("OpenVINO compiles nothing in %s here: %s", precision.to_string(), str(error).splitlines()[-1])
        return None
    return Abilities(convolves_volumes=reference_count(convolution_kernels(compiled)) == 0)


def _small_model() -> openvino.Model:
    volume = ops.parameter([1, CHANNELS, SIDE, SIDE, SIDE], np.float32)
    kernel = np.ones((CHANNELS, CHANNELS, 3, 3, 3), np.float32)
    node = ops.convolution(volume, ops.constant(kernel), [1] * 3, [1] * 3, [1] * 3, [1] * 3)
    kernel = np.ones((CHANNELS, CHANNELS, 2, 2, 2), np.float32)
    node = ops.convolution_backprop_data(
        node, ops.constant(kernel), strides=[2] * 3, pads_begin=[0] * 3, pads_end=[0] * 3, dilations=[1] * 3
    )
    return openvino.Model([node], [volume], "trial")


def convolution_kernels(compiled: openvino.CompiledModel) -> Mapping[str, int]:
    """The kernels that compute the convolutions of ``compiled``, and how many of them each computes."""
    told = (node.rt_info for node in compiled.get_runtime_model().get_ops())
    return Counter(info["primitiveType"].astype(str) for info in told if info["layerType"].astype(str) in CONVOLUTIONS)


def int8_count(kernels: Mapping[str, int]) -> int:
    """How many of the convolutions are computed in 8-bit integers."""
    return sum(count for kernel, count in kernels.items() if kernel.lower().endswith(("_i8", "_u8")))


def reference_count(kernels: Mapping[str, int]) -> int:
    """How many of the convolutions are computed by reference loops."""
    return sum(count for kernel, count in kernels.items() if kernel.startswith(REFERENCE))
