"""How long work says how far it is, without knowing who listens or how it is stopped; and such work as state to read.

Rules for threads. `LongTask._changed` guards the snapshot and the listeners; it is never held while a listener is
called or while the work does anything. The first last state wins; what comes after it is dropped.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeAlias, TypeVar

from openscans.errors import Cancelled
from openscans.types import ResultWarning

Report: TypeAlias = Callable[[int, int], None]
"""``report(done, total)`` in units of real work (bytes, slices, patches); raises `errors.Cancelled` to stop it."""


@dataclass(frozen=True)
class Forecast:
    """What work that knows its pace expects of itself, and what who waits should know of that.

    ``unit_s``: the seconds that one more unit of its stage takes. ``later_s``: those of all stages after it, as far as
    they are worth telling. None: nobody can say yet.
    """

    unit_s: float | None = None
    later_s: float | None = None
    warnings: tuple[ResultWarning, ...] = ()

    def left_s(self, units: int) -> float | None:
        """The seconds that remain with so many ``units`` of the stage, at least; None where nobody can say."""
        return None if self.later_s is None else units * (self.unit_s or 0.0) + self.later_s


class StageReport(Protocol):
    """``report(stage, done, total)``, the stage being a status of the HTTP contract ("reading", "segmenting", …).

    Work that can says with it what is still to come. Raises `errors.Cancelled` to stop it.
    """

    def __call__(self, stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None: ...


TICK_S = 0.5
"""How often somebody who waits in a thread is given the same state again, so that it can stop waiting."""


def ignore_progress(done: int, total: int) -> None:
    """A `Report` to nobody."""


class Snapshot(Protocol):
    """How a task stands: a frozen dataclass."""

    @property
    def over(self) -> bool:
        """Whether this is the last state."""
        ...


State = TypeVar("State", bound=Snapshot)


class LongTask(Generic[State]):
    """Work that several may watch and anybody may stop: a job, a download. All who ask look at the same object."""

    def __init__(self, first: State) -> None:
        self._changed = threading.Condition()
        self._snapshot = first
        self._listeners: list[Callable[[], object]] = []
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Somebody asked it to stop; it may not have done so yet."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask it to stop; the work hears of it by `raise_if_stopped`."""
        self._stop.set()

    def raise_if_stopped(self) -> None:
        """Raises Cancelled when somebody asked to stop."""
        if self._stop.is_set():
            raise Cancelled

    def snapshot(self) -> State:
        with self._changed:
            return self._snapshot

    @contextmanager
    def subscribe(self, listener: Callable[[], object]) -> Iterator[None]:
        """Call ``listener`` after every change, from the thread that changes; it must return at once."""
        with self._changed:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._changed:
                self._listeners.remove(listener)

    def states(self, *, gap_s: float) -> Iterator[State]:
        """Every state that the reader is in time for, the same again when nothing changes, and always the last.

        Blocks its thread between them. At most one in ``gap_s`` seconds, the last one excepted.
        """
        while True:
            told = self.snapshot()
            yield told
            if told.over:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._snapshot.over, gap_s)
                self._changed.wait_for(lambda: self._snapshot is not told, TICK_S)  # noqa: B023 (used at once)

    def update(self, **values: object) -> bool:
        """Change the state and tell who listens. Whether it still counted: after the last state there is no other."""
        return self._put(lambda known: replace(known, **values))  # type: ignore[type-var]

    def _put(self, change: Callable[[State], State]) -> bool:
        with self._changed:
            if self._snapshot.over:
                return False
            self._snapshot = change(self._snapshot)
            self._changed.notify_all()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()
        return True
