"""Where the log goes and what may stand in it: stderr and a rotating file under the logs folder.

No file path, no image header, no message of a foreign exception and no address beyond its beginning is ever written,
because each may hold a patient's name; a job is known in the log by its id alone.

Rules for processes. Each writes a file of its own, whose lock it holds to its end; threads share the handler.
"""

import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from openscans.system import locks, outputs

ROOT = "openscans"
"""Only loggers under this name, and uvicorn's, are written: other libraries quote what they read."""

FILE_SIZE_BYTES = 2 * 1024 * 1024
FILES_KEPT = 3
"""Some weeks of ordinary use; 8 MB in all."""

PROCESSES = 9
"""Servers on one folder that each get a log of their own; any further ones write to stderr alone."""

ADDRESSES = re.compile(
    r"/(api/(health|detect-vertebrae|jobs|models/(all|cache-stats|download|import|status|verify))|docs|openapi\.json)\b"
)
"""Beginnings of the service's addresses. What follows, and any other address, may be whatever a caller sent."""

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def set_up(folder: Path, *, file_name: str, debug: bool) -> None:
    """Begin to log to stderr, where there is one, and to ``folder / file_name``, where that can be written."""
    # A full pipe, a full disk or a closed stream must never come back as an error from a line of log.
    logging.raiseExceptions = False
    outputs.never_wait_for_readers()
    handlers = [handler for handler in (_stderr(), _file(folder / file_name)) if handler is not None]
    # Without a handler at the root, Python prints warnings of every library to stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    for name in (ROOT, "uvicorn"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.INFO)
        logging.getLogger(name).propagate = False
        for handler in handlers:
            logging.getLogger(name).addHandler(handler)
    logging.getLogger("uvicorn.access").addFilter(shorten_address)


def shorten_address(record: logging.LogRecord) -> bool:
    """Leave of the address in a line about a request (client, method, address, …) only what is sure to be our own."""
    if isinstance(record.args, tuple) and len(record.args) > 2:
        client, method, address, *rest = record.args
        known = ADDRESSES.match(str(address))
        ours = known[0] if known else ""
        record.args = (client, method, str(address) if ours == address else f"{ours}/...", *rest)
    return True


class PrivateFormatter(logging.Formatter):
    """Time, level, logger, message; of an exception the classes and code lines, but never its message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802
        lines = []
        error = ei[1]
        while error is not None:
            lines += [line.rstrip() for line in traceback.format_tb(error.__traceback__)]
            lines.append(f"{type(error).__module__}.{type(error).__qualname__}")
            error = error.__cause__ or error.__context__
        return "\n".join(lines)


def _stderr() -> logging.Handler | None:
    if sys.stderr is None:
        return None
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrivateFormatter())
    return handler


class _OwnFile(RotatingFileHandler):
    """A log file that no other living process writes: lines would be lost whenever one of the two rotates it."""

    def __init__(self, path: Path, lock: ExitStack) -> None:
        super().__init__(path, maxBytes=FILE_SIZE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
        self.setFormatter(PrivateFormatter())
        # Never given back: the system takes it away when the process ends, however it ends.
        self._held = lock.pop_all()


def _file(path: Path) -> logging.Handler | None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        for own in _names_beside(path):
            with ExitStack() as lock:
                if _is_free(own, lock):
                    return _OwnFile(own, lock)
    return None


def _names_beside(path: Path) -> Iterator[Path]:
    """server.log, server-2.log, and so on."""
    yield path
    for number in range(2, PROCESSES + 1):
        yield path.with_stem(f"{path.stem}-{number}")


def _is_free(path: Path, lock: ExitStack) -> bool:
    """Whether it is a file or not there yet, and no other living process writes it; then ``lock`` holds it."""
    # Who opens a pipe to write waits for somebody who reads.
    if path.exists() and not path.is_file():
        return False
    try:
        return lock.enter_context(locks.hold_lock(path.with_suffix(".lock"), shared=False))
    except OSError:
        # A disk that knows no locks; a log that may lose lines is better than none.
        return True
