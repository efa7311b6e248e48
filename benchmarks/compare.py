"""Seconds and memory of one detection, ours and TotalSegmentator's, on the same CT and weights, in turn.

    python -m benchmarks.compare [--size 457 379 224] [--spacing 0.8 0.8 1.49] [--fast]
                                 [--precision float32 | int8] [--isa avx2] [--tiles exact] [--runs 1] [--ours-only]

Each process is asked twice: its first answer is what people wait for who start a program for each image, the second one
compares warm with warm. Memory is the most until the first answer, and the most after it. ``--isa`` holds both programs
to an instruction set (`instruction_sets`); below bfloat16 ours then computes in float32, unless int8 is asked for.

The CT is a phantom; the network that labels has full size and random weights, the localiser is the small trained one,
so that the box is a spine's. Writes Markdown.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, cast

from benchmarks import instruction_sets, machine, scan, totalsegmentator
from benchmarks.detect import PRECISIONS, training_folder
from benchmarks.weigh import Run, run
from openscans import networks
from openscans.system import parallel
from openscans.types import Point, Voxel

SIZE, SPACING_MM = (457, 379, 224), (0.8, 0.8, 1.49)
"""Of the CT: columns, rows and slices, and how far apart they lie; a trunk without the legs."""

THEIRS = "TotalSegmentator, new process"
THEIRS_WARM = "TotalSegmentator, second call in one process"
FIRST = "ours, very first start (networks compiled)"
COLD = "ours, new process"
WARM = "ours, warm"

RIVALS = (THEIRS, THEIRS_WARM)

PACKAGES = ("openvino", "torch", "TotalSegmentator", "nnunetv2")
"""Whose versions decide what was measured."""

log = logging.getLogger(__name__)


@dataclass
class Measured:
    """Seconds and bytes of every run, by name; and the second calls' own words."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor_s: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: dict[str, list[int]] = field(default_factory=dict)
    warm: list[dict[str, Any]] = field(default_factory=list)
    theirs_warm: list[dict[str, Any]] = field(default_factory=list)
    peak_gflops: list[float] = field(default_factory=list)
    """What a matrix product got, right after each pair of detections."""

    def add(self, name: str, seconds: float, *, processor_s: float, peak_bytes: int) -> None:
        log.info("%s: %.1f s, %.1f s of processors, %.2f GB", name, seconds, processor_s, peak_bytes / 1e9)
        self.seconds.setdefault(name, []).append(seconds)
        self.processor_s.setdefault(name, []).append(processor_s)
        self.peak_bytes.setdefault(name, []).append(peak_bytes)

    def add_calls(self, cold: str, warm: str, ran: Run) -> dict[str, Any]:
        """A process that was asked twice: the time until its first answer, and its second one, whose words are told."""
        first, second = (json.loads(line) for line in ran.output.splitlines() if line.startswith("{"))
        since_s = first["finished_s"]
        until_first_s, used_s = since_s - ran.started_s, first["processor_so_far_s"]
        self.add(cold, until_first_s, processor_s=used_s, peak_bytes=ran.peak_bytes(until_s=since_s))
        self.add(warm, second["seconds"], processor_s=second["processor_s"], peak_bytes=ran.peak_bytes(since_s=since_s))
        return cast("dict[str, Any]", second)


