"""How often the levels of a spine are read rightly from all its vertebrae together, and how often a doubt is told.

    python -m benchmarks.sequence [--spines 300]

Bones are drawn with the shares that a network might give (`tests.drawn_bones`): soft ones, of which each level alone is
often wrong, and clear ones. Writes Markdown. Told is what the warning `sequence_differs` tells; where the network's
labels are right that is a false alarm. An anomaly is a level more or less in what is read.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from openscans.segmentation.sequence import read_sequence, sequence_warnings
from tests.drawn_bones import WHOLE, DrawnSpine, Run, draw, whole

Make = Callable[[int], DrawnSpine]

SOFT, CLEAR = "soft", "clear"

HEADS = (
    "rows",
    "spine",
    "labels right",
    "read rightly",
    "so the sketch",
    "told if labels are wrong",
    "told if they are right",
    "anomaly",
    "worst level if read wrongly, median",
)


@dataclass(frozen=True)
class Setting:
    """Spines of one kind. ``sketch``: the share that was read rightly by the sketch that this grew from."""

    rows: str
    name: str
    make: Make
    sketch: str = ""


@dataclass(frozen=True)
class Read:
    """One spine: whether the network's labels are right, what is read and told, and how probable its worst level is."""

    labels_right: bool
    right: bool
    told: bool
    anomaly: bool
    worst: float


def settings() -> Iterator[Setting]:
    yield Setting(SOFT, "whole spine", draw, "1.00")
    yield Setting(SOFT, "12 levels", _view(12), "0.99")
    yield Setting(SOFT, "6 levels", _view(6), "0.87–0.92")
    yield Setting(SOFT, "one body not detected", lambda seed: draw(seed, unseen=WHOLE[1 + seed % 23]), "0.95")
    for name, levels, with_sacrum, without in (
        ("L6", whole(more="L6"), "0.97", "0.97"),
        ("T13", whole(more="T13"), "0.98", "0.98"),
        ("eleven thoracic", whole(fewer="T12"), "0.97", "0.77"),
        ("four lumbar", whole(fewer="L5"), "0.97", "0.00"),
    ):
        yield Setting(SOFT, name, _rare(levels, anchored=True), with_sacrum)
        yield Setting(SOFT, f"{name}, sacrum not known", _rare(levels, anchored=False), without)
        yield Setting(CLEAR, name, _rare(levels, anchored=True, clear=True))
    for rows in (SOFT, CLEAR):
        yield from _shifted(rows)
    for count in (25, 12, 6, 3, 2):
        yield Setting(CLEAR, f"{count} levels", _view(count, clear=True))


def _shifted(rows: str) -> Iterator[Setting]:
    clear = rows == CLEAR
    for count in range(1, 7):
        sketch = "0.97–1.00" if count >= 3 and not clear else ""
        yield Setting(rows, f"run of {count} shifted by one", _run(25, count, clear=clear), sketch)
    for count in range(1, 7):
        yield Setting(rows, f"run of {count} shifted by one, 12 levels", _run(12, count, clear=clear))
    for first, last in (("T2", "T11"), ("C3", "T12"), ("C1", "L2")):
        start, end = WHOLE.index(first), WHOLE.index(last) + 1
        run = Run(start, end - start, 1)
        sketch = "" if clear else "0.00"
        yield Setting(rows, f"{first} to {last} shifted by one", _of_run(run, clear=clear), sketch)


def _view(count: int, *, clear: bool = False) -> Make:
    def make(seed: int) -> DrawnSpine:
        first = _first(seed, len(WHOLE) - count)
        return draw(seed, WHOLE[first : first + count], clear=clear)

    return make


def _rare(levels: tuple[str, ...], *, anchored: bool, clear: bool = False) -> Make:
    return lambda seed: draw(seed, levels, anchored=anchored, clear=clear)


def _of_run(run: Run, *, clear: bool) -> Make:
    return lambda seed: draw(seed, run=run, clear=clear)


def _run(view: int, count: int, *, clear: bool) -> Make:
    """Somewhere in a field of view that lies anywhere; up and down in turn, and never beyond C1 or S1."""

    def make(seed: int) -> DrawnSpine:
        by = 1 if seed % 2 else -1
        top = _first(seed, len(WHOLE) - view)
        place = _first(seed + 1, view - count)
        place = min(max(place, 1 if top == 0 and by < 0 else 0), view - count - (top + view == len(WHOLE) and by > 0))
        return draw(seed, WHOLE[top : top + view], run=Run(place, count, by), clear=clear)

    return make


def _first(seed: int, last: int) -> int:
    return int(np.random.default_rng([seed, 7]).integers(0, last + 1))


def read(spine: DrawnSpine) -> Read:
    reading = read_sequence(spine.bones)
    chosen = zip(reading.levels, reading.probabilities, strict=True)
    return Read(
        labels_right=spine.labels == spine.levels,
        right=reading.levels == spine.levels,
        told=bool(sequence_warnings(spine.bones, reading)),
        anomaly=bool(reading.anomalies),
        worst=min(probabilities[level] for level, probabilities in chosen),
    )


def row(setting: Setting, spines: int) -> str:
    found = [read(setting.make(seed)) for seed in range(spines)]
    worst = [one.worst for one in found if not one.right]
    cells = (
        setting.rows,
        setting.name,
        _share(one.labels_right for one in found),
        _share(one.right for one in found),
        setting.sketch,
        _share(one.told for one in found if not one.labels_right),
        _share(one.told for one in found if one.labels_right),
        _share(one.anomaly for one in found),
        f"{statistics.median(worst):.2f}" if worst else "",
    )
    return f"| {' | '.join(cells)} |"


def _share(values: Iterable[bool]) -> str:
    given = list(values)
    return f"{statistics.mean(given):.3f}" if given else ""


def milliseconds(bones: int = 30) -> float:
    """The least time of reading so many, of 200 times."""
    drawn = draw(1).bones
    several = (*drawn, *drawn)[:bones]
    taken = []
    for _ in range(200):
        began = time.perf_counter()
        read_sequence(several)
        taken.append(time.perf_counter() - began)
    return min(taken) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spines", type=int, default=300)
    spines = parser.parse_args().spines
    sys.stdout.write(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|\n")
    for setting in settings():
        sys.stdout.write(f"{row(setting, spines)}\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n30 bones are read in {milliseconds():.1f} ms.\n")


if __name__ == "__main__":
    main()
