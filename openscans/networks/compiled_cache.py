"""Bytes kept on disk under a key, whole or not at all, the longest unused given up first; knows not what they mean."""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("openscans.networks")

SUFFIX = ".blob"

MOST_BLOBS = 8
"""Four networks in two precisions; what an older version of a library left goes when it is pushed out."""

PART_SUFFIX = ".part"

LEFT_BEHIND_S = 600.0
"""Writing a blob takes seconds; a part that is older belongs to nobody who lives."""

DIGEST_BYTES = hashlib.sha256().digest_size


def key_of(*facts: str) -> str:
    """A name that changes with any of ``facts``, none of which holds a line break."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def digest_of(files: Iterable[Path]) -> str:
    """What changes with the content of any of ``files``, or with their order. Raises OSError."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def get(folder: Path, key: str) -> bytes | None:
    """What `keep` kept under ``key``; None where there is nothing, or where it is not as it was written."""
    path = folder / f"{key}{SUFFIX}"
    try:
        with path.open("rb") as file:
            digest, content = file.read(DIGEST_BYTES), file.read()
        if hashlib.sha256(content).digest() != digest:
            return None
        os.utime(path)
    except OSError:
        return None
    return content


def put(folder: Path, key: str, content: memoryview) -> None:
    """Write ``content`` for `recall`. A full or locked disk is no error: what is missing is made again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, key, content)
        _give_up_oldest(folder)
    except OSError as error:
        log.warning("A compiled network was not kept: %s", error.strerror)


def tidy(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote."""
    with suppress(OSError):
        for part in folder.glob(f"*{PART_SUFFIX}"):
            if time.time() - part.stat().st_mtime > LEFT_BEHIND_S:
                part.unlink(missing_ok=True)


def _write(folder: Path, key: str, content: memoryview) -> None:
    handle, name = tempfile.mkstemp(suffix=PART_SUFFIX, dir=folder)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        part.replace(folder / f"{key}{SUFFIX}")
    finally:
        part.unlink(missing_ok=True)


def _give_up_oldest(folder: Path) -> None:
    blobs = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    for path in blobs[:-MOST_BLOBS]:
        path.unlink(missing_ok=True)
