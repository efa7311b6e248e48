"""What is free, as machines and containers tell it, and work that is refused before it has begun."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from openscans.errors import OutOfMemory
from openscans.system import memory

ROOT = Path(__file__).resolve().parents[2]

ONLY_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows tells by a call")


def a_system(folder: Path, files: dict[str, str]) -> Path:
    """A folder that looks as proc and sys do."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")
    return folder


MEMINFO = {"proc/meminfo": "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n"}


def test_it_is_about_what_psutil_says() -> None:
    assert 0 < memory.available_bytes() <= psutil.virtual_memory().available * 1.2


@ONLY_POSIX
def test_the_machine_tells_what_is_available(tmp_path: Path) -> None:
    assert memory.available_bytes(a_system(tmp_path, MEMINFO)) == 8_000_000 * 1024


@ONLY_POSIX
@pytest.mark.parametrize("group", ["/", "/user/app"])
def test_a_container_leaves_its_limit_less_what_it_uses(tmp_path: Path, group: str) -> None:
    folder = f"sys/fs/cgroup{group.rstrip('/')}"
    system = MEMINFO | {
        "proc/self/cgroup": f"0::{group}\n",
        f"{folder}/memory.max": "2000000000\n",
        f"{folder}/memory.current": "1500000000\n",
        f"{folder}/memory.stat": "anon 1\ninactive_file 300000000\n",
    }
    assert memory.available_bytes(a_system(tmp_path, system)) == 800_000_000


@ONLY_POSIX
def test_the_group_above_counts_too(tmp_path: Path) -> None:
    system = MEMINFO | {
        "proc/self/cgroup": "0::/user/app\n",
        "sys/fs/cgroup/user/app/memory.max": "max\n",
        "sys/fs/cgroup/user/app/memory.current": "5\n",
        "sys/fs/cgroup/user/memory.max": "1000\n",
        "sys/fs/cgroup/user/memory.current": "400\n",
    }
    assert memory.available_bytes(a_system(tmp_path, system)) == 600


@ONLY_POSIX
def test_control_groups_of_version_1_count_too(tmp_path: Path) -> None:
    system = MEMINFO | {
        "proc/self/cgroup": "4:cpu,cpuacct:/\n3:memory:/box\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "5000\n",
        "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "6000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "6000\n",
    }
    assert memory.available_bytes(a_system(tmp_path, system)) == 0


@ONLY_POSIX
def test_without_any_file_it_is_all_there_is(tmp_path: Path) -> None:
    assert memory.available_bytes(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@ONLY_POSIX
def test_the_processs_own_limit_counts_too() -> None:
    command = "import resource; from openscans.system import memory; "
    command += "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); print(memory.available_bytes())"
    said = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 2**28 < int(said.stdout) < 2**30


def test_work_that_fits_goes_on() -> None:
    memory.check_free(1, "The image")


def test_work_that_does_not_fit_is_refused_with_both_figures() -> None:
    with pytest.raises(OutOfMemory, match=r"The image needs 1000000\.0 GB of memory, of which \d+\.\d GB are free\."):
        memory.check_free(10**15, "The image")
