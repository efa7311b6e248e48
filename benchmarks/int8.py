"""int8 beside float32: what becomes of the labels, and of a patch's time under the instructions of other processors.

    python -m benchmarks.int8 [--phantoms 8] [--isa avx2 avx2_vnni avx512_vnni] [--rounds 5]

Labels: the trained network 292 on phantoms that it has never seen, one network for all of them, as the service runs it;
both are given the box that float32's localiser found. Seconds: the full-size 292 with random weights, each in a process
of its own.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.detect import training_folder
from benchmarks.instruction_sets import INSTRUCTION_SETS, check_processor
from openscans import networks
from openscans.networks import int8_trials
from openscans.progress import ignore_progress
from openscans.segmentation import labelling, plausibility, vertebrae
from openscans.types import InferenceOptions
from openscans.volumes import Volume

WEIGHTS = Path(__file__).resolve().parents[1] / "phantom" / "weights"

STEP = 0.8

NOWHERE = np.full(3, np.inf)
"""The centre of a vertebra that one of two label maps lacks."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Difference:
    """Between two label maps of one phantom: ``dice`` of each vertebra that either shows, how far the centres lie
    apart, and the share of the voxels with the same label, of those that either names."""

    dice: dict[str, float]
    centers_mm: dict[str, float]
    agreement: float


def differences(count: int) -> Iterator[tuple[int, str, Difference]]:
    """For each phantom its number, the precision that really ran at its end, and how int8 differs from float32."""
    from phantom import evaluate

    with tempfile.TemporaryDirectory() as cache:
        exact, wish = (InferenceOptions(None, precision, Path(cache)) for precision in ("float32", "int8"))
        localiser = networks.load_folder(training_folder(WEIGHTS, 298), device="cpu", options=exact)
        full = networks.load_folder(training_folder(WEIGHTS, 292), device="cpu", options=exact)
        rounded = networks.load_folder(training_folder(WEIGHTS, 292), device="cpu", options=wish)
        for seed in range(count):
            _, volume, _ = evaluate.scan(seed)
            roi = labelling.localise(volume, localiser, step=STEP, report=ignore_progress)
            if roi is None:
                continue
            one, other = (
                labelling.segment(volume, roi.box, network, step=STEP, report=ignore_progress, roi=roi)
                for network in (full, rounded)
            )
            yield seed, rounded.runs.precision, difference(one, other, volume)


def difference(one: vertebrae.LabelMap, other: vertebrae.LabelMap, volume: Volume) -> Difference:
    dice = {
        name: 2 * int(((one.labels == number) & (other.labels == number)).sum()) / both
        for number, name in one.names.items()
        if (both := int((one.labels == number).sum()) + int((other.labels == number).sum()))
    }
    places, others = centers(one, volume), centers(other, volume)
    centers_mm = {
        label: float(np.linalg.norm(places.get(label, NOWHERE) - others.get(label, NOWHERE)))
        for label in places.keys() | others.keys()
    }
    named = (one.labels > 0) | (other.labels > 0)
    return Difference(dice, centers_mm, float((one.labels == other.labels)[named].mean()))


def centers(found: vertebrae.LabelMap, volume: Volume) -> dict[str, NDArray[np.float64]]:
    """Of the vertebrae that an answer would show, in LPS mm."""
    shown, _ = plausibility.drop_fragments(vertebrae.measure(found, volume))
    return {one.label: np.array([one.center_mm.x, one.center_mm.y, one.center_mm.z]) for one in shown}


def time_patch(folder: Path, precision: str, rounds: int) -> dict[str, object]:
    """Seconds of a patch, in this process; int8 even if the labels differ, as those of random weights do."""
    int8_trials.PLAIN_AGREEMENT = 0.0
    with tempfile.TemporaryDirectory() as cache:
        network = networks.load_folder(folder, device="cpu", options=InferenceOptions(None, precision, Path(cache)))
        patch = np.random.default_rng(0).standard_normal(network.plan.patch_zyx, np.float32)
        # The first one decides, and the next one is the first of the network that was decided on.
        for _ in range(2):
            network.logits(patch)
        seconds, used_s = [], []
        for _ in range(rounds):
            began_s, began_processor_s = time.perf_counter(), time.process_time()
            network.logits(patch)
            seconds.append(time.perf_counter() - began_s)
            used_s.append(time.process_time() - began_processor_s)
    runs = network.runs
    return {
        "precision": runs.precision,
        "seconds": median(seconds),
        "processor_s": median(used_s),
        "kernels": dict(runs.kernels),
    }


def time_under(isa: str, folder: Path, precision: str, rounds: int) -> dict[str, object]:
    """`time_patch` in a process whose oneDNN takes the processor for one with no more than ``isa``; "own": as it is."""
    limits = INSTRUCTION_SETS[isa].variables if isa in INSTRUCTION_SETS else {}
    command = [sys.executable, "-m", "benchmarks.int8", "--one", str(folder), precision, "--rounds", str(rounds)]
    said = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(said.stdout)
    return found


def tell_labels(count: int) -> None:
    log.info("| phantom | runs in | labels | Dice least | Dice median | of | voxels alike | centres at most (mm) |")
    log.info("|---|---|---|---|---|---|---|---|")
    for seed, precision, found in differences(count):
        worst = min(found.dice, key=lambda name: found.dice[name])
        log.info(
            f"| {seed} | {precision} | {len(found.dice)} | {found.dice[worst]:.4f} | {median(found.dice.values()):.4f} "
            f"| {worst} | {found.agreement:.4f} | {max(found.centers_mm.values()):.2f} |"
        )


def tell_seconds(isas: Sequence[str], rounds: int) -> None:
    from phantom import layout

    log.info("| instructions | precision | seconds a patch, median | processor seconds | kernels |")
    log.info("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as results:
        folder = layout.write_random(Path(results), 292)
        for isa in isas:
            for precision in ("float32", "int8"):
                found = time_under(isa, folder, precision, rounds)
                log.info(
                    f"| {isa} | {found['precision']} | {found['seconds']:.2f} | {found['processor_s']:.2f} "
                    f"| {found['kernels']} |"
                )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("openscans").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=int, default=8, help="0: no labels are compared")
    names = [*INSTRUCTION_SETS, "own"]
    parser.add_argument("--isa", nargs="*", default=["avx2", "avx2_vnni", "avx512_vnni"], choices=names)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        folder, precision = arguments.one
        sys.stdout.write(json.dumps(time_patch(Path(folder), precision, arguments.rounds)))
        return
    for isa in INSTRUCTION_SETS.keys() & set(arguments.isa):
        check_processor(isa)
    if arguments.phantoms:
        tell_labels(arguments.phantoms)
    if arguments.isa:
        tell_seconds(arguments.isa, arguments.rounds)


if __name__ == "__main__":
    main()
