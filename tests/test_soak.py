"""A short soak; the long one is `python -m tests.soak`."""

from pathlib import Path

from tests.soak import ROUND, soaked

DETECTIONS = 2 * ROUND

FLAT = 0.1
"""The share by which memory may differ from the first round to the last."""


def test_a_mix_of_callers_downloads_and_kills_leaves_the_server_as_it_was(tmp_path: Path) -> None:
    figures = soaked(tmp_path, DETECTIONS)
    assert figures.faults == []
    detections = {outcome: count for outcome, count in figures.outcomes.items() if not outcome.startswith("ask")}
    assert sum(detections.values()) == DETECTIONS + 2 * len(figures.samples)
    assert abs(figures.growth("server_bytes")) <= FLAT
