"""The networks on an emulated ARM64 processor, in both formulations, beside float32 over volumes on this one.

    python -m benchmarks.arm64 [--root FOLDER] [--cpu neoverse-n1 max,sve=off] [--datasets 292] [--patch 32 32 32]
                               [--formulations planes] [--results phantom/weights]

As root on Debian 12, x86-64, with debootstrap, qemu-user and gcc installed; the environment needs PyTorch, which draws
the full-size networks' random weights (``--results`` names others). The first run makes the ARM64 root, which takes a
minute. A patch over volumes takes QEMU half an hour, one over planes a minute. Writes Markdown.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import scan
from benchmarks.arm64.root import environment, make_root, plugin
from benchmarks.detect import training_folder
from benchmarks.weigh import ROOT
from openscans.networks.plans import Plan, Triple, read_plan
from openscans.types import Point, Voxel
from phantom import layout

HERE = "volumes, this processor"

CLOCK_HZ, CORES = 3.2e9, 4
"""Of an Apple M1, its performance cores."""

INSTRUCTIONS_A_CYCLE = (2.0, 4.0)
"""What such a core may do of them, at the worst and at the best; an assumption, as nobody ran it there."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ran:
    """One patch through a network: logits (class, z, y, x), and how many convolutions each kernel computed.

    ``instructions``: of the inference alone, in one thread; 0 where nothing is emulated.
    """

    logits: NDArray[np.float32]
    kernels: Mapping[str, int]
    references: int
    instructions: int


def run_patch(command: Sequence[str], network: Path, patch: NDArray[np.float32], env: Mapping[str, str] | None) -> Ran:
    """Run `inside` by ``command``. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        sent, logits = Path(folder) / "patch.npy", Path(folder) / "logits.npy"
        np.save(sent, patch)
        ran = subprocess.run(
            [*command, str(network), str(sent), str(logits)],
            cwd=ROOT,
            env=env,
            check=True,
            capture_output=True,
            text=True,
        )
        told = json.loads(ran.stderr.splitlines()[-1])
        counts = [int(line.split()[1]) for line in ran.stderr.splitlines() if line.startswith("instructions ")]
        instructions = counts[1] - counts[0] if counts else 0
        return Ran(np.load(logits), told["kernels"], told["references"], instructions)


def phantom_patch(plan: Plan, patch_zyx: Triple) -> NDArray[np.float32]:
    """The lower end of a phantom's spine as the service would give it to the network: RAS, normalised."""
    (z, y, x), (z_mm, y_mm, x_mm) = patch_zyx, plan.spacing_zyx_mm
    voxels, _ = scan.phantom_ct(scan.Field(Voxel(x, y, z), Point(x_mm, y_mm, z_mm)))
    return plan.normalise(np.ascontiguousarray(voxels[:, ::-1, ::-1], np.float32))


def row(name: str, ran: Ran, here: Ran, volumes: Ran | None) -> str:
    kernels = ", ".join(f"{count} × {kernel}" for kernel, count in sorted(ran.kernels.items()))
    fewer = f"{volumes.instructions / ran.instructions:.0f} ×" if volumes and ran.instructions else ""
    instructions = f"{ran.instructions:.2e}" if ran.instructions else ""
    error = np.abs(ran.logits - here.logits).max()
    differ = np.mean(ran.logits.argmax(0) != here.logits.argmax(0))
    return f"| {name} | {kernels} | {ran.references} | {instructions} | {fewer} | {error:.1e} | {differ:.4%} |"


def estimate(name: str, ran: Ran, plan: Plan) -> str:
    """A sentence on a whole patch, which counts voxels and assumes the rest."""
    instructions = ran.instructions * prod(plan.patch_zyx) / prod(ran.logits.shape[1:])
    slow_s, fast_s = (instructions / rate / CLOCK_HZ / CORES for rate in INSTRUCTIONS_A_CYCLE)
    whole = " × ".join(map(str, plan.patch_zyx))
    return f"Estimate, run by nobody: {name}, {whole} on an M1's {CORES} cores {fast_s:.2g}–{slow_s:.2g} s a patch."


def measure(dataset: int, results: Path, arguments: argparse.Namespace) -> list[str]:
    """Lines of Markdown on one network."""
    network = training_folder(results, dataset)
    plan = read_plan(network)
    patch_zyx: Triple = tuple(arguments.patch or plan.patch_zyx)
    patch = phantom_patch(plan, patch_zyx)
    inside = ("-m", "benchmarks.arm64.inside")
    here = run_patch([sys.executable, *inside], network, patch, None)
    labels = here.logits.argmax(0)
    lines = [
        f"{plan.dataset_name}, a patch of {' × '.join(map(str, patch_zyx))}, one thread; logits up to "
        f"{np.abs(here.logits).max():.1f}, {len(np.unique(labels))} labels, background {np.mean(labels == 0):.0%}:",
        "",
        "| | kernels | on reference loops | instructions | fewer | largest logit error | labels that differ |",
        "|---|---|---|---|---|---|---|",
        row(HERE, here, here, None),
    ]
    estimates = []
    python = make_root(arguments.root.resolve())
    for cpu in arguments.cpu:
        volumes = None
        for formulation in arguments.formulations:
            command = [str(python), *inside, "--formulation", formulation]
            ran = run_patch(command, network, patch, environment(cpu, counter=plugin(python)))
            volumes = ran if formulation == "volumes" else volumes
            lines.append(row(f"{formulation}, {cpu}", ran, here, volumes))
            estimates.append(estimate(f"{formulation}, {cpu}", ran, plan))
            log.info("%s", lines[-1])
    return [*lines, "", *estimates, ""]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=ROOT / "build" / "arm64", help="the ARM64 root (default: %(default)s)"
    )
    parser.add_argument("--cpu", nargs="+", default=["neoverse-n1"], help="as QEMU names them (default: %(default)s)")
    parser.add_argument("--datasets", nargs="+", type=int, default=[292])
    parser.add_argument("--formulations", nargs="+", default=["volumes", "planes"], choices=["volumes", "planes"])
    parser.add_argument("--patch", nargs="*", type=int, default=[32, 32, 32], help="z y x; none: the network's own")
    parser.add_argument(
        "--results", type=Path, help="a folder with Dataset… folders (default: full size, random weights)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for dataset in arguments.datasets:
            results = arguments.results or Path(folder)
            if arguments.results is None:
                layout.write_random(results, dataset)
            for line in measure(dataset, results, arguments):
                log.info("%s", line)


if __name__ == "__main__":
    main()
