"""Compiled networks, kept on disk from one start to the next: where they lie, how many, and under which key."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from openscans.system.disk_cache import DiskCache
from openscans.system.regular_files import open_regular

SUFFIX = ".blob"

MOST_BLOBS = 12
"""Four networks in three precisions; what an older version of a library left goes when it is pushed out."""


def open_cache(folder: Path) -> DiskCache:
    """The compiled networks in ``folder``."""
    return DiskCache(folder, SUFFIX, MOST_BLOBS)


def tidy(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote."""
    open_cache(folder).tidy()


def key_of(*facts: str) -> str:
    """A name that changes with any of ``facts``, none of which holds a line break."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def digest_of(files: Iterable[Path]) -> str:
    """What changes with the content of any of ``files``, or with their order. Raises OSError."""
    digest = hashlib.sha256()
    for path in files:
        with open_regular(path) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
