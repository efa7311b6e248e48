"""Room on the disk, and the system's complaints about files as errors with a sentence.

Knows folders and errno; nothing of models, zips or HTTP.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openscans.errors import DiskFull, OpenScansError

RESERVE_BYTES = 100_000_000
"""Left free for logs, results and the system itself."""

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises DiskFull unless ``needed_bytes`` fit on the disk of ``folder`` (which exists) and a reserve stays free."""
    if shutil.disk_usage(folder).free < needed_bytes + RESERVE_BYTES:
        raise disk_full_error(folder, needed_bytes)


def disk_full_error(folder: Path, needed_bytes: int) -> DiskFull:
    """The error that says how much is needed on the disk of ``folder``, the reserve included, and how much is free."""
    free_bytes, all_bytes = shutil.disk_usage(folder).free, needed_bytes + RESERVE_BYTES
    return DiskFull(f"{all_bytes / 1e6:.0f} MB are needed on the disk; {free_bytes / 1e6:.0f} MB are free.")


def is_disk_full(error: OSError) -> bool:
    return error.errno in FULL


@contextmanager
def translate_os_errors() -> Iterator[None]:
    """Raises DiskFull, or OpenScansError with the system's reason, for an OSError inside the block."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull("The disk became full while files were written.") from error
        raise OpenScansError(
            f"A file of the models cannot be read or written: {error.strerror or type(error).__name__}.",
            hint="Check the permissions of the folder that OPENSCANS_HOME names.",
        ) from error
