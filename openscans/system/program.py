"""Whether the files of the program that runs are still those that it was started from, or an update has replaced them.

Knows sizes and times of files; nothing of what is in them. What is loaded goes on as it was; a process that is started
now, and what is loaded late, would be of another version, or is not found.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from openscans.errors import OpenScansError

REPLACED = "The program's files were moved or replaced while it ran, as an update does."
RESTART = "Restart the program, then send the request again."


class Program:
    """Size and time of each of its files, as they were when it began."""

    def __init__(self) -> None:
        self._files: Mapping[Path, tuple[int, int]] = {}

    def remember_files(self) -> None:
        self._files = {path: stat for path in _files() if (stat := _stat(path)) is not None}

    @property
    def replaced(self) -> bool:
        """Whether any file is gone or is another one than it was."""
        return any(_stat(path) != stat for path, stat in self._files.items())

    def unforeseen(self, message: str) -> OpenScansError:
        """What went wrong for a reason that nobody foresaw, unless the files tell it."""
        return OpenScansError(REPLACED, hint=RESTART) if self.replaced else OpenScansError(message)


RUNNING = Program()
"""This process's. Without files, and never replaced, where nobody had it remember them."""


def _files() -> Iterator[Path]:
    """The interpreter or the executable, and what of our own code lies in files; some hundred."""
    package = Path(__file__).resolve().parents[1]
    yield Path(sys.executable)
    # A frozen program has its code in the executable.
    if package.is_dir():
        yield from package.rglob("*.py")
        yield from package.parent.glob("*.py")


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
