"""An image between its headers and its voxels: the first were read once and are in order, the second wait.

Knows what all formats have in common; each format's own module makes a kind of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from openscans.errors import OutOfMemory
from openscans.progress import Report, ignore_progress
from openscans.volumes.volume import Extent, Volume

Begin: TypeAlias = Callable[[Extent], object]
"""Hears the extent of what will be read; raises what stops that."""

TOO_LARGE = "The image does not fit into the memory that is free."


def ignore_extent(extent: Extent) -> None:
    """A `Begin` that lets everything be read."""


@dataclass(frozen=True)
class Image(ABC):
    """An opened image. ``modality`` is "CT" or "MR", None where the format does not tell.

    ``extent`` is that of the `Volume` that `read` gives, in the volume's frame, unless another series takes this one's
    place. No file is kept open.
    """

    modality: str | None
    extent: Extent

    def read(self, report: Report = ignore_progress, begin: Begin = ignore_extent) -> Volume:
        """The image with its voxels. ``report`` counts slices, or the file's bytes.

        ``begin`` is called before, with what will be read; and again where that proves damaged and another series
        takes its place. Raises OutOfMemory, InputNotFound where a file has gone, CorruptFile,
        UnsupportedTransferSyntax, and whatever ``report`` and ``begin`` raise.
        """
        begin(self.extent)
        return self._read(report)

    def _read(self, report: Report) -> Volume:
        self.check_memory()
        try:
            return self._volume(report)
        except MemoryError as error:
            raise OutOfMemory(TOO_LARGE) from error

    @abstractmethod
    def check_memory(self) -> None:
        """Raises OutOfMemory where the image alone does not fit, InputNotFound where a file of it has gone."""

    @abstractmethod
    def is_unchanged(self) -> bool:
        """Whether opening it again would find the same files: none has come, gone or been written since."""

    @abstractmethod
    def _volume(self, report: Report) -> Volume: ...
