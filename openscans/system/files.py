"""Files that are written once, survive a power cut, and are recognised ever after by size, time and digest.

Knows files and folders; nothing of models or zips.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

CHUNK_BYTES = 1 << 20

LINKED_FROM_BYTES = 1_000_000
"""Smaller files are copied: people edit them in place, and a hard link would change with them."""


@dataclass(frozen=True)
class KeptFile:
    """What a file was when it was written. ``modified_ns`` tells whether its digest must be computed to know it."""

    size_bytes: int
    sha256: str
    modified_ns: int = 0

    @classmethod
    def of(cls, path: Path) -> "KeptFile":
        """Raises OSError."""
        with path.open("rb") as file:
            # Looked at first: what changes while it is read differs from this afterwards.
            found = os.fstat(file.fileno())
            return cls(found.st_size, hashlib.file_digest(file, "sha256").hexdigest(), found.st_mtime_ns)

    def is_still(self, path: Path) -> bool:
        """Whether ``path`` holds the same; read only where its time says that it was written again."""
        try:
            found = path.stat()
            if found.st_size != self.size_bytes or found.st_mtime_ns == self.modified_ns:
                return found.st_size == self.size_bytes
            return _sha256(path, found.st_size, found.st_mtime_ns) == self.sha256
        except OSError:
            return False


@lru_cache(maxsize=64)
def _sha256(path: Path, size_bytes: int, modified_ns: int) -> str:
    """Of the file as it was at that time: a copied home would else be read through at every look."""
    return KeptFile.of(path).sha256


def copy(source: IO[bytes], target: Path) -> KeptFile:
    """Write ``source`` to ``target``, to the disk itself, and say what was written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as out:
        while chunk := source.read(CHUNK_BYTES):
            out.write(chunk)
            digest.update(chunk)
        _sync(out)
        return KeptFile(out.tell(), digest.hexdigest(), os.fstat(out.fileno()).st_mtime_ns)


def link_or_copy(original: Path, target: Path) -> KeptFile:
    """``original`` under a second name where the disk can do that and it is large, else a copy of it.

    Nothing here writes into a file that is in its place, so the original stays as it is. A change through its first
    name is noticed like any other, by its time.
    """
    if original.stat().st_size >= LINKED_FROM_BYTES and _linked(original, target):
        return KeptFile.of(target)
    with original.open("rb") as source:
        return copy(source, target)


def copied_bytes(original: Path, folder: Path) -> int:
    """The room that `link_or_copy` will likely take in ``folder``. Raises OSError."""
    found = original.stat()
    linked = found.st_size >= LINKED_FROM_BYTES and found.st_dev == folder.stat().st_dev
    return 0 if linked else found.st_size


def write_text(path: Path, text: str) -> None:
    """``path`` holds all of ``text`` or what it held before, whenever the power fails."""
    beside = unfinished(path)
    with beside.open("w", encoding="utf-8") as out:
        out.write(text)
        _sync(out)
    beside.replace(path)
    sync_folder(path.parent)


def unfinished(path: Path) -> Path:
    """What `write_text` leaves behind when it is killed."""
    return path.with_name(f"{path.name}.new")


def sync_folder(folder: Path) -> None:
    """The names in ``folder`` are on the disk itself afterwards."""
    # Windows cannot open a folder; NTFS keeps names in its journal.
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_folders(top: Path) -> None:
    """`sync_folder` for ``top`` and all folders below it."""
    for folder, _, _ in os.walk(top):
        sync_folder(Path(folder))


def _linked(original: Path, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(original)
    except OSError:
        # Another disk, another owner, a file system without links: all of them can be read and copied.
        return False
    return True


def _sync(out: IO[bytes] | IO[str]) -> None:
    out.flush()
    os.fsync(out.fileno())
