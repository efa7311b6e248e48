"""Work that is shared out is done once, all of it, on as many threads as it may; what fails in a part is told."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from openscans.system import parallel
from openscans.system.parallel import parallel_for
from tests.system.test_memory import a_system

ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="others tell it otherwise")


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    yield
    parallel.set_thread_count(None)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
def test_every_place_is_worked_on_once(count: int) -> None:
    times = np.zeros(count, int)

    def work(part: slice) -> None:
        times[part] += 1

    parallel_for(work, count)
    assert times.tolist() == [1] * count


def test_an_error_in_a_part_reaches_the_caller() -> None:
    def work(part: slice) -> None:
        if part.stop == 100:
            raise ValueError("the last part")

    with pytest.raises(ValueError, match="the last part"):
        parallel_for(work, 100)


def test_parts_are_worked_on_at_the_same_time() -> None:
    parallel.set_thread_count(2)
    meeting, met = threading.Barrier(2, timeout=20), []

    def work(part: slice) -> None:
        meeting.wait()
        met.append(part.start)

    parallel_for(work, 4)
    assert sorted(met) == [0, 1, 2, 3]


def test_one_thread_is_the_caller_s_own() -> None:
    parallel.set_thread_count(1)
    threads = set()
    parallel_for(lambda _part: threads.add(threading.get_ident()), 100)
    assert threads == {threading.get_ident()}


def test_the_setting_wins_and_no_setting_is_what_may_be_used() -> None:
    parallel.set_thread_count(7)
    assert (parallel.thread_count(), parallel.thread_limit()) == (7, 7)
    parallel.set_thread_count(None)
    assert parallel.thread_count() == parallel.fast_cores()


STATUS = {"proc/self/status": "Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t0-3,6-9\n"}
"""A process that may run on eight processors."""

HYPERTHREADS = {
    f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": f"{number // 2 * 2}-{number // 2 * 2 + 1}\n"
    for number in range(10)
} | {"sys/devices/system/cpu/online": "0-9\n"}
"""Ten processors, two on each of five cores."""


@ONLY_LINUX
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        (STATUS, 8),
        (STATUS | HYPERTHREADS, 4),
        ({"proc/self/status": "Cpus_allowed_list:\t3\n"} | HYPERTHREADS, 1),
        (STATUS | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        (STATUS | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        (STATUS | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        (STATUS | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "5000 100000\n"}, 1),
        (STATUS | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 8),
        (STATUS | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "\n"}, 8),
        (
            STATUS
            | {
                "proc/self/cgroup": "0::/user/app\n",
                "sys/fs/cgroup/user/app/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user/cpu.max": "200000 100000\n",
            },
            2,
        ),
        (
            STATUS
            | {
                "proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/box\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000\n",
            },
            5,
        ),
    ],
    ids=[
        "affinity",
        "two threads a core",
        "one processor",
        "quota",
        "no quota",
        "one and a half",
        "a twentieth",
        "more than there are",
        "nothing said",
        "the group above",
        "version 1",
    ],
)
def test_the_cores_are_those_that_affinity_and_quotas_leave(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert parallel.usable_cores(a_system(tmp_path, files)) == cores


def capacities(*numbers: int) -> dict[str, str]:
    """A machine of as many processors, which this process may all use."""
    return {f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity": f"{number}\n" for cpu, number in enumerate(numbers)} | {
        "proc/self/status": f"Cpus_allowed_list:\t0-{len(numbers) - 1}\n"
    }


SMALL_ONES = {"proc/self/status": "Cpus_allowed_list:\t2-5\n"}
HYBRID = STATUS | HYPERTHREADS | {"sys/devices/cpu_core/cpus": "0-3\n", "sys/devices/cpu_atom/cpus": "4-9\n"}


@ONLY_LINUX
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        (STATUS, 8),
        (capacities(1024, 1024), 2),
        (capacities(1024, 1024, 446, 446, 446, 446), 2),
        (capacities(1024, 991, 446, 446, 446, 446), 2),
        (capacities(1024, 1024, 446, 446, 446, 446) | SMALL_ONES, 4),
        (HYBRID, 2),
        (HYBRID | {"proc/self/status": "Cpus_allowed_list:\t4-9\n"}, 3),
        (HYBRID | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
    ],
    ids=[
        "nothing said",
        "one kind",
        "two large and four small",
        "one of the large with a lower clock",
        "held to the small ones",
        "hybrid",
        "hybrid, held to the small ones",
        "hybrid, quota",
    ],
)
def test_the_slow_cores_are_left_out_where_fast_ones_are_told(
    tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    assert parallel.fast_cores(a_system(tmp_path, files)) == cores


@pytest.mark.skipif(sys.platform != "darwin", reason="only macOS has this call")
def test_macos_tells_its_cores_and_has_no_other_names() -> None:
    assert parallel._sysctl("hw.logicalcpu") == os.cpu_count()
    assert parallel._sysctl("hw.no_such_name") is None


@ONLY_LINUX
def test_all_cores_are_the_machine_s_whatever_this_process_may_use(tmp_path: Path) -> None:
    assert parallel.all_cores(a_system(tmp_path, STATUS | HYPERTHREADS)) == 5


def test_where_nothing_is_told_there_is_a_core(tmp_path: Path) -> None:
    assert 1 <= parallel.usable_cores(tmp_path) <= (os.cpu_count() or 1)
    assert parallel.all_cores(tmp_path) == os.cpu_count()
