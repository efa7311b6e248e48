"""What lies in a folder and below it: so much and no more, on one disk, without the folders that may not be listed.

Knows names and kinds of files; opens none.
"""

import operator
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from openscans.errors import FolderTooLarge

MOST_NAMES = 50_000
"""Files and folders together. A whole study has some thousand; what holds more is hardly meant to be read as one."""

DEEPEST = 32
"""Folders below the one that is named. Archives use six or seven: year, month, day, patient, study, series, part."""

NEAREST = 4
"""Folders to either side of one in which the rest of what lies in it is looked for; from one that has some, so many
further ones."""

JUNCTION = 0xA0000003
"""How Windows marks a folder that stands for another, or for another disk."""


@dataclass
class FolderWalk:
    """Everything but folders in ``top``, and below it where ``deep``: folder by folder, in the order of names.

    Not entered: links to folders, which come as the links that they are and could lead round in a circle; ``mounts``,
    where another disk begins, or what is none, as at /proc; ``unlisted``, folders that may not be listed or that went
    meanwhile. Both lists are whole when the walk has ended.
    """

    top: Path
    deep: bool = True
    mounts: list[Path] = field(default_factory=list)
    unlisted: list[Path] = field(default_factory=list)

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        """Raises FolderTooLarge, and OSError where ``top`` itself cannot be listed."""
        disk = self.top.stat().st_dev
        waiting, names = [(self.top, 0)], 0
        while waiting:
            folder, depth = waiting.pop()
            below = []
            for entry in self._list(folder):
                names += 1
                if names > MOST_NAMES:
                    raise FolderTooLarge(f"The folder holds more than {MOST_NAMES} files and folders.")
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif self.deep and self._may_enter(Path(entry.path), disk):
                    below.append((Path(entry.path), depth + 1))
            if below and depth == DEEPEST:
                raise FolderTooLarge(f"The folder goes more than {DEEPEST} folders deep.")
            waiting += reversed(below)

    def _list(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                # One more than may be there tells that they are too many; a folder may hold millions.
                return sorted(islice(entries, MOST_NAMES + 1), key=operator.attrgetter("name"))
        except OSError:
            if folder == self.top:
                raise
            self.unlisted.append(folder)
            return []

    def _may_enter(self, folder: Path, disk: int) -> bool:
        try:
            found = folder.lstat()
        except OSError:
            self.unlisted.append(folder)
            return False
        if found.st_dev == disk and getattr(found, "st_reparse_tag", 0) != JUNCTION:
            return True
        self.mounts.append(folder)
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether ``entry`` is a file or a link to one. Raises OSError for a link that leads nowhere or into the closed."""
    if entry.is_file():
        return True
    if entry.is_symlink():
        entry.stat()
    return False


def folders_beside(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders beside ``folder``, on its disk: those before it, the nearest first, and those after it, by name.

    None where nobody may list them, or where they are too many to be parts of one export.
    """
    try:
        disk = folder.stat().st_dev
        with os.scandir(folder.parent) as entries:
            names = [entry for entry in islice(entries, MOST_NAMES + 1) if entry.is_dir(follow_symlinks=False)]
        beside = [Path(entry.path) for entry in names if entry.stat(follow_symlinks=False).st_dev == disk]
    except OSError:
        return [], []
    if len(names) > MOST_NAMES:
        return [], []
    own = _in_order(folder)
    before = sorted((one for one in beside if _in_order(one) < own), key=_in_order, reverse=True)
    return before, sorted((one for one in beside if _in_order(one) > own), key=_in_order)


def _in_order(folder: Path) -> tuple[tuple[int, str], ...]:
    """What sorts folders as people count them: 9 before 10."""
    return tuple(
        (int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]{1,18})", folder.name)
    )
