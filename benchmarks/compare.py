"""Seconds and memory of one detection, ours and TotalSegmentator's, on the same CT and weights, in turn.

    python -m benchmarks.compare [--size 512] [--slices 600] [--fast] [--runs 1] [--ours-only]

The CT is a phantom; the network that labels has full size and random weights, the localiser is the small trained one,
so that the box is a spine's.
"""

import argparse
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks import totalsegmentator
from phantom import drawing, grid, layout, spine
from phantom.files import write_nifti

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "phantom" / "weights"
SAMPLE_S = 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One run of a command: wall time, and the most memory that its processes held together."""

    seconds: float
    peak_bytes: int
    output: str


def run(command: Sequence[str]) -> Run:
    """Run ``command`` to its end and weigh its whole process tree. Raises CalledProcessError."""
    started_s = time.monotonic()
    peak_bytes = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak_bytes = max(peak_bytes, _tree_bytes(root))
            time.sleep(SAMPLE_S)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, text)
    return Run(time.monotonic() - started_s, peak_bytes, text)


def _tree_bytes(root: psutil.Process) -> int:
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


def write_ct(path: Path, *, size: int, slices: int) -> None:
    """A phantom's CT of ``size`` × ``size`` × ``slices`` voxels: 360 mm wide, and as long as the whole spine."""
    phantom = spine.describe(5)
    (planes, _, _), axial = grid.axial(phantom, (1.0, 1.0, 1.0))
    affine = np.diag([360 / size, 360 / size, planes / slices, 1.0])
    affine[:3, 3] = axial[:3, 3] - (65, 80, 0)
    voxels, _ = drawing.render(phantom, (slices, size, size), affine, seed=5)
    write_nifti(path, voxels, affine)


def write_weights(results: Path, *, fast: bool) -> None:
    """The small trained localiser, and the full-size network that labels, with random weights."""
    folder = layout.SPECS[298].folder
    shutil.copytree(WEIGHTS / folder, results / folder)
    layout.write_random(results, 297 if fast else 292)


def compare(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Lines of a Markdown table."""
    image, results = folder / "ct.nii.gz", folder / "results"
    write_ct(image, size=arguments.size, slices=arguments.slices)
    write_weights(results, fast=arguments.fast)
    fast = ["--fast"] if arguments.fast else []
    ours = [sys.executable, "-m", "benchmarks.detect", str(image), "--results", str(results), *fast]
    theirs = totalsegmentator.command(image, folder / "theirs.nii.gz", results, fast=arguments.fast)
    rivals = {"ours, new process": ours} | ({} if arguments.ours_only else {"TotalSegmentator, new process": theirs})
    runs: dict[str, list[Run]] = {name: [] for name in rivals}
    for turn in range(arguments.runs):
        for name, command in rivals.items():
            runs[name].append(run(command))
            log.info("%d, %s: %.1f s. %s", turn + 1, name, runs[name][-1].seconds, runs[name][-1].output.strip()[-300:])
    lines = ["| | seconds (median) | peak memory of all processes |", "|---|---|---|"]
    for name, found in runs.items():
        peak_gb = median(one.peak_bytes for one in found) / 1e9
        lines.append(f"| {name} | {median(one.seconds for one in found):.1f} | {peak_gb:.2f} GB |")
    return lines


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--ours-only", action="store_true")
    with tempfile.TemporaryDirectory() as folder:
        for line in compare(Path(folder), parser.parse_args()):
            log.info(line)


if __name__ == "__main__":
    main()
