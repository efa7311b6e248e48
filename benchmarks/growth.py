"""Seconds and memory against the number of slices, ours and TotalSegmentator's: a table and a plot.

    python -m benchmarks.growth [--slices 100 300 600 900] [--plot benchmarks/growth.png]

CTs of 512 × 512 voxels of 0.7 mm, slices 1 mm apart; one run of each program for each, ours detecting twice.
"""

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import compare

log = logging.getLogger(__name__)

SHOWN = {compare.COLD: "ours, new process", compare.WARM: "ours, warm", compare.THEIRS: "TotalSegmentator"}


def measure(slices: int) -> compare.Measured:
    with tempfile.TemporaryDirectory() as folder:
        arguments = compare.parse_arguments(["--size", "512", "512", str(slices), "--spacing", "0.7", "0.7", "1.0"])
        return compare.measure(Path(folder), arguments)


def draw(found: Mapping[int, compare.Measured], path: Path) -> None:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, shown in SHOWN.items():
        left.plot([*found], [one.seconds[name][0] for one in found.values()], marker="o", label=shown)
        if name != compare.WARM:
            right.plot([*found], [one.peak_bytes[name][0] / 1e9 for one in found.values()], marker="o", label=shown)
    for axes, title in ((left, "seconds"), (right, "peak memory of all processes, GB")):
        axes.set(xlabel="slices of 512 × 512", title=title, ylim=0)
        axes.grid(visible=True)
        axes.legend()
    figure.savefig(path, dpi=90)


def main(given: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[100, 300, 600, 900])
    parser.add_argument("--plot", type=Path, default=Path(__file__).with_name("growth.png"))
    arguments = parser.parse_args(given)
    found = {slices: measure(slices) for slices in arguments.slices}
    log.info("| slices | ours, new process | ours, warm | TotalSegmentator | ours, peak | TotalSegmentator, peak |")
    log.info("|---|---|---|---|---|---|")
    for slices, one in found.items():
        seconds = " | ".join(f"{one.seconds[name][0]:.1f} s" for name in SHOWN)
        peaks = " | ".join(f"{one.peak_bytes[name][0] / 1e9:.2f} GB" for name in (compare.COLD, compare.THEIRS))
        log.info(f"| {slices} | {seconds} | {peaks} |")
    draw(found, arguments.plot)


if __name__ == "__main__":
    main()
