"""A short soak; the long one is `python -m tests.soak`."""

from pathlib import Path

from tests.soak import ROUND, soaked

DETECTIONS = 2 * ROUND

SEED = 33
"""With it every kind of caller comes in two rounds, and the worker is killed in each."""


def test_a_mix_of_callers_downloads_and_kills_leaves_the_server_as_it_was(tmp_path: Path) -> None:
    figures = soaked(tmp_path, DETECTIONS, SEED)
    assert figures.faults == []
    assert figures.kills > 0
    detections = {outcome: count for outcome, count in figures.outcomes.items() if not outcome.startswith("ask")}
    assert sum(detections.values()) == DETECTIONS + 2 * len(figures.samples)
