"""Bytes kept on disk under a key, whole or not at all, the longest unused given up first; knows not what they mean.

Rules for processes. Several share a folder without a lock. A file appears whole under its key's name, carries its own
digest, and may be given up by any of them at any time: what is missing or damaged is made again.
"""

import hashlib
import logging
import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from openscans.system.files import UNFINISHED, write_whole
from openscans.system.regular_files import open_regular

LEFT_BEHIND = (UNFINISHED, ".part")
"""How the names of files end that were being written; ".part" is version 1.0's."""

LEFT_BEHIND_S = 600.0
"""Writing takes seconds; what is unfinished and older belongs to nobody who lives."""

DIGEST_BYTES = 2 * hashlib.sha256().digest_size
"""In hexadecimal, so that text stays text."""

TAKES_BACK = sys.platform != "win32"
"""Whether the system takes back memory that stands for a file. Windows does not, and lets no such file be removed."""

log = logging.getLogger("openscans.cache")


@dataclass(frozen=True)
class DiskCache:
    """At most ``most`` files in ``folder``, each named by its key and ``suffix``: a line with a digest, the content."""

    folder: Path
    suffix: str
    most: int

    def get(self, key: str) -> bytes | None:
        """What `put` kept under ``key``; None where there is nothing, or where it is not as it was written."""
        path = self._path(key)
        try:
            with open_regular(path) as file:
                line, content = file.read(DIGEST_BYTES + 1), file.read()
            if line != _digest_line(content):
                return None
            _touch(path)
        except OSError:
            return None
        return content

    def map(self, key: str) -> memoryview | None:
        """`get` as a part of memory that stands for the file, where the system can take such a part back.

        Who has read it calls `let_go`: what is read again then comes from the file again. It may be written to, which
        changes no file. Elsewhere the content, read.
        """
        if not TAKES_BACK:
            read = self.get(key)
            return None if read is None else memoryview(bytearray(read))
        path = self._path(key)
        try:
            with open_regular(path) as file:
                mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
            _touch(path)
        except (OSError, ValueError):
            # ValueError: an empty file.
            return None
        content = mapped[DIGEST_BYTES + 1 :]
        return content if mapped[: DIGEST_BYTES + 1] == _digest_line(content) else None

    def put(self, key: str, content: bytes | memoryview) -> None:
        """Keep ``content`` for `get`. A full or locked disk is no error, but a line in the log."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(key), [_digest_line(content), content], durable=False)
        except OSError as error:
            log.warning("A file %s of the cache was not kept: %s", self.suffix, error.strerror)
        self.tidy()

    def tidy(self) -> None:
        """Give up the longest unused, and what processes left that were killed while they wrote."""
        with suppress(OSError):
            by_use = sorted(self._used(self.suffix), reverse=True)
            old_s = time.time() - LEFT_BEHIND_S
            left = ((used_s, path) for end in LEFT_BEHIND for used_s, path in self._used(end) if used_s < old_s)
            for _, path in (*by_use[self.most :], *left):
                path.unlink(missing_ok=True)

    def _used(self, end: str) -> Iterator[tuple[float, Path]]:
        """When each file whose name ends so was last used."""
        for path in self.folder.glob(f"*{end}"):
            # Another process may have been faster.
            with suppress(FileNotFoundError):
                yield path.stat().st_mtime, path

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{self.suffix}"


def _touch(path: Path) -> None:
    # On a disk that is read-only nothing is given up either.
    with suppress(OSError):
        os.utime(path)


def let_go(mapped: memoryview) -> None:
    """Give the memory of what `DiskCache.map` returned back to the system."""
    if sys.platform != "win32" and isinstance(mapped.obj, mmap.mmap):
        mapped.obj.madvise(mmap.MADV_DONTNEED)


def _digest_line(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).hexdigest().encode() + b"\n"
