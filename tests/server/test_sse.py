"""A long task as a stream of its states: woken by changes, spaced, and always with the last."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from openscans.progress import LongTask
from openscans.server import sse

LONG_S = 30.0


@dataclass(frozen=True)
class Count:
    done: int = 0
    over: bool = False


def read(task: LongTask[Count], *, gap_s: float, then: Callable[[Count], None] = lambda _: None) -> list[Count]:
    """Every state that is told, with ``then`` called at each."""

    async def scene() -> list[Count]:
        told = []
        async for state in sse.states(task, gap_s=gap_s):
            told.append(state)
            then(state)
        return told

    return asyncio.run(asyncio.wait_for(scene(), 10))


def later(change: Callable[[], object], *, after_s: float = 0.05) -> None:
    threading.Timer(after_s, change).start()


def test_a_task_that_is_over_has_one_state() -> None:
    assert read(LongTask(Count(3, over=True)), gap_s=LONG_S) == [Count(3, over=True)]


def test_changes_from_another_thread_wake_the_reader() -> None:
    task = LongTask(Count())

    def go_on(state: Count) -> None:
        done = state.done + 1
        later(lambda: task.update(done=done, over=done == 3))

    assert read(task, gap_s=0, then=go_on) == [Count(), Count(1), Count(2), Count(3, over=True)]


def test_a_change_while_a_state_is_being_told_is_not_lost() -> None:
    task = LongTask(Count())
    told = read(task, gap_s=0, then=lambda state: task.update(done=state.done + 1, over=state.done == 2) and None)
    assert told == [Count(), Count(1), Count(2), Count(3, over=True)]


def test_a_state_that_is_told_anew_but_says_the_same_is_told_once() -> None:
    task = LongTask(Count())

    def say_the_same(state: Count) -> None:
        if not state.over:
            task.update(done=0)
            later(lambda: task.update(over=True))

    assert read(task, gap_s=0, then=say_the_same) == [Count(), Count(over=True)]


def test_states_within_the_gap_are_told_together() -> None:
    task, times = LongTask(Count()), []

    def hurry(state: Count) -> None:
        times.append(time.monotonic())
        for done in range(state.done + 1, state.done + 6):
            task.update(done=done)
        if state.done >= 10:
            task.update(over=True)

    assert [state.done for state in read(task, gap_s=0.2, then=hurry)] == [0, 5, 10, 15]
    assert times[1] - times[0] >= 0.19


def test_the_last_state_waits_for_no_gap() -> None:
    task = LongTask(Count())
    began_s = time.monotonic()
    told = read(task, gap_s=LONG_S, then=lambda state: later(lambda: task.update(done=1, over=True)))
    assert told == [Count(), Count(1, over=True)]
    assert time.monotonic() - began_s < 5


def test_nobody_is_called_any_more_when_the_reader_has_gone() -> None:
    task = LongTask(Count())

    async def scene() -> None:
        states = sse.states(task, gap_s=0)
        assert await anext(states) == Count()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(states), 0.05)

    asyncio.run(scene())
    # The loop has ended; a listener that were left would raise now.
    assert task.update(done=1)
