"""What it takes to keep the second and third class of every voxel beside the first: processor seconds and bytes.

    python -m benchmarks.runners_up [--size 163 119 113] [--classes 27] [--bone 0.33] [--rounds 7]

Sums of logits over a box at 1.5 mm, of which a share is bone, decided in turn without and with runners-up. Writes
Markdown.
"""

import argparse
import logging
import time
import tracemalloc
from collections.abc import Sequence
from statistics import median

import numpy as np

from openscans.segmentation.blending import LogitPlane, RunnersUp, SummedPlane, argmax_softmax, join_runners_up

MB = 1e6

log = logging.getLogger(__name__)


def planes_of_bone(size_xyz: Sequence[int], classes: int, bone: float) -> list[LogitPlane]:
    """Planes of weighted sums whose background loses in a share ``bone`` of the voxels, in the middle of each plane."""
    x, y, z = size_xyz
    random = np.random.default_rng(0)
    planes: list[LogitPlane] = []
    for _ in range(z):
        sums = random.standard_normal((classes, y, x), np.float32)
        sums[0] += 20
        rows = round(y * bone)
        sums[0, (y - rows) // 2 : (y - rows) // 2 + rows] -= 40
        planes.append(SummedPlane(sums, np.full((y, x), 2, np.float32)))
    return planes


def decide(planes: Sequence[LogitPlane], *, with_runners_up: bool) -> tuple[float, int]:
    """Processor seconds, and the voxels that have a label but 0."""
    _, y, x = planes[0].sums.shape
    labels, probabilities = np.zeros((len(planes), y, x), np.uint8), np.zeros((len(planes), y, x), np.float16)
    parts: list[RunnersUp] | None = [] if with_runners_up else None
    began_s = time.process_time()
    argmax_softmax(planes, labels, probabilities, parts)
    if parts is not None:
        join_runners_up(parts)
    return time.process_time() - began_s, int(np.count_nonzero(labels))


def peak_bytes(planes: Sequence[LogitPlane], *, with_runners_up: bool) -> int:
    """The most that numpy and Python held at once, beside the planes."""
    tracemalloc.start()
    decide(planes, with_runners_up=with_runners_up)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main(given: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=(163, 119, 113), metavar=("X", "Y", "Z"))
    parser.add_argument("--classes", type=int, default=27)
    parser.add_argument("--bone", type=float, default=0.33)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args(given)
    planes = planes_of_bone(arguments.size, arguments.classes, arguments.bone)
    _, named = decide(planes, with_runners_up=True)
    rounds = [[decide(planes, with_runners_up=choice)[0] for choice in (False, True)] for _ in range(arguments.rounds)]
    log.info(f"{named} of {np.prod(arguments.size)} voxels have a label.\n")
    log.info("| | processor ms, median | least | most | peak MB |")
    log.info("|---|---|---|---|---|")
    for name, choice in (("labels and probabilities", False), ("with second and third", True)):
        own = [one[int(choice)] * 1000 for one in rounds]
        peak = peak_bytes(planes, with_runners_up=choice) / MB
        log.info(f"| {name} | {median(own):.0f} | {min(own):.0f} | {max(own):.0f} | {peak:.1f} |")


if __name__ == "__main__":
    main()
