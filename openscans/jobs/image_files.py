"""Where the files of an image lie while a detection works with them: at its path, or where a zip was unpacked.

Knows that zips are unpacked by the worker, into a folder that is gone when the detection has ended; reads nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from openscans.progress import StageReport
from openscans.sources.archive import number_of
from openscans.system.private_folders import PrivateFolders
from openscans.types import Detection, UidLocation


class Unpacker(Protocol):
    """Who may open images."""

    def is_zip(self, path: Path, report: StageReport) -> bool: ...
    def unpack(self, path: Path, folder: Path, report: StageReport) -> Path: ...


@dataclass(frozen=True)
class ImageAccess:
    """``private_folders``: where zips are unpacked. ``roots``: the folders that images may lie in; none: anywhere."""

    private_folders: PrivateFolders
    roots: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ImageFiles:
    """The files of the image at ``path``; ``folder`` is where it is unpacked, None where it is no zip."""

    path: Path
    folder: Path | None
    unpacker: Unpacker

    def locate(self, report: StageReport) -> Path:
        """What is to be read, just then: a zip that was replaced since the last time is unpacked again.

        Raises what `Unpacker.unpack` does.
        """
        return self.path if self.folder is None else self.unpacker.unpack(self.path, self.folder, report)

    def name_in(self, found: Detection) -> Detection:
        """``found`` in what `locate` gave, as what was found in the image at ``path``."""
        if self.folder is None:
            return found
        places = found.uid_locations.items()
        return replace(
            found,
            task=replace(found.task, path=self.path),
            uid_locations={uid: self._in_zip(place) for uid, place in places},
        )

    def _in_zip(self, place: UidLocation) -> UidLocation:
        return replace(place, file=str(self.path), entry=number_of(Path(place.file)))


@contextmanager
def files_of(
    path: Path, unpacker: Unpacker, private_folders: PrivateFolders, report: StageReport
) -> Iterator[ImageFiles]:
    """The files of the image at ``path``; what was unpacked is gone at the end of the block.

    Raises what `Unpacker.is_zip` does, and OpenScansError where there can be no private folder.
    """
    if not unpacker.is_zip(path, report):
        yield ImageFiles(path, None, unpacker)
        return
    with private_folders.lend() as folder:
        yield ImageFiles(path, folder, unpacker)
