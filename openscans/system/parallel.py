"""How many threads compute here, and work on arrays that is shared out over them. Knows nothing of what is computed.

Rules for threads. `set_thread_count` is called once, before anything is computed, by who builds the pipeline of this
process; all that computes asks `thread_count`. In `parallel_for` the caller waits until all parts are done. Parts write
into places of their own only, and share nothing else that changes; numpy computes them at the same time, because it
frees the interpreter meanwhile.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

from openscans.system.control_groups import groups_of, read_lines

SYSTEM = Path("/")

PARTS_PER_CORE = 2
"""So that a core that other programs slow down leaves some of its share to the others."""

FAST = 0.75
"""A core of less than this share of the fastest one's capacity is a slow one.

In parts of equal size n cores and one of the speed s are done before the n alone only where s > n / (n + 1): 3/4 for
three. Of the kernel's numbers ARM's small cores have half or less, large ones of a lower clock nine tenths.
"""


@dataclass
class _Setting:
    threads: int | None = None


_setting = _Setting()


def set_thread_count(threads: int | None) -> None:
    """What `thread_count` says in this process from now on; None for the cores that it may use."""
    _setting.threads = threads


def thread_count() -> int:
    """How many threads compute at once, in networks, decoders and work on arrays alike."""
    return _fast_here() if _setting.threads is None else _setting.threads


def thread_limit() -> int | None:
    """`thread_count` for a library that knows the machine's cores better, None where all of them may be used.

    Where fast cores stand beside slow ones a library's own choice is better than their number.
    """
    everything = _setting.threads is None and usable_cores() >= all_cores()
    return None if everything else thread_count()


@cache
def _fast_here() -> int:
    return fast_cores()


def usable_cores(root: Path = SYSTEM) -> int:
    """The cores that this process may use: those that it may run on, and no more than its control groups give it.

    ``root`` is where proc and sys are mounted. Elsewhere than on Linux all processors.
    """
    return _within_quotas(_count_cores(_allowed(root), root), root)


def fast_cores(root: Path = SYSTEM) -> int:
    """`usable_cores` without the slow ones where the system tells of two kinds, all where it may use slow ones only.

    Linux tells it of hybrid Intel processors and of ARM, and macOS does. Parts of equal size wait for the slowest core.
    Whether slow cores help a product of matrices, which libraries share out more finely, has not been measured.
    """
    cores = _count_cores(_fast(_allowed(root), root), root)
    if sys.platform == "darwin" and root == SYSTEM:
        cores = min(cores, _sysctl("hw.perflevel0.physicalcpu") or cores)
    return _within_quotas(cores, root)


def _within_quotas(cores: int, root: Path) -> int:
    # Rounded up: two threads that share one and a half cores get more done than one.
    return max(min([cores, *(ceil(quota) for quota in _quotas(root))]), 1)


def all_cores(root: Path = SYSTEM) -> int:
    """The machine's cores."""
    online = ",".join(read_lines(root / "sys/devices/system/cpu/online"))
    return _count_cores(_processors(online) or set(range(os.cpu_count() or 1)), root)


def _allowed(root: Path) -> set[int]:
    """The processors that this process may run on."""
    for line in read_lines(root / "proc/self/status"):
        if line.startswith("Cpus_allowed_list:"):
            return _processors(line.partition(":")[2].strip())
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _fast(allowed: set[int], root: Path) -> set[int]:
    """Those of ``allowed`` that are as fast as the fastest of them, or nearly."""
    # Hybrid Intel processors have a device of their own for their performance cores.
    performance = _processors(",".join(read_lines(root / "sys/devices/cpu_core/cpus"))) & allowed
    if performance:
        return performance
    folder = root / "sys/devices/system/cpu"
    capacities = {number: int(line) for number in allowed for line in read_lines(folder / f"cpu{number}/cpu_capacity")}
    most = max(capacities.values(), default=0)
    return {number for number in allowed if capacities.get(number, most) >= FAST * most}


def _sysctl(name: str) -> int | None:
    """The whole number that macOS has under ``name``, None where it has none."""
    value = ctypes.c_int()
    size = ctypes.c_size_t(ctypes.sizeof(value))
    failed = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return None if failed else value.value


def _count_cores(processors: set[int], root: Path) -> int:
    """How many cores ``processors`` are: two threads of the same core compute hardly more than one."""
    folder = root / "sys/devices/system/cpu"
    siblings = (read_lines(folder / f"cpu{number}/topology/thread_siblings_list") for number in processors)
    return len({tuple(told) or number for told, number in zip(siblings, processors, strict=True)})


def _processors(text: str) -> set[int]:
    """The numbers in a list of the kernel's, such as "0-3,8"."""
    ends = (part.partition("-") for part in text.split(",") if part)
    return {number for first, _, last in ends for number in range(int(first), int(last or first) + 1)}


def _quotas(root: Path) -> Iterator[float]:
    """How many cores' time each control group above this process gives it, where it limits that."""
    for version, group in groups_of(root, "cpu"):
        if version == 2:
            words = " ".join(read_lines(group / "cpu.max")).split()
        else:
            words = [*read_lines(group / "cpu.cfs_quota_us"), *read_lines(group / "cpu.cfs_period_us")]
        # Without a limit the quota is the word "max", or -1.
        if len(words) == 2 and all(word.isdigit() and int(word) > 0 for word in words):
            yield int(words[0]) / int(words[1])


def parallel_for(work: Callable[[slice], None], count: int) -> None:
    """Call ``work`` for parts of range(``count``) that together are all of it, at once. Raises what it raises."""
    threads = thread_count()
    parts = min(count, threads * PARTS_PER_CORE)
    if threads == 1 or parts < 2:
        work(slice(0, count))
        return
    edges = [count * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(threads, thread_name_prefix="cores") as pool:
        # Consumed, so that what went wrong in a part is raised here.
        list(pool.map(work, map(slice, edges[:-1], edges[1:])))
