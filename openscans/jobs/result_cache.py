"""What was found in images that were asked for before, on disk: small, bounded, and nobody's name in it.

Knows what a detection found and which files it came from, but opens none of them; nothing of tasks, queues or how
vertebrae are found.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from openscans.jobs.fingerprint import UID, Fingerprint
from openscans.system.disk_cache import DiskCache
from openscans.types import (
    Detection,
    ImageFacts,
    PackedLabels,
    Precision,
    ResultWarning,
    SlicePixel,
    UidLocation,
    Vertebra,
    WarningCode,
)

RESULT_VERSION = "10"
"""To be raised with every change that may make the same weights find something else in the same image."""

FLEETING = frozenset({WarningCode.DEVICE_FALLBACK, WarningCode.SECOND_LOOK_MISSING, WarningCode.SERIES_ELSEWHERE})
"""Warnings of how the machine was just then, or of files that no fingerprint covers; what carries one is not kept."""

OF_THE_MACHINE = frozenset({WarningCode.INT8_REFUSED, WarningCode.SLOW_ENGINE})
"""Warnings of what it took to find an answer, which are not true of it when it is recalled; it is kept without them."""


@dataclass(frozen=True)
class CachedUid:
    """A `UidLocation` that names nobody: ``file`` counts in the order of `Fingerprint.files`."""

    file: int
    start: int
    length: int
    entry: int | None = None


@dataclass(frozen=True)
class CachedDetection:
    """A detection without what follows from the request. On disk, numbers of ``uids`` stand in the place of UIDs.

    A UID leads whoever has access to a hospital's archive to the patient. ``weights`` are the digests of the networks
    that had a part in it, the one that labels first.
    """

    task: str
    weights: tuple[str, ...]
    device: str
    precision: Precision
    detected_at: str
    vertebrae: tuple[Vertebra, ...]
    image: ImageFacts
    warnings: tuple[ResultWarning, ...]
    labels: PackedLabels | None = None
    uids: tuple[CachedUid, ...] = ()

    def locations(self, image: Fingerprint) -> tuple[UidLocation, ...]:
        """Where the UIDs stand in the files of ``image``."""
        return tuple(UidLocation(image.files[uid.file], uid.start, uid.length, uid.entry) for uid in self.uids)

    def with_uids(self, uids: Sequence[str]) -> "CachedDetection":
        """The same with ``uids``, which were read at its `locations`, in their places."""
        return _replace_uids(self, lambda number: uids[int(number)])


CACHED_DETECTION: TypeAdapter[CachedDetection] = TypeAdapter(CachedDetection)


class ResultCache:
    """At most ``most`` answers in ``folder``. ``settings``: all that changes results and is no part of a question."""

    def __init__(self, folder: Path, *, settings: Sequence[str], most: int) -> None:
        self._cache = DiskCache(folder, ".json", most)
        self._settings = tuple(settings)

    def key(self, image: Fingerprint, question: Sequence[str]) -> str:
        """The name of the answer to ``question`` about ``image``."""
        parts = (RESULT_VERSION, image.digest, *self._settings, *question)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def get(self, key: str) -> CachedDetection | None:
        """What `put` kept, with numbers for UIDs; None where nothing whole is kept."""
        content = self._cache.get(key) if self._cache.most else None
        try:
            return None if content is None else CACHED_DETECTION.validate_json(content)
        except ValueError:
            return None

    def put(self, key: str, detection: Detection, image: Fingerprint) -> None:
        """Keep what was found in ``image``. A full disk loses nothing but this.

        What holds only for the moment is not kept, nor what names a UID that does not stand in the image's files as it
        is, as in deflated ones, or would not be taken for a UID when it is read again.
        """
        if self._cache.most == 0 or FLEETING & {warning.code for warning in detection.warnings}:
            return
        kept = _without_uids(detection, image)
        if kept is not None:
            self._cache.put(key, CACHED_DETECTION.dump_json(kept))


def _without_uids(detection: Detection, image: Fingerprint) -> CachedDetection | None:
    task = detection.task
    named = CachedDetection(
        task=task.key,
        weights=tuple(network.sha256 for network in task.networks),
        device=detection.device,
        precision=detection.precision,
        detected_at=detection.detected_at,
        vertebrae=detection.vertebrae,
        image=detection.image,
        warnings=tuple(warning for warning in detection.warnings if warning.code not in OF_THE_MACHINE),
        labels=detection.labels,
    )
    uids = sorted(_uids(named))
    locations = [detection.uid_locations.get(uid) for uid in uids]
    numbers = {file: number for number, file in enumerate(image.files)}
    found = tuple(
        CachedUid(numbers[location.file], location.start, location.length, location.entry)
        for location in locations
        if location is not None and location.file in numbers
    )
    if len(found) < len(uids) or not all(map(UID.fullmatch, uids)):
        return None
    return replace(_replace_uids(named, lambda uid: str(uids.index(uid))), uids=found)


def _uids(kept: CachedDetection) -> set[str]:
    instances = {mark.sop_instance_uid for vertebra in kept.vertebrae for mark in vertebra.marks}
    image = kept.image
    shared = (image.series_instance_uid, image.study_instance_uid, image.frame_of_reference_uid)
    return instances | {uid for uid in shared if uid}


def _replace_uids(kept: CachedDetection, changed: Callable[[str], str]) -> CachedDetection:
    """``kept`` with every UID ``changed``; what has none stays without."""
    vertebrae = tuple(
        replace(
            vertebra,
            slice=_on_slice(vertebra.slice, changed),
            body=vertebra.body and replace(vertebra.body, slice=_on_slice(vertebra.body.slice, changed)),
        )
        for vertebra in kept.vertebrae
    )
    image = replace(
        kept.image,
        series_instance_uid=_changed(kept.image.series_instance_uid, changed),
        study_instance_uid=_changed(kept.image.study_instance_uid, changed),
        frame_of_reference_uid=_changed(kept.image.frame_of_reference_uid, changed),
    )
    return replace(kept, vertebrae=vertebrae, image=image)


def _on_slice(mark: SlicePixel | None, changed: Callable[[str], str]) -> SlicePixel | None:
    return mark and replace(mark, sop_instance_uid=changed(mark.sop_instance_uid))


def _changed(uid: str | None, changed: Callable[[str], str]) -> str | None:
    return changed(uid) if uid else uid
