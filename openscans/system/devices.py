"""Which accelerator a detection would run on, told without importing torch, so that health answers at once.

Knows the drivers' and torch's file names; `networks` decides what is really used.
"""

import ctypes
import importlib.util
import platform
import re
import sys
from functools import cache
from pathlib import Path

CUDA = r"cuda(:\d{1,2})?"
"""How a CUDA device is named; without a number it is the first."""

WISH = re.compile(rf"auto|cpu|mps|{CUDA}")
"""What may be asked for."""

WISHES = "auto, cpu, cuda, cuda:N or mps"
"""The same in words."""

AUTOMATIC = ("cuda", "cpu")
"""What auto comes down to: the first of these that is there."""

CUDA_DRIVER = {"win32": "nvcuda.dll"}.get(sys.platform, "libcuda.so.1")
TORCH_CUDA = ("libtorch_cuda.so", "torch_cuda.dll")
"""Part of torch's CUDA builds and of no other."""


@cache
def cuda_available() -> bool:
    """True where both a CUDA device and a torch that can use it are there."""
    torch = _torch_folder()
    return torch is not None and any((torch / "lib" / name).is_file() for name in TORCH_CUDA) and _cuda_devices() > 0


def resolve_device(wish: str) -> str:
    """The device that ``wish`` (auto, cpu, cuda, cuda:N, mps) comes down to on this machine."""
    return next(filter(_is_there, AUTOMATIC if wish == "auto" else (wish, "cpu")))


def _is_there(device: str) -> bool:
    if device == "mps":
        return _metal_available()
    return device == "cpu" or cuda_available()


def _metal_available() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64" and _torch_folder() is not None


def _torch_folder() -> Path | None:
    found = importlib.util.find_spec("torch")
    return Path(found.origin).parent if found is not None and found.origin else None


def _cuda_devices() -> int:
    try:
        driver = ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
