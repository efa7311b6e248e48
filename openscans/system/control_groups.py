"""The control groups of Linux that this process is in, of version 2 and 1; knows their places, not what they limit."""

from collections.abc import Iterator
from pathlib import Path


def groups_of(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Version and folder of every group above this process in which ``controller`` ("memory") may limit it.

    ``root`` is where proc and sys are mounted. A container's own group lies at the top, whatever path it is told.
    """
    for line in read_lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers != "" and controller not in controllers.split(","):
            continue
        version, top = (2, root / "sys/fs/cgroup") if controllers == "" else (1, root / "sys/fs/cgroup" / controller)
        own = Path(path.lstrip("/"))
        for group in (own, *own.parents):
            yield version, top / group


def read_lines(file: Path) -> list[str]:
    """The lines of ``file``; none where there is no such file."""
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
