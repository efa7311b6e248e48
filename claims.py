"""Who is changing a dataset on disk: at most one thread at a time, without a lock that is held while it works.

Knows numbers of datasets only. The condition guards the set of claimed numbers, never the work itself.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from errors import ModelInUse

TICK_S = 0.2
"""How often somebody who waits asks whether it is still wanted."""


class Claims:
    """The datasets that somebody is changing."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._claimed: set[int] = set()

    @contextmanager
    def at_once(self, numbers: set[int]) -> Iterator[None]:
        """Raises ModelInUse when somebody else changes one of them."""
        with self._changed:
            if numbers & self._claimed:
                raise ModelInUse("The model is being changed.")
            self._claimed |= numbers
        with self._released_after(numbers):
            yield

    @contextmanager
    def when_free(self, number: int, go_on: Callable[[], None]) -> Iterator[None]:
        """Wait until nobody else changes it; ``go_on`` raises to give up."""
        with self._changed:
            while number in self._claimed:
                self._changed.wait(TICK_S)
                go_on()
            self._claimed.add(number)
        with self._released_after({number}):
            yield

    @contextmanager
    def _released_after(self, numbers: set[int]) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._claimed -= numbers
                self._changed.notify_all()
