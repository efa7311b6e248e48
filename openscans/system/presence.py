"""What is at a path, as far as the disk tells: to ask is never an error, whatever is wrong with it.

Knows names, links and the disk's own numbers; nothing of what is in files.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path


def is_there(path: Path) -> bool:
    """Whether the name is taken, also by a link that leads nowhere."""
    return os.path.lexists(path)


def regular_file(path: Path) -> os.stat_result | None:
    """What the disk says of the file, or of the one that a link leads to; None where that is none, or not told."""
    return _found(path, stat.S_ISREG)


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or a link to one."""
    return _found(path, stat.S_ISDIR) is not None


def size_bytes(path: Path) -> int:
    """0 where there is no file."""
    found = regular_file(path)
    return 0 if found is None else found.st_size


def files_at(path: Path) -> Iterator[os.stat_result]:
    """The file, or every file below the folder; what vanishes meanwhile, or cannot be reached, does not count."""
    below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for file in (path, *below):
        found = regular_file(file)
        if found is not None:
            yield found


def remove(path: Path) -> None:
    """Take away whatever is there; of a link the link alone. Raises OSError where that cannot be done."""
    if is_folder(path) and not path.is_symlink():
        shutil.rmtree(path)
    elif is_there(path):
        path.unlink()


def _found(path: Path, is_kind: Callable[[int], bool]) -> os.stat_result | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        # ValueError: a name that no disk can have.
        return None
    return found if is_kind(found.st_mode) else None
