"""A lock on a file, for threads and processes alike; the system gives it back when its holder ends, however that was.

Knows descriptors and two systems; nothing of what is locked.

Rules for threads and processes. A lock belongs to the block that took it, not to its thread or process: a second block
of the same thread is refused like anybody's. Nobody waits here. The file is never removed: two processes could else
hold locks on two files of one name.
"""

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HELD_BY_OTHERS = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}

UNKNOWN = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What disks of other machines say that know no locks."""

NOT_OURS = {errno.EROFS, errno.EACCES, errno.EPERM}

READERS = 64
"""Windows locks ranges of bytes for one holder only: who shares takes one of these, who does not takes them all."""


@contextmanager
def hold_lock(path: Path, *, shared: bool) -> Iterator[bool]:
    """Whether nobody stood in the way; then the lock is held to the end of the block.

    Many may share it; who does not share it holds it alone. Raises OSError where the file cannot be opened or its
    disk knows no locks (`UNKNOWN`).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        # What is installed for everybody and read-only is used without a lock: nobody with our rights can change it.
        if not shared or error.errno not in NOT_OURS:
            raise
        yield True
        return
    try:
        with _hold(descriptor, shared=shared) as free:
            yield free
    finally:
        os.close(descriptor)


class LocalLocks:
    """Locks by name within this process alone, for a disk that knows none."""

    def __init__(self) -> None:
        self._changed = threading.Lock()
        self._sharing: dict[str, int] = {}
        self._alone: set[str] = set()

    @contextmanager
    def hold(self, name: str, *, shared: bool) -> Iterator[bool]:
        """As `hold_lock`."""
        free = self._take(name, shared=shared)
        try:
            yield free
        finally:
            if free:
                self._give_back(name, shared=shared)

    def _take(self, name: str, *, shared: bool) -> bool:
        with self._changed:
            if name in self._alone or (not shared and self._sharing.get(name)):
                return False
            if shared:
                self._sharing[name] = self._sharing.get(name, 0) + 1
            else:
                self._alone.add(name)
            return True

    def _give_back(self, name: str, *, shared: bool) -> None:
        with self._changed:
            if shared:
                self._sharing[name] -= 1
            else:
                self._alone.remove(name)


if sys.platform == "win32":
    import msvcrt

    @contextmanager
    def _hold(descriptor: int, *, shared: bool) -> Iterator[bool]:
        ranges = [(byte, 1) for byte in range(READERS)] if shared else [(0, READERS)]
        taken = next((span for span in ranges if _try_lock(descriptor, *span)), None)
        try:
            yield taken is not None
        finally:
            if taken is not None:
                os.lseek(descriptor, taken[0], os.SEEK_SET)
                msvcrt.locking(descriptor, msvcrt.LK_UNLCK, taken[1])

    def _try_lock(descriptor: int, first_byte: int, count: int) -> bool:
        os.lseek(descriptor, first_byte, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, count)
        except OSError as error:
            if error.errno not in HELD_BY_OTHERS:
                raise
            return False
        return True

else:
    import fcntl

    @contextmanager
    def _hold(descriptor: int, *, shared: bool) -> Iterator[bool]:
        # Closing the descriptor gives it back.
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD_BY_OTHERS:
                raise
            yield False
        else:
            yield True
