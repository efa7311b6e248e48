"""How much memory this process may still take, and the refusal of work that needs more before it has begun.

Knows how operating systems and containers tell it; nothing of images.
"""

import ctypes
import os
import sys
from pathlib import Path

from openscans.errors import OutOfMemory
from openscans.system.control_groups import groups_of, read_lines

SYSTEM = Path("/")

UNLIMITED_FROM = 2**60
"""Limits beyond an exabyte are how version 1 of control groups says that there is none."""


def check_free(need_bytes: int, what: str) -> None:
    """Raises OutOfMemory with both figures where ``what`` ("The image") needs more than is free."""
    free_bytes = available_bytes()
    if free_bytes is not None and need_bytes > free_bytes:
        raise OutOfMemory(
            f"{what} needs {need_bytes / 1e9:.1f} GB of memory, of which {free_bytes / 1e9:.1f} GB are free.",
            hint="Close other programs, or send a smaller part of the image.",
        )


def available_bytes(root: Path = SYSTEM) -> int | None:
    """The least of what the machine, the process's control groups and its own limit leave; None where nothing tells.

    ``root`` is where proc and sys are mounted.
    """
    if sys.platform == "win32":
        return _windows_bytes()
    told = [_machine_bytes(root), *_group_bytes(root), _limit_bytes(root)]
    known = [max(free, 0) for free in told if free is not None]
    return min(known, default=None)


def _machine_bytes(root: Path) -> int | None:
    """MemAvailable counts what the kernel would give back, such as cached files. Without it, all there is."""
    if sys.platform == "win32":
        return None
    for line in read_lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _group_bytes(root: Path) -> list[int | None]:
    """What each control group above this process leaves, of version 2 and 1."""
    found: list[int | None] = []
    for version, group in groups_of(root, "memory"):
        if version == 2:
            found.append(_left(group, "memory.max", "memory.current", "inactive_file"))
        else:
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
            found.append(_left(group, limit, usage, "total_inactive_file"))
    return found


def _left(group: Path, limit: str, usage: str, cached: str) -> int | None:
    """A group's limit less what it uses; files that are only cached count as free."""
    limit_bytes, used_bytes = _number(group / limit), _number(group / usage)
    if limit_bytes is None or used_bytes is None or limit_bytes >= UNLIMITED_FROM:
        return None
    fields = (line.split() for line in read_lines(group / "memory.stat"))
    cached_bytes = next((int(words[1]) for words in fields if words[:1] == [cached]), 0)
    return limit_bytes - used_bytes + cached_bytes


def _limit_bytes(root: Path) -> int | None:
    """What the process's own limit of address space leaves (`ulimit -v`)."""
    if sys.platform == "win32":
        return None
    import resource

    limit_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = next(iter(read_lines(root / "proc/self/statm")), "").split()
    if limit_bytes == resource.RLIM_INFINITY or not pages:
        return None
    return limit_bytes - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _number(file: Path) -> int | None:
    """The number in ``file``; None where there is no file, or a word such as "max"."""
    text = "".join(read_lines(file)).strip()
    return int(text) if text.isdigit() else None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load_percent", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "available", "total_page", "available_page")),
        *((name, ctypes.c_uint64) for name in ("total_virtual", "available_virtual", "available_extended")),
    )


def _windows_bytes() -> int | None:
    status = _MemoryStatus()
    status.length = ctypes.sizeof(status)
    if sys.platform != "win32" or not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)
