"""Files that are written whole, room for them, and what is wrong with them; some are recognised ever after.

Knows files, folders, disks and errno; nothing of models, zips or HTTP.

Rules for processes. Several may write or remove the same file at any time without a lock: each writes beside it, under
a name of its own, and puts the whole in place. What a killed one leaves beside is removed by whoever owns the folder.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from openscans.errors import DiskFull, OpenScansError, UnwritableDisk
from openscans.system.allowed_roots import open_real
from openscans.system.regular_files import open_regular

CHUNK_BYTES = 1 << 20

UNFINISHED = ".new"
"""How the names of files end that are not whole yet."""

RESERVE_BYTES = 100_000_000
"""Left free for logs, results and the system itself."""

FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

NOT_TOLD = {errno.ENOSYS, errno.ENOTSUP, errno.EOVERFLOW}
"""What disks say that cannot tell how large they are."""

CANNOT_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF}
"""What disks say that know no way to make something durable; nothing more can be done there."""

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
        with open_regular(path) as file:
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
    """What ``original`` is or leads to, under a second name where the disk can do that and it is large, else a copy.

    Nothing here writes into a file that is in its place, so the original stays as it is. A change through its first
    name is noticed like any other, by its time. Raises OSError, and ForbiddenPath where ``original``, a real path, has
    become a link.
    """
    with open_real(original) as source:
        found = os.fstat(source.fileno())
        if found.st_size >= LINKED_FROM_BYTES and _try_link(original, target):
            if os.path.samestat(target.lstat(), found):
                return KeptFile.of(target)
            # Another file was put in the original's place since it was opened.
            target.unlink()
        return copy(source, target)


def copied_bytes(original: Path, folder: Path) -> int:
    """The room that `link_or_copy` will likely take in ``folder``. Raises OSError."""
    found = original.stat()
    linked = found.st_size >= LINKED_FROM_BYTES and found.st_dev == folder.stat().st_dev
    return 0 if linked else found.st_size


def write_whole(path: Path, content: Iterable[bytes | memoryview], *, durable: bool) -> None:
    """``path`` holds all pieces of ``content`` or what it held before, whoever else writes it and whoever is killed.

    ``durable``: also when the power fails, for a wait for the disk. Raises OSError; nothing is left beside then.
    """
    beside = path.with_name(f"{secrets.token_hex(4)}.{path.name}{UNFINISHED}")
    try:
        with beside.open("xb") as out:
            for piece in content:
                out.write(piece)
            if durable:
                _sync(out)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def printable(name: str) -> str:
    """``name`` in characters that every text can hold: those of a file's name that are no UTF-8 are spelled out."""
    return name.encode(errors="backslashreplace").decode()


def unfinished(path: Path) -> list[Path]:
    """What `write_whole` left for ``path`` in processes that were killed, and what living ones are writing."""
    try:
        return [found for found in path.parent.iterdir() if found.name.endswith(f"{path.name}{UNFINISHED}")]
    except OSError:
        # Nothing of ours lies in a folder that is not there, or that cannot be read.
        return []


def sync_folder(folder: Path) -> None:
    """The names in ``folder`` are on the disk itself afterwards, where the disk can do that."""
    # Windows cannot open a folder; NTFS keeps names in its journal.
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _sync_descriptor(descriptor)
        finally:
            os.close(descriptor)


def sync_folders(top: Path) -> None:
    """`sync_folder` for ``top`` and all folders below it."""
    for folder, _, _ in os.walk(top):
        sync_folder(Path(folder))


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises DiskFull unless ``needed_bytes`` fit on the disk of ``folder`` (which exists) and a reserve stays free.

    A disk that does not tell its size is taken for one with room.
    """
    free_bytes = _free_bytes(folder)
    if free_bytes is not None and free_bytes < needed_bytes + RESERVE_BYTES:
        raise disk_full_error(folder, needed_bytes)


def disk_full_error(folder: Path, needed_bytes: int) -> DiskFull:
    """The error that says how much is needed on the disk of ``folder``, the reserve included, and how much is free."""
    free_bytes, all_bytes = _free_bytes(folder), needed_bytes + RESERVE_BYTES
    free = "it does not tell how many are free" if free_bytes is None else f"{free_bytes / 1e6:.0f} MB are free"
    return DiskFull(f"{all_bytes / 1e6:.0f} MB are needed on the disk; {free}.")


def is_disk_full(error: OSError) -> bool:
    return error.errno in FULL


@contextmanager
def translate_os_errors(what: str = "A file of the models", *, only_writes: bool = False) -> Iterator[None]:
    """Raises DiskFull, UnwritableDisk, or OpenScansError with the system's reason, for an OSError inside the block.

    ``what`` begins the sentence of the last two. ``only_writes``: nothing inside the block reads what others
    wrote, so that who may not do what is done there may not write.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull("The disk became full while files were written.") from error
        sentence = f"{what} cannot be read or written: {error.strerror or type(error).__name__}."
        if error.errno == errno.EROFS or (only_writes and isinstance(error, PermissionError)):
            raise UnwritableDisk(sentence) from error
        raise OpenScansError(sentence, hint="Check the permissions of the folder that OPENSCANS_HOME names.") from error


def _try_link(original: Path, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Linux would give the link itself a second name, and not what it leads to.
        target.hardlink_to(os.path.realpath(original))
    except OSError:
        # Another disk, another owner, a file system without links: all of them can be read and copied.
        return False
    return True


def _free_bytes(folder: Path) -> int | None:
    """None where the disk does not say: some of other machines' tell a size of nothing, or no size at all."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        if error.errno not in NOT_TOLD:
            raise
        return None
    return usage.free if usage.total else None


def _sync(out: IO[bytes]) -> None:
    out.flush()
    _sync_descriptor(out.fileno())


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
