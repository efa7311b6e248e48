"""Who is changing or using what on disk, in this process or another on the same home.

Knows names and their lock files; nothing of what they stand for.

Rules for threads and processes. Who changes something holds its lock alone; those who use it share it. Who holds one
alone waits for no other meanwhile, and who wants several alone waits a moment only, so nobody waits for ever.
Nothing is promised of the order in which those who wait come to it.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from openscans.errors import ModelInUse, OpenScansError
from openscans.system import locks
from openscans.system.files import translate_os_errors

TICK_S = 0.2
"""How often somebody who waits looks again, and asks whether it is still wanted."""

GLANCE_S = 0.2
"""Whoever only asks holds a lock for microseconds; one that is held for longer is meant."""

BEING_CHANGED = "The model is being downloaded or changed."

log = logging.getLogger("openscans.models")


class DatasetLocks:
    """Locks by name, each a file in ``folder``; within this process alone where its disk knows no locks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._local = locks.LocalLocks()
        self._warned = threading.Event()

    @contextmanager
    def try_exclusive(self, names: Collection[str]) -> Iterator[None]:
        """Hold all of them alone. Raises ModelInUse when somebody changes or uses one of them."""
        with ExitStack() as stack:
            for name in names:
                self._enter_soon(stack, name)
            yield

    @contextmanager
    def exclusive(self, name: str, go_on: Callable[[], None]) -> Iterator[None]:
        """Hold it alone once nobody else does; ``go_on`` is called while waiting and raises to give up."""
        with ExitStack() as stack:
            while not self._enter(stack, name, shared=False):
                go_on()
                time.sleep(TICK_S)
            yield

    @contextmanager
    def shared(self, names: Collection[str], go_on: Callable[[], None]) -> Iterator[None]:
        """Keep everybody from changing them; ``go_on`` as above."""
        with ExitStack() as stack:
            for name in names:
                while not self._enter(stack, name, shared=True):
                    go_on()
                    time.sleep(TICK_S)
            yield

    @contextmanager
    def try_shared(self, name: str) -> Iterator[None]:
        """Keep everybody from changing it. Raises ModelInUse when somebody does so now."""
        with ExitStack() as stack:
            if not self._enter(stack, name, shared=True):
                raise ModelInUse(BEING_CHANGED)
            yield

    def is_held(self, name: str) -> bool:
        """Whether somebody changes it right now, as far as the disk tells."""
        try:
            with ExitStack() as stack:
                return self._path(name).exists() and not self._enter(stack, name, shared=True)
        except (OSError, OpenScansError):
            # Where no lock can be had nobody holds one.
            return False

    def _enter_soon(self, stack: ExitStack, name: str) -> None:
        end_s = time.monotonic() + GLANCE_S
        while not self._enter(stack, name, shared=False):
            if time.monotonic() > end_s:
                raise ModelInUse(BEING_CHANGED if self.is_held(name) else "A detection is using this model.")
            time.sleep(GLANCE_S / 10)

    def _enter(self, stack: ExitStack, name: str, *, shared: bool) -> bool:
        """Whether it was free; then ``stack`` holds it."""
        with ExitStack() as tried:
            with translate_os_errors(only_writes=True):
                free = self._try(tried, name, shared=shared)
            if free:
                stack.push(tried.pop_all())
            return free

    def _try(self, tried: ExitStack, name: str, *, shared: bool) -> bool:
        try:
            return tried.enter_context(locks.hold_lock(self._path(name), shared=shared))
        except OSError as error:
            if error.errno not in locks.UNKNOWN:
                raise
        if not self._warned.is_set():
            self._warned.set()
            log.warning("The disk of OPENSCANS_HOME knows no locks: no second server may use it at the same time.")
        return tried.enter_context(self._local.hold(name, shared=shared))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lock"
