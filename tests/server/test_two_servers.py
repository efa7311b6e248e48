"""Two servers on one home for some seconds; for two minutes it is `python -m tests.two_servers`."""

from pathlib import Path

from tests import two_servers

SECONDS = 8.0


def test_neither_of_two_servers_takes_anything_from_the_other(tmp_path: Path) -> None:
    outcome = two_servers.run(tmp_path, SECONDS, seed=5)
    assert outcome.faults == []
    assert outcome.states[0] == outcome.states[1]
    assert outcome.counts["detect: ok"] > 0
