"""Runs a command and weighs it: wall time, what it said, and the most memory that all its processes held together."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]

SAMPLE_S = 0.25
"""Between two looks at the memory. Each takes milliseconds from what is measured, more of them the more processes."""


@dataclass(frozen=True)
class Run:
    """One run of a command; ``started_s`` is the clock's time, as in `time.time`.

    ``processor_s``: summed over cores, which tells more than wall time where others work on the machine too.
    """

    started_s: float
    seconds: float
    processor_s: float
    peak_bytes: int
    output: str


def run(command: Sequence[str]) -> Run:
    """Run ``command`` to its end. Raises CalledProcessError."""
    started_s, began_s, used_s = time.time(), time.monotonic(), _children_s()
    peak_bytes = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak_bytes = max(peak_bytes, tree_bytes(root))
            time.sleep(SAMPLE_S)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, text)
    return Run(started_s, time.monotonic() - began_s, _children_s() - used_s, peak_bytes, text)


def _children_s() -> float:
    """Processor time of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def tree_bytes(root: psutil.Process) -> int:
    """Memory of a process and its children, pages that they share counted once (PSS)."""
    total = 0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", 0) or memory.rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total
