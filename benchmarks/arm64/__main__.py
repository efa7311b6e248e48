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
from typing import TypeAlias

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


Kernels: TypeAlias = Mapping[str, int]
"""How many convolutions each computes."""


@dataclass(frozen=True)
class Ran:
    """One patch through a network: the logits (class, z, y, x), and what computed its convolutions.

    ``instructions``: of the inference alone, in one thread; 0 where nothing is emulated.
    """

    logits: NDArray[np.float32]
    kernels: Kernels
    references: int
    instructions: int


@dataclass(frozen=True)
class Machine:
    """What runs `inside`: an interpreter and its environment."""

    python: str = sys.executable
    env: Mapping[str, str] | None = None

    def run(self, network: Path, patch: NDArray[np.float32], formulation: str) -> Ran:
        """Raises CalledProcessError."""
        with tempfile.TemporaryDirectory() as folder:
            logits = Path(folder) / "logits.npy"
            words = self._inside(network, patch, Path(folder), ["--formulation", formulation, "--logits", str(logits)])
            counts = [int(line.split()[1]) for line in words if line.startswith("instructions ")]
            told = json.loads(words[-1])
            instructions = counts[1] - counts[0] if counts else 0
            return Ran(np.load(logits), told["kernels"], told["references"], instructions)

    def kernels(self, network: Path, plan: Plan, formulation: str) -> Kernels:
        """Of a patch as large as the plan's, for which the network is only compiled. Raises CalledProcessError."""
        with tempfile.TemporaryDirectory() as folder:
            patch = np.zeros(plan.patch_zyx, np.float32)
            words = self._inside(network, patch, Path(folder), ["--formulation", formulation])
            found: Kernels = json.loads(words[-1])["kernels"]
            return found

    def _inside(self, network: Path, patch: NDArray[np.float32], folder: Path, options: Sequence[str]) -> list[str]:
        """The lines that it wrote."""
        np.save(folder / "patch.npy", patch)
        command = [self.python, "-m", "benchmarks.arm64.inside", str(network), str(folder / "patch.npy"), *options]
        ran = subprocess.run(command, cwd=ROOT, env=self.env, check=True, capture_output=True, text=True)
        return ran.stderr.splitlines()


def phantom_patch(plan: Plan, patch_zyx: Triple) -> NDArray[np.float32]:
    """The lower end of a phantom's spine as the service would give it to the network: RAS, normalised."""
    (z, y, x), (z_mm, y_mm, x_mm) = patch_zyx, plan.spacing_zyx_mm
    voxels, _ = scan.phantom_ct(scan.Field(Voxel(x, y, z), Point(x_mm, y_mm, z_mm)))
    return plan.normalise(np.ascontiguousarray(voxels[:, ::-1, ::-1], np.float32))


def listed(kernels: Kernels) -> str:
    return ", ".join(f"{count} × {kernel}" for kernel, count in sorted(kernels.items()))


def row(name: str, ran: Ran, here: Ran, volumes: Ran | None) -> str:
    fewer = f"{volumes.instructions / ran.instructions:.0f} ×" if volumes and ran is not volumes else ""
    instructions = f"{ran.instructions:.2e}" if ran.instructions else ""
    error = np.abs(ran.logits - here.logits).max()
    differ = np.mean(ran.logits.argmax(0) != here.logits.argmax(0))
    return (
        f"| {name} | {listed(ran.kernels)} | {ran.references} | {instructions} | {fewer} | {error:.1e} | {differ:.4%} |"
    )


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
    here = Machine().run(network, patch, "volumes")
    labels = here.logits.argmax(0)
    lines = [
        f"{plan.dataset_name}, a patch of {' × '.join(map(str, patch_zyx))}, one thread; logits up to "
        f"{np.abs(here.logits).max():.1f}, {len(np.unique(labels))} labels, background {np.mean(labels == 0):.0%}:",
        "",
        "| | kernels | on reference loops | instructions | fewer | largest logit error | labels that differ |",
        "|---|---|---|---|---|---|---|",
        row(HERE, here, here, None),
    ]
    sentences = []
    python = make_root(arguments.root.resolve())
    for cpu in arguments.cpu:
        machine, volumes = Machine(str(python), environment(cpu, counter=plugin(python))), None
        for formulation in arguments.formulations:
            ran = machine.run(network, patch, formulation)
            volumes = ran if formulation == "volumes" else volumes
            name = f"{formulation}, {cpu}"
            lines.append(row(name, ran, here, volumes))
            sentences.append(estimate(name, ran, plan))
            sentences.append(f"Kernels of such a patch: {listed(machine.kernels(network, plan, formulation))}.")
            log.info("%s ...", lines[-1])
    return [*lines, "", *sentences, ""]


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
