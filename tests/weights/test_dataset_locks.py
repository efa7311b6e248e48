"""A lock holds among threads and processes, ends with whoever holds it, and is shared by those who only use."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from openscans.errors import Cancelled, ModelInUse
from openscans.system import locks
from openscans.weights.dataset_locks import DatasetLocks
from tests.live_server import ROOT

HOLDING = """
import sys, pathlib
from openscans.system import locks
with locks.hold_lock(pathlib.Path(sys.argv[1]), shared=sys.argv[2] == "shared") as free:
    print(free, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def dataset_locks(tmp_path: Path) -> DatasetLocks:
    return DatasetLocks(tmp_path)


@contextmanager
def held_elsewhere(folder: Path, how: str = "alone") -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock "a" until it is killed or the block ends."""
    program = [sys.executable, "-c", HOLDING, str(folder / "a.lock"), how]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def nothing() -> None:
    """Go on waiting."""


def give_up() -> None:
    raise Cancelled


def test_what_another_process_changes_cannot_be_locked(dataset_locks: DatasetLocks, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path):
        assert dataset_locks.is_held("a")
        with pytest.raises(ModelInUse, match="changed"), dataset_locks.try_exclusive(["b", "a"]):
            pass
        with dataset_locks.try_exclusive(["b"]):
            pass


def test_the_lock_of_a_process_that_was_killed_is_free(dataset_locks: DatasetLocks, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process, ThreadPoolExecutor(1) as pool:
        waiting = threading.Event()
        waited = pool.submit(lock_alone, dataset_locks, waiting)
        assert waiting.wait(10)
        process.kill()
        assert waited.result(10)
    assert not dataset_locks.is_held("a")


def lock_alone(dataset_locks: DatasetLocks, waiting: threading.Event) -> bool:
    with dataset_locks.exclusive("a", waiting.set):
        return True


def test_who_uses_shares_and_nobody_changes_meanwhile(dataset_locks: DatasetLocks, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "shared"), dataset_locks.shared(["a"], give_up):
        assert not dataset_locks.is_held("a")
        with pytest.raises(ModelInUse, match="detection"), dataset_locks.try_exclusive(["a"]):
            pass


def test_who_waits_can_give_up(dataset_locks: DatasetLocks, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path):
        with pytest.raises(Cancelled), dataset_locks.exclusive("a", give_up):
            pass
        with pytest.raises(Cancelled), dataset_locks.shared(["a"], give_up):
            pass


def test_a_lock_that_failed_for_one_keeps_none_of_the_others(dataset_locks: DatasetLocks) -> None:
    with dataset_locks.try_exclusive(["b"]):
        with pytest.raises(ModelInUse), dataset_locks.try_exclusive(["a", "b"]):
            pass
        with dataset_locks.try_exclusive(["a"]):
            pass


def test_to_ask_whether_it_is_held_stands_in_nobodys_way(dataset_locks: DatasetLocks) -> None:
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            dataset_locks.is_held("a")

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        try:
            for _ in range(100):
                with dataset_locks.try_exclusive(["a"]):
                    pass
        finally:
            over.set()
        assert [asked.result() for asked in asking] == [None, None]


def test_to_ask_makes_no_file(dataset_locks: DatasetLocks, tmp_path: Path) -> None:
    assert not dataset_locks.is_held("a")
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_only_is_used_without_a_lock(tmp_path: Path) -> None:
    not_a_folder = Path("/proc/locks-of-a-test")
    if not Path("/proc").is_dir():
        pytest.skip("there is no read-only file system at /proc")
    with pytest.raises(OSError, match="locks-of-a-test"), locks.hold_lock(not_a_folder / "a.lock", shared=False):
        pass