def measure(folder: Path, arguments: argparse.Namespace) -> Measured:
    """Both in turn, ``arguments.runs`` times; the networks' cache is empty at the very first start only."""
    image, results = folder / "ct.nii.gz", folder / "results"
    scan.write_ct(image, scan.Field(Voxel(*arguments.size), Point(*arguments.spacing)))
    scan.write_weights(results, fast=arguments.fast)
    ours = [sys.executable, "-m", "benchmarks.detect", str(image), "--results", str(results), "--runs", "2"]
    ours += ["--precision", arguments.precision, "--tiles", arguments.tiles, "--cache", str(folder / "cache")]
    ours += ["--fast"] if arguments.fast else []
    theirs: list[str] = []
    if not arguments.ours_only:
        theirs = totalsegmentator.command(image, folder / "theirs.nii.gz", results, fast=arguments.fast, runs=2)
    measured = Measured()
    measured.warm.append(measured.add_calls(FIRST, WARM, run(ours)))
    measured.peak_gflops.append(machine.peak_gflops(arguments.precision))
    for _ in range(arguments.runs):
        measured.warm.append(measured.add_calls(COLD, WARM, run(ours)))
        measured.peak_gflops.append(machine.peak_gflops(arguments.precision))
        if theirs:
            measured.theirs_warm.append(measured.add_calls(THEIRS, THEIRS_WARM, run(theirs)))
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
    """Lines of Markdown: seconds, memory, ratios; then where a warm detection's time goes."""
    lines = [
        "| | seconds (median) | processor seconds | peak memory of all processes "
        "| TotalSegmentator, new process, takes | its second call takes |",
        "|---|---|---|---|---|---|",
    ]
    for name, seconds in measured.seconds.items():
        peak_gb = median(measured.peak_bytes[name]) / 1e9
        used_s = median(measured.processor_s[name])
        ratios = " | ".join("" if name in RIVALS else _ratio(measured.seconds.get(rival), seconds) for rival in RIVALS)
        lines.append(f"| {name} | {median(seconds):.1f} | {used_s:.1f} | {peak_gb:.2f} GB | {ratios} |")
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


def _ratio(theirs: Sequence[float] | None, ours: Sequence[float]) -> str:
    return f"{median(theirs) / median(ours):.1f} × as long" if theirs else ""


def conditions(measured: Measured, arguments: argparse.Namespace) -> str:
    """A sentence or two: the processor, what both programs were held to, how it is seen, and their versions."""
    isa = arguments.isa
    limit = "not limited" if isa is None else instruction_sets.INSTRUCTION_SETS[isa].variables["ONEDNN_MAX_CPU_ISA"]
    kernels = Counter(measured.warm[-1]["kernels"]).most_common()
    capabilities = sorted({str(one["capability"]) for one in measured.theirs_warm})
    theirs = f"; PyTorch's loops are for {', '.join(capabilities)}" if capabilities else ""
    ran = sorted({str(one["precision"]) for one in measured.warm})
    versions = [f"{package} {version(package)}" for package in PACKAGES if find_spec(package.lower())]
    return (
        f"{instruction_sets.processor_name()}, {parallel.usable_cores()} cores. Instruction set {limit}: ours "
        f"convolves by {', '.join(f'{count} × {kernel}' for kernel, count in kernels)}{theirs}. "
        f"Precision {', '.join(ran)} (asked: {arguments.precision}). {', '.join(versions)}."
    )


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=SIZE, metavar=("X", "Y", "Z"))
    parser.add_argument("--spacing", type=float, nargs=3, default=SPACING_MM, metavar=("X", "Y", "Z"))
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--isa", choices=instruction_sets.INSTRUCTION_SETS, help="hold both programs to it")
    parser.add_argument("--tiles", default="spine", choices=["spine", "course", "exact"])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--ours-only", action="store_true")
    arguments = parser.parse_args(given)
    arguments.precision = instruction_sets.precision_under(arguments.isa, arguments.precision)
    return arguments


def main(given: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parse_arguments(given)
    if arguments.isa is not None:
        instruction_sets.check_processor(arguments.isa)
        # Before anything here loads what reads them; child processes inherit them.
        os.environ.update(instruction_sets.INSTRUCTION_SETS[arguments.isa].variables)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), arguments)
        segmenter = training_folder(Path(folder) / "results", 297 if arguments.fast else 292)
        for line in (conditions(measured, arguments), "", *table(measured), "", efficiency(measured, segmenter)):
            log.info(line)


if __name__ == "__main__":
    main()
