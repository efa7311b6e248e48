"""Folders for what is needed for a while and is nobody else's business: lent, and gone when they are given back.

Knows folders, locks and names of its own; nothing of what lies in them.

Rules for processes. Several share ``top``. Each holds the lock of one numbered folder there as long as it lives and
lends folders in it; what is found in a folder whose lock is free was left by a process that was killed, and goes when
any process starts. The locks themselves stay, as `locks` asks. A folder is made by whoever writes into it.
"""

import itertools
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from openscans.system import locks
from openscans.system.files import translate_os_errors
from openscans.system.locks import hold_lock

OWNER_ONLY = 0o700
"""Whoever else has an account on the machine sees nothing of what lies here."""

LOCK_SUFFIX = ".lock"

UNLOCKED, UNLOCKED_S = "unlocked-", 24 * 3600
"""How folders on a disk without locks are named, and for how long one may be somebody's who is still running."""


def make_private(folder: Path) -> None:
    """Make ``folder``, which lies where `PrivateFolders` lends folders. Raises OSError."""
    folder.mkdir(OWNER_ONLY, parents=True, exist_ok=True)


class PrivateFolders:
    """Lends folders in ``top``. Any number of threads may ask."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._lock = threading.Lock()
        self._held = ExitStack()
        self._own: Path | None = None

    def remove_left_over(self) -> None:
        """Remove what lies in folders of processes that have ended; on a disk without locks, what lies for a day."""
        for lock in self._top.glob(f"*{LOCK_SUFFIX}"):
            # Of another user: then nobody can tell whether it is needed.
            with suppress(OSError), hold_lock(lock, shared=False) as free:
                if free:
                    _remove(lock.with_suffix(""))
        for folder in self._top.glob(f"{UNLOCKED}*"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > UNLOCKED_S:
                    _remove(folder)

    @contextmanager
    def lend(self) -> Iterator[Path]:
        """A folder of a name that nobody has, not made yet; gone at the end of the block.

        Raises DiskFull, UnwritableDisk, and OpenScansError where none can be made.
        """
        with translate_os_errors("The folder for unpacked images", only_writes=True):
            folder = self._own_folder() / secrets.token_hex(8)
        try:
            yield folder
        finally:
            _remove(folder)

    def close(self) -> None:
        """Remove all that is lent, and lend nothing more but in another folder."""
        with self._lock:
            if self._own is not None:
                _remove(self._own)
            self._own = None
            self._held.close()

    def _own_folder(self) -> Path:
        with self._lock:
            if self._own is None:
                make_private(self._top)
                self._own = self._take_folder()
                _remove(self._own)
                make_private(self._own)
            return self._own

    def _take_folder(self) -> Path:
        for number in itertools.count():
            folder = self._top / str(number)
            with ExitStack() as stack:
                try:
                    free = stack.enter_context(hold_lock(folder.with_suffix(LOCK_SUFFIX), shared=False))
                except OSError as error:
                    if error.errno not in locks.UNKNOWN:
                        raise
                    return self._top / f"{UNLOCKED}{secrets.token_hex(8)}"
                if free:
                    self._held = stack.pop_all()
                    return folder
        raise AssertionError("There is always another number.")


def _remove(folder: Path) -> None:
    # What another program holds open stays on Windows, until the next start.
    shutil.rmtree(folder, ignore_errors=True)
