"""Which folders files may be read from, wherever links lead, and how a file is opened that lies where it was found.

Knows paths, links and the disk's own numbers of files; nothing of what files are for.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path

from openscans.errors import ForbiddenPath
from openscans.system.regular_files import AT_ONCE, open_regular

SYSTEM_FOLDERS = (Path("/dev"), Path("/proc"), Path("/sys")) if os.name == "posix" else ()
"""Their files are no files: reading one can block for ever, read memory, or make a device act."""

REPLACED = {errno.ELOOP, errno.ENOTDIR, errno.EMLINK}
"""What a system says where a link stands that must not be followed; FreeBSD the last."""

NO_LINK = getattr(os, "O_NOFOLLOW", 0)

FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_DIRECTORY", 0) | NO_LINK
"""How a folder is opened on the way to a file; one that may be passed through, but not listed, where the system can."""


def lies_in(path: Path, folders: Sequence[Path]) -> bool:
    """Whether one of ``folders`` is ``path`` or above it, by the disk's own numbers.

    Names would not do: disks differ in which spellings (case, composed or decomposed accents) are the same file.
    """
    wanted = set(_identities(folders))
    return any(identity in wanted for identity in _identities([path, *path.parents]))


def real(path: Path) -> Path:
    """``path`` without links."""
    # Path.resolve() raises on a loop of links; realpath never does.
    return Path(os.path.realpath(path))


def require_allowed(path: Path, roots: Sequence[Path]) -> Path:
    """The real path of ``path``. Raises ForbiddenPath where it lies outside ``roots``, or a link leads to a device."""
    found = real(path)
    if (roots and not lies_in(found, roots)) or (found != path and lies_in(found, SYSTEM_FOLDERS)):
        raise ForbiddenPath("The folder holds a link that leads outside the folders that this server may read.")
    return found


def open_real(path: Path) -> BufferedReader:
    """The file at ``path``, to be read, if no part of ``path`` is a link.

    So it lies where it lay when `real` gave its path, whoever has put links in the place of folders since. Raises
    ForbiddenPath where somebody did, and OSError.
    """
    try:
        if os.open in os.supports_dir_fd:
            return open(path, "rb", opener=_open_step_by_step)
        file = open_regular(path)
        if real(path) == path:
            return file
        file.close()
    except OSError as error:
        if error.errno not in REPLACED:
            raise
    raise ForbiddenPath("A file was replaced by a link while it was read.")


def _open_step_by_step(path: str, flags: int) -> int:
    """A descriptor of the regular file at the absolute ``path``, through folders that are each opened by itself."""
    top, *folders, name = Path(path).parts
    at = os.open(top, FOLDER)
    try:
        for folder in folders:
            below = os.open(folder, FOLDER, dir_fd=at)
            os.close(at)
            at = below
        file = os.open(name, flags | NO_LINK | AT_ONCE, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "This is no regular file.")
    return file


def _identities(paths: Sequence[Path]) -> Iterator[tuple[int, int]]:
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue
        yield found.st_dev, found.st_ino
