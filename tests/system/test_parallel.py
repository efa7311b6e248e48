"""Work that is shared out is done once, all of it, on several threads; what fails in a part is told."""

import threading

import numpy as np
import pytest

from openscans.system.parallel import parallel_for


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
def test_every_place_is_worked_on_once(count: int) -> None:
    times = np.zeros(count, int)

    def work(part: slice) -> None:
        times[part] += 1

    parallel_for(work, count)
    assert times.tolist() == [1] * count


def test_an_error_in_a_part_reaches_the_caller() -> None:
    def work(part: slice) -> None:
        if part.stop == 100:
            raise ValueError("the last part")

    with pytest.raises(ValueError, match="the last part"):
        parallel_for(work, 100)


def test_parts_are_worked_on_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    meeting, met = threading.Barrier(2, timeout=20), []

    def work(part: slice) -> None:
        meeting.wait()
        met.append(part.start)

    parallel_for(work, 4)
    assert sorted(met) == [0, 1, 2, 3]
