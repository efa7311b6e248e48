"""Standard output and error that never make this process wait, and that stay as they are for whoever shares them.

Knows descriptors; nothing of what is written. Whether a write waits is a property of the pipe's end, not of the number
under which a process has it: set on a pipe of the parent's, it would be set for the parent and its other children too.
So all that is written here, by libraries as well, goes into a pipe of our own, which drops what does not fit.

Rules for threads. One thread a stream hands on what comes, and waits where nobody reads; nobody waits for it.
"""

import atexit
import io
import os
import select
import stat
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import TextIO

PIECE_BYTES = 64 * 1024

LAST_WORDS_S = 0.2
"""At the end, for what was not handed on yet."""


def never_wait_for_readers() -> None:
    """Let what is written to a pipe that nobody reads be dropped, rather than stop the process when it is full."""
    sys.stdout, sys.stderr = _own(sys.stdout), _own(sys.stderr)


def _own(stream: TextIO) -> TextIO:
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            _put_own_pipe_before(descriptor)
            # A buffer keeps what the pipe did not take, and every later flush of it fails; `multiprocessing` flushes
            # before it starts a process.
            raw = io.FileIO(descriptor, "w", closefd=False)
            return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", write_through=True)
    except (AttributeError, OSError, ValueError, RuntimeError):
        # There is none, it is closed, (Python 3.11 on Windows) pipes always wait, or there is no thread left.
        pass
    return stream


def _put_own_pipe_before(descriptor: int) -> None:
    """Raises OSError, AttributeError and RuntimeError; then all is as it was."""
    with ExitStack() as opened:
        theirs = os.dup(descriptor)
        opened.callback(os.close, theirs)
        source, own = os.pipe()
        opened.callback(os.close, source)
        try:
            os.set_blocking(own, False)
            threading.Thread(target=_hand_on, args=(source, theirs), name="output", daemon=True).start()
            opened.pop_all()
            os.dup2(own, descriptor)
        finally:
            os.close(own)
    atexit.register(_await_last_words, source)


def _hand_on(source: int, theirs: int) -> None:
    # Where nobody can read any more, what is written later is dropped in the same way once the pipe is full.
    with suppress(OSError):
        while piece := os.read(source, PIECE_BYTES):
            # A parent may have set its own pipe so that it does not wait.
            with suppress(BlockingIOError):
                while piece:
                    piece = piece[os.write(theirs, piece) :]


def _await_last_words(source: int) -> None:
    end_s = time.monotonic() + LAST_WORDS_S
    # Windows can look into sockets only.
    while time.monotonic() < end_s and (sys.platform == "win32" or select.select([source], [], [], 0)[0]):
        time.sleep(LAST_WORDS_S / 20)
