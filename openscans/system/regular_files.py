"""Opening what somebody else may replace at any time, without ever waiting for what has taken a file's place.

Knows descriptors; nothing of what is in the files.
"""

import errno
import os
import stat
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Literal, overload

AT_ONCE = getattr(os, "O_NONBLOCK", 0)
"""To open a pipe waits for its other end, which may never come. Windows has none in its folders."""


@overload
def open_regular(path: Path | str, *, buffering: Literal[-1] = -1) -> BufferedReader: ...
@overload
def open_regular(path: Path | str, *, buffering: Literal[0]) -> FileIO: ...
def open_regular(path: Path | str, *, buffering: Literal[-1, 0] = -1) -> BufferedReader | FileIO:
    """The file at ``path``, to be read. Raises OSError, also where it is a pipe, a device or a folder."""
    if buffering == 0:
        return open(path, "rb", buffering=0, opener=_descriptor)
    return open(path, "rb", opener=_descriptor)


def read_head(path: str, size_bytes: int) -> bytes:
    """The beginning of the file at ``path``, as quickly as many files can be read. Raises what `open_regular` does."""
    descriptor = _descriptor(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        return os.read(descriptor, size_bytes)
    finally:
        os.close(descriptor)


def _descriptor(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | AT_ONCE)
    try:
        # What is open cannot be replaced any more.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "This is no regular file.")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
