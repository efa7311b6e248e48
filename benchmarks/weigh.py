"""Runs a command and weighs it: when it began, what it said, and the memory that all its processes held together."""

import math
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
    """One run of a command. Times are the clock's, as in `time.time`; ``samples``: when, and what was held then."""

    started_s: float
    samples: tuple[tuple[float, int], ...]
    output: str

    def peak_bytes(self, since_s: float = -math.inf, until_s: float = math.inf) -> int:
        """The most that was held between two times of the clock; 0 where nobody looked then."""
        return max((held for time_s, held in self.samples if since_s <= time_s <= until_s), default=0)


def run(command: Sequence[str]) -> Run:
    """Run ``command`` to its end. Raises CalledProcessError."""
    started_s = time.time()
    samples = []
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            samples.append((time.time(), tree_bytes(root)))
            time.sleep(SAMPLE_S)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, text)
    return Run(started_s, tuple(samples), text)


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
