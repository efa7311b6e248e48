"""What was found in images that were asked for before, on disk: small, bounded, and nobody's name in it.

Knows what a detection found and which files it came from; nothing of tasks, queues or how vertebrae are found.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from openscans.jobs.fingerprint import Fingerprint, take_fingerprint
from openscans.progress import Report, ignore_progress
from openscans.system.regular_files import open_regular
from openscans.types import Detection, ImageFacts, ResultWarning, Vertebra, WarningCode

RESULT_VERSION = "5"
"""To be raised with every change that may make the same weights find something else in the same image."""

SEARCHED_BYTES = 1 << 16
"""UIDs stand in a file's first groups; before them at most some private elements or a thumbnail."""

UID = re.compile(r"[0-9A-Za-z.]+")
"""Digits and dots, or what programs that anonymise write instead. Names, with ^ and blanks, are nothing of this."""

FLEETING = frozenset({WarningCode.DEVICE_FALLBACK})
"""Warnings of how the machine was just then; what carries one is not kept."""

log = logging.getLogger("openscans.results")


@dataclass(frozen=True)
class UidLocation:
    """Where a UID stands: so many bytes from ``start`` of the image's ``file``, counted in the identity's order."""

    file: int
    start: int
    length: int


@dataclass(frozen=True)
class CachedDetection:
    """A detection without what follows from the request. On disk, numbers of ``passages`` stand in the place of UIDs.

    ``weights`` are the digests of the networks, the one that labels first.
    """

    task: str
    weights: tuple[str, ...]
    device: str
    vertebrae: tuple[Vertebra, ...]
    image: ImageFacts
    warnings: tuple[ResultWarning, ...]
    passages: tuple[UidLocation, ...] = ()


CACHED_DETECTION: TypeAdapter[CachedDetection] = TypeAdapter(CachedDetection)


@dataclass(frozen=True)
class CacheEntry:
    """The place of one answer: to one question about one image."""

    image: Fingerprint
    file: Path
    most: int

    def get(self) -> CachedDetection | None:
        """What was found, with its UIDs read from the image again; None where nothing whole is kept."""
        try:
            kept = _parsed(self.file.read_bytes())
            uids = [_read(self.image.files[passage.file], passage) for passage in kept.passages]
            found = _with_uids(kept, lambda number: uids[int(number)])
            os.utime(self.file)
        except (OSError, ValueError, IndexError):
            return None
        return found

    def put(self, detection: Detection) -> None:
        """Write down what was found, unless the image has changed meanwhile. A full disk loses nothing but this."""
        if FLEETING & {warning.code for warning in detection.warnings} or not self.image.is_still():
            return
        try:
            kept = _without_uids(_kept(detection), self.image.files)
            if kept is not None:
                _write(self.file, _text(kept))
                _trim(self.file.parent, self.most)
        except OSError as error:
            log.warning("What was found is not kept: %s", error.strerror)


class ResultCache:
    """At most ``most`` answers in ``folder``. ``settings``: all that changes results and is no part of a question."""

    def __init__(self, folder: Path, *, settings: Sequence[str], most: int) -> None:
        self._folder = folder
        self._settings = tuple(settings)
        self._most = most

    def entry(
        self, path: Path, series_uid: str | None, question: Sequence[str], report: Report = ignore_progress
    ) -> CacheEntry | None:
        """The place of the answer to ``question`` about the image at ``path``; None where none is kept of such.

        ``report`` is called while files are looked at, and may raise Cancelled.
        """
        image = take_fingerprint(path, series_uid, report) if self._most else None
        if image is None:
            return None
        parts = (RESULT_VERSION, image.digest, series_uid or "", *self._settings, *question)
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return CacheEntry(image, self._folder / f"{key}.json", self._most)


def _kept(detection: Detection) -> CachedDetection:
    order = detection.order
    return CachedDetection(
        task=order.task,
        weights=tuple(network.sha256 for network in order.networks),
        device=detection.device,
        vertebrae=detection.vertebrae,
        image=detection.image,
        warnings=detection.warnings,
    )


def _without_uids(kept: CachedDetection, files: Sequence[str]) -> CachedDetection | None:
    """``kept`` with numbers for UIDs; None where one does not stand in the image's files as it is, as in deflated ones,
    or would not be taken for a UID when it is read again.

    A UID leads whoever has access to a hospital's archive to the patient.
    """
    uids = sorted(_uids(kept))
    if not all(map(UID.fullmatch, uids)):
        return None
    passages = [_passage(uid.encode(), files) for uid in uids]
    found = tuple(passage for passage in passages if passage is not None)
    if len(found) < len(uids):
        return None
    return replace(_with_uids(kept, lambda uid: str(uids.index(uid))), passages=found)


def _uids(kept: CachedDetection) -> set[str]:
    series_uid = kept.image.series_instance_uid
    instances = {vertebra.slice.sop_instance_uid for vertebra in kept.vertebrae if vertebra.slice is not None}
    return instances | ({series_uid} if series_uid else set())


def _with_uids(kept: CachedDetection, changed: Callable[[str], str]) -> CachedDetection:
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


def _passage(uid: bytes, files: Sequence[str]) -> UidLocation | None:
    places = ((number, _start(uid, file)) for number, file in enumerate(files))
    return next((UidLocation(number, start, len(uid)) for number, start in places if start >= 0), None)


def _start(uid: bytes, file: str) -> int:
    with open_regular(file, buffering=0) as stream:
        return stream.read(SEARCHED_BYTES).find(uid)


def _read(file: str, passage: UidLocation) -> str:
    with open_regular(file, buffering=0) as stream:
        stream.seek(passage.start)
        return _uid(stream.read(passage.length))


def _uid(text: bytes) -> str:
    """Raises ValueError where another file has taken the place of the one that a UID was found in."""
    uid = text.decode("ascii")
    if UID.fullmatch(uid) is None:
        raise ValueError("no UID stands here")
    return uid


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
