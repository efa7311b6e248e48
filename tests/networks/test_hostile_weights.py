"""Weights that are made to hurt are refused as damaged, in bounded memory and time, each by itself."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import hostile_weights
from tests.hostile_weights import HostileWeights
from tests.live_server import ROOT

MOST_S = 10.0

HOSTILE = hostile_weights.everything()


class Reader:
    """A process that looks at weights."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def look(self, folder: Path) -> list[str]:
        """What it says to the weights in ``folder``; see `hostile_weights.look`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        said: list[str] = json.loads(self._process.stdout.readline())
        return said


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    if sys.platform != "linux":
        pytest.skip("only Linux holds a process to so much memory")
    program = [sys.executable, "-m", "tests.hostile_weights"]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Reader(process)
        process.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "Dataset292_hostile" / "training"


@pytest.mark.parametrize("new_plans", [False, True])
def test_what_they_are_made_from_is_taken(reader: Reader, folder: Path, new_plans: bool) -> None:
    hostile_weights.write_training(folder, new_plans=new_plans)
    assert reader.look(folder) == ["taken"] * 3


def test_there_are_two_hundred() -> None:
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE) >= 200


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_hostile_weights_are_refused_in_bounded_memory_and_time(
    reader: Reader, folder: Path, hostile: HostileWeights
) -> None:
    hostile.spoil(folder)
    began_s = time.monotonic()
    said, plan, tensors = reader.look(folder)
    assert time.monotonic() - began_s < MOST_S
    assert said == "refused"
    assert [plan, tensors].count("refused") == 1
    for file in folder.rglob("*.*"):
        file.unlink()
