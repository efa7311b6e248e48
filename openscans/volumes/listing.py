"""Which files lie at a place, and whether they still do: names, sizes and times; opens none."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from openscans.errors import FolderTooLarge, InputNotFound
from openscans.system.folder_walk import FolderWalk, is_file

FileState: TypeAlias = tuple[str, int, int]
"""A file's path, its size in bytes, and when it was last written, in nanoseconds."""


def state_of(file: Path) -> FileState | None:
    """None where there is no file that can be looked at."""
    try:
        return _state(str(file), file.stat())
    except OSError:
        return None


@dataclass(frozen=True)
class FolderContents:
    """The files in ``top``, and below it where ``deep``, in the order of names.

    ``unreadable``: links of which nobody can tell whether they are files. ``unlisted`` and ``mounts``: folders that
    were not entered (`FolderWalk`).
    """

    top: Path
    deep: bool
    files: tuple[FileState, ...]
    unreadable: tuple[Path, ...]
    unlisted: tuple[Path, ...]
    mounts: tuple[Path, ...]

    @classmethod
    def of(cls, top: Path, *, deep: bool) -> Self:
        """Raises InputNotFound where ``top`` cannot be listed, FolderTooLarge."""
        walk = FolderWalk(top, deep)
        files, unreadable = [], []
        try:
            for entry in walk:
                try:
                    if is_file(entry):
                        files.append(_state(entry.path, entry.stat()))
                except OSError:
                    unreadable.append(Path(entry.path))
        except OSError as error:
            raise InputNotFound("The folder cannot be listed.") from error
        return cls(top, deep, tuple(files), tuple(unreadable), tuple(walk.unlisted), tuple(walk.mounts))

    @property
    def paths(self) -> list[Path]:
        return [Path(path) for path, _, _ in self.files]

    def is_unchanged(self) -> bool:
        try:
            return FolderContents.of(self.top, deep=self.deep) == self
        except (InputNotFound, FolderTooLarge):
            return False


def _state(path: str, found: os.stat_result) -> FileState:
    return path, found.st_size, found.st_mtime_ns
