"""Seconds and memory of one detection, ours and TotalSegmentator's, on the same CT and weights, in turn.

    python -m benchmarks.compare [--size 457 379 224] [--spacing 0.8 0.8 1.49] [--fast] [--precision float32]
                                 [--tiles exact] [--runs 1] [--ours-only]

The CT is a phantom; the network that labels has full size and random weights, the localiser is the small trained one,
so that the box is a spine's. Writes Markdown.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine, scan, totalsegmentator
from benchmarks.detect import training_folder
from benchmarks.weigh import Run, run
from openscans import networks
from openscans.types import Point, Voxel

THEIRS = "TotalSegmentator, new process"
FIRST = "ours, very first start (networks compiled)"
COLD = "ours, new process"
WARM = "ours, warm"

log = logging.getLogger(__name__)


@dataclass
class Measured:
    """Seconds and bytes of every run, by name; and the warm detections' own words."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor_s: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: dict[str, list[int]] = field(default_factory=dict)
    warm: list[dict[str, Any]] = field(default_factory=list)
    peak_gflops: list[float] = field(default_factory=list)
    """What a matrix product got, right after each pair of detections."""

    def add(self, name: str, seconds: float, *, processor_s: float, peak_bytes: int) -> None:
        log.info("%s: %.1f s, %.1f s of processors, %.2f GB", name, seconds, processor_s, peak_bytes / 1e9)
        self.seconds.setdefault(name, []).append(seconds)
        self.processor_s.setdefault(name, []).append(processor_s)
        self.peak_bytes.setdefault(name, []).append(peak_bytes)

    def add_ours(self, name: str, ran: Run) -> None:
        """A process that detected twice: the time until its first answer, and that of the second detection."""
        first, second = (json.loads(line) for line in ran.output.splitlines() if line.startswith("{"))
        until_first_s = first["finished_s"] - ran.started_s
        self.add(name, until_first_s, processor_s=first["processor_so_far_s"], peak_bytes=ran.peak_bytes)
        self.add(WARM, second["seconds"], processor_s=second["processor_s"], peak_bytes=ran.peak_bytes)
        self.warm.append(second)


def measure(folder: Path, arguments: argparse.Namespace) -> Measured:
    """Both in turn, ``arguments.runs`` times; the networks' cache is empty at the very first start only."""
    image, results = folder / "ct.nii.gz", folder / "results"
    scan.write_ct(image, scan.Field(Voxel(*arguments.size), Point(*arguments.spacing)))
    scan.write_weights(results, fast=arguments.fast)
    ours = [sys.executable, "-m", "benchmarks.detect", str(image), "--results", str(results), "--runs", "2"]
    ours += ["--precision", arguments.precision, "--tiles", arguments.tiles, "--cache", str(folder / "cache")]
    ours += ["--fast"] if arguments.fast else []
    theirs = totalsegmentator.command(image, folder / "theirs.nii.gz", results, fast=arguments.fast)
    measured = Measured()
    measured.add_ours(FIRST, run(ours))
    measured.peak_gflops.append(machine.peak_gflops(arguments.precision))
    for _ in range(arguments.runs):
        measured.add_ours(COLD, run(ours))
        measured.peak_gflops.append(machine.peak_gflops(arguments.precision))
        if not arguments.ours_only:
            ran = run(theirs)
            measured.add(THEIRS, ran.seconds, processor_s=ran.processor_s, peak_bytes=ran.peak_bytes)
    return measured


def efficiency(measured: Measured, segmenter: Path) -> str:
    """A sentence: what the network that labels gets of a matrix product's speed, and what is no network's time."""
    plan = networks.read_plan(segmenter)
    gflop = machine.patch_gflop(plan)
    speeds = [gflop * one["patches"]["segmenting"] / one["network_s"][plan.dataset_name[:10]] for one in measured.warm]
    shares = [speed / peak for speed, peak in zip(speeds, measured.peak_gflops, strict=True)]
    rest = [1 - sum(one["network_s"].values()) / one["seconds"] for one in measured.warm]
    return (
        f"Warm, medians: the network runs at {median(speeds):.0f} GFLOP/s, a matrix product of its precision right "
        f"afterwards at {median(measured.peak_gflops):.0f}; pair by pair {median(shares):.0%} of it "
        f"({min(shares):.0%} to {max(shares):.0%}). What is no network takes {median(rest):.0%} of the detection."
    )


def table(measured: Measured) -> list[str]:
    """Lines of Markdown: seconds, memory, ratio; then where a warm detection's time goes."""
    theirs = measured.seconds.get(THEIRS)
    lines = [
        "| | seconds (median) | processor seconds | peak memory of all processes | TotalSegmentator takes |",
        "|---|---|---|---|---|",
    ]
    for name, seconds in measured.seconds.items():
        ratio = f"{median(theirs) / median(seconds):.1f} × as long" if theirs and name != THEIRS else ""
        peak_gb = median(measured.peak_bytes[name]) / 1e9
        used_s = median(measured.processor_s[name])
        lines.append(f"| {name} | {median(seconds):.1f} | {used_s:.1f} | {peak_gb:.2f} GB | {ratio} |")
    fastest = min(measured.warm, key=lambda one: float(one["seconds"]))
    lines += [
        "",
        f"Fastest warm detection, patches {fastest['patches']}:",
        "",
        "| stage | ms | share |",
        "|---|---|---|",
    ]
    total_ms = fastest["seconds"] * 1000
    lines += [f"| {stage} | {own} | {own / total_ms:.0%} |" for stage, own in fastest["timings_ms"].items()]
    return lines


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(457, 379, 224), metavar=("X", "Y", "Z"))
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.8, 0.8, 1.49), metavar=("X", "Y", "Z"))
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32"])
    parser.add_argument("--tiles", default="spine", choices=["spine", "course", "exact"])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--ours-only", action="store_true")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parse_arguments(given)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), arguments)
        segmenter = training_folder(Path(folder) / "results", 297 if arguments.fast else 292)
        for line in (*table(measured), "", efficiency(measured, segmenter)):
            log.info(line)


if __name__ == "__main__":
    main()
