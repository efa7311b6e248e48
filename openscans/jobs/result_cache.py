"""What was found in images that were asked for before, on disk: small, bounded, and nobody's name in it.

Knows what a detection found and which files it came from, but opens none of them; nothing of tasks, queues or how
vertebrae are found.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from openscans.jobs.fingerprint import UID, Fingerprint
from openscans.types import Detection, ImageFacts, ResultWarning, UidLocation, Vertebra, WarningCode

RESULT_VERSION = "6"
"""To be raised with every change that may make the same weights find something else in the same image."""

FLEETING = frozenset({WarningCode.DEVICE_FALLBACK})
"""Warnings of how the machine was just then; what carries one is not kept."""

log = logging.getLogger("openscans.results")


@dataclass(frozen=True)
class CachedUid:
    """A `UidLocation` that names nobody: ``file`` counts in the order of `Fingerprint.files`."""

    file: int
    start: int
    length: int


@dataclass(frozen=True)
class CachedDetection:
    """A detection without what follows from the request. On disk, numbers of ``uids`` stand in the place of UIDs.

    A UID leads whoever has access to a hospital's archive to the patient. ``weights`` are the digests of the networks,
    the one that labels first.
    """

    task: str
    weights: tuple[str, ...]
    device: str
    vertebrae: tuple[Vertebra, ...]
    image: ImageFacts
    warnings: tuple[ResultWarning, ...]
    uids: tuple[CachedUid, ...] = ()

    def locations(self, image: Fingerprint) -> tuple[UidLocation, ...]:
        """Where the UIDs stand in the files of ``image``."""
        return tuple(UidLocation(image.files[uid.file], uid.start, uid.length) for uid in self.uids)

    def naming(self, uids: Sequence[str]) -> "CachedDetection":
        """The same with ``uids``, which were read at its `locations`, in their places."""
        return _replace_uids(self, lambda number: uids[int(number)])


CACHED_DETECTION: TypeAdapter[CachedDetection] = TypeAdapter(CachedDetection)


class ResultCache:
    """At most ``most`` answers in ``folder``. ``settings``: all that changes results and is no part of a question."""

    def __init__(self, folder: Path, *, settings: Sequence[str], most: int) -> None:
        self._folder = folder
        self._settings = tuple(settings)
        self._most = most

    def key(self, image: Fingerprint, question: Sequence[str]) -> str:
        """The name of the answer to ``question`` about ``image``."""
        parts = (RESULT_VERSION, image.digest, *self._settings, *question)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def get(self, key: str) -> CachedDetection | None:
        """What `put` kept, with numbers for UIDs; None where nothing whole is kept."""
        file = self._folder / f"{key}.json"
        if self._most == 0:
            return None
        try:
            kept = _parsed(file.read_bytes())
            os.utime(file)
        except (OSError, ValueError):
            return None
        return kept

    def put(self, key: str, detection: Detection, image: Fingerprint) -> None:
        """Write down what was found in ``image``. A full disk loses nothing but this.

        What holds only for the moment is not kept, nor what names a UID that does not stand in the image's files as it
        is, as in deflated ones, or would not be taken for a UID when it is read again.
        """
        if self._most == 0 or FLEETING & {warning.code for warning in detection.warnings}:
            return
        kept = _without_uids(detection, image)
        if kept is None:
            return
        try:
            _write(self._folder / f"{key}.json", _text(kept))
            _trim(self._folder, self._most)
        except OSError as error:
            log.warning("What was found is not kept: %s", error.strerror)


def _without_uids(detection: Detection, image: Fingerprint) -> CachedDetection | None:
    task = detection.order
    named = CachedDetection(
        task=task.task,
        weights=tuple(network.sha256 for network in task.networks),
        device=detection.device,
        vertebrae=detection.vertebrae,
        image=detection.image,
        warnings=detection.warnings,
    )
    uids = sorted(_uids(named))
    locations = [detection.uid_locations.get(uid) for uid in uids]
    numbers = {file: number for number, file in enumerate(image.files)}
    found = tuple(
        CachedUid(numbers[location.file], location.start, location.length)
        for location in locations
        if location is not None and location.file in numbers
    )
    if len(found) < len(uids) or not all(map(UID.fullmatch, uids)):
        return None
    return replace(_replace_uids(named, lambda uid: str(uids.index(uid))), uids=found)


def _uids(kept: CachedDetection) -> set[str]:
    series_uid = kept.image.series_instance_uid
    instances = {vertebra.slice.sop_instance_uid for vertebra in kept.vertebrae if vertebra.slice is not None}
    return instances | ({series_uid} if series_uid else set())


def _replace_uids(kept: CachedDetection, changed: Callable[[str], str]) -> CachedDetection:
    """``kept`` with every UID ``changed``; what has none stays without."""
    series_uid = kept.image.series_instance_uid
    vertebrae = (
        vertebra
        if vertebra.slice is None
        else replace(vertebra, slice=replace(vertebra.slice, sop_instance_uid=changed(vertebra.slice.sop_instance_uid)))
        for vertebra in kept.vertebrae
    )
    image = replace(kept.image, series_instance_uid=changed(series_uid) if series_uid else series_uid)
    return replace(kept, vertebrae=tuple(vertebrae), image=image)


def _text(kept: CachedDetection) -> bytes:
    """A line with the digest of the rest, and the rest: a disk that fills or fails leaves what is told from it."""
    content = CACHED_DETECTION.dump_json(kept)
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _parsed(text: bytes) -> CachedDetection:
    """Raises ValueError."""
    digest, _, content = text.partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("not what was written")
    return CACHED_DETECTION.validate_json(content)


def _write(file: Path, text: bytes) -> None:
    """Whole or not at all; another server may write the same at the same time. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(f".{os.getpid()}.new")
    try:
        beside.write_bytes(text)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def _trim(folder: Path, most: int) -> None:
    """Remove what was not asked for longest, down to ``most`` answers."""
    by_use = sorted(_used(folder), reverse=True)
    for _, file in by_use[most:]:
        file.unlink(missing_ok=True)


def _used(folder: Path) -> Iterator[tuple[int, Path]]:
    """When each file was last used. What a killed server left half-written grows old like the rest."""
    for file in folder.iterdir():
        try:
            yield file.stat().st_mtime_ns, file
        except FileNotFoundError:
            # Another server was faster.
            continue
