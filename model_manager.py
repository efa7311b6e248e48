"""Which models are on disk and whole; downloads, imports, verifies and deletes them, inside the one folder we own.

Knows tasks, mirrors and who is changing what; nothing of HTTP's routes, networks or images.

Rules for threads. `Models._lock` guards which downloads there are; no file is touched while it is held. A dataset is
changed only by the thread that has claimed it; downloads wait for a claim, all others are told ModelInUse.
"""

import logging
import threading
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import archives
import catalogue
import disk
import downloads
from catalogue import Dataset, Task
from claims import Claims
from errors import DamagedWeights, DownloadFailed, InputNotFound, ModelInUse, ModelMissing
from findings import Notice, TrainedModel
from installation import Condition, Installation
from progress import Report
from transfers import Download

__all__ = ["CacheStats", "Download", "ModelStatus", "Models"]

PROGRESS_UNITS = 1000

OFFLINE_HINT = "Import the model with POST /api/models/import/{task}, or unset OPENSCANS_OFFLINE."

log = logging.getLogger("openscans.models")


@dataclass(frozen=True)
class ModelStatus:
    """What is on disk of one task, without what it needs besides.

    ``size_mb``: on disk if downloaded, else what a download would fetch.
    """

    downloaded: bool
    size_mb: float
    path: str
    task: str
    name: str
    description: str
    state: str
    cache_path: str
    structures: tuple[str, ...]
    needs: tuple[str, ...]
    warnings: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class CacheStats:
    cache_directory: str
    total_size_mb: float
    file_count: int
    models: dict[str, dict[str, float]]


class Models:
    """All models of one home folder. ``mirrors`` are base addresses of `{base}/{version}/{folder}.zip`, in order."""

    def __init__(self, home: Path, mirrors: Sequence[str], *, offline: bool, strict_digests: bool) -> None:
        self._root = home / "models" / "totalsegmentator"
        self._mirrors = tuple(mirrors)
        self._offline = offline
        self._strict_digests = strict_digests
        self._lock = threading.Lock()
        self._downloads: dict[str, Download] = {}
        self._claims = Claims()

    def status(self, key: str) -> ModelStatus:
        """Raises UnknownTask."""
        task = catalogue.task_of(key)
        found = {place: place.condition() for place in self._places(task)}
        state = self._state(task, {condition.state for condition in found.values()})
        ready = state == "ready"
        missing_bytes = sum(place.dataset.zip_bytes for place in found if found[place].state != "ready")
        return ModelStatus(
            downloaded=ready,
            size_mb=_megabytes(sum(sum(place.sizes_bytes()) for place in found) if ready else missing_bytes),
            path=_with_tilde(self._root),
            task=key,
            name=task.name,
            description=task.description,
            state=state,
            cache_path=str(self._root / key),
            structures=task.structures,
            needs=task.needs,
            warnings=tuple(notice for place in found for notice in _warnings(place.dataset, found[place])),
        )

    def statuses(self) -> dict[str, ModelStatus]:
        return {key: self.status(key) for key in catalogue.TASKS}

    def cache_stats(self) -> CacheStats:
        """How much room every task takes."""
        models = {}
        for key, task in catalogue.TASKS.items():
            sizes_bytes = [size for place in self._places(task) for size in place.sizes_bytes()]
            models[key] = {"size_mb": _megabytes(sum(sizes_bytes)), "file_count": len(sizes_bytes)}
        total_mb = round(sum(model["size_mb"] for model in models.values()), 1)
        count = sum(int(model["file_count"]) for model in models.values())
        return CacheStats(str(self._root), total_mb, count, models)

    def trained_model(self, dataset_id: int) -> TrainedModel:
        """Raises ModelMissing, DamagedWeights."""
        for task in catalogue.TASKS.values():
            for place in self._places(task):
                if place.dataset.number == dataset_id:
                    return place.trained_model()
        raise ModelMissing(f"There is no model with the dataset number {dataset_id}.")

    def ensure(self, key: str, report: Report) -> None:
        """Have the task and what it needs on disk when this returns; joins a download that runs.

        Raises UnknownTask, DownloadFailed, ModelMissing, DamagedWeights, DiskFull, and what ``report`` raises; who
        stops waiting stops no download.
        """
        if not self._missing(catalogue.task_of(key)):
            return
        for snapshot in self.download(key).snapshots():
            report(int(snapshot.progress * PROGRESS_UNITS), PROGRESS_UNITS)
        if snapshot.failure is not None:
            raise snapshot.failure

    def download(self, key: str) -> Download:
        """The download of the task and of what it needs: the one that runs, or a new one. Raises UnknownTask."""
        task = catalogue.task_of(key)
        missing = self._missing(task)
        with self._lock:
            running = self._running(task.key)
            if running is not None:
                return running
            download = self._downloads[key] = Download(
                [place.dataset for place in missing], partial(self._bring_all, missing)
            )
        download.start()
        return download

    def cancel(self, key: str) -> bool:
        """Stop the task's download and keep its bytes; whether there was one. Raises UnknownTask."""
        catalogue.task_of(key)
        with self._lock:
            running = self._running(key)
        return running is not None and running.cancel()

    def delete(self, key: str) -> int:
        """Remove the task's models, not what they need; how many bytes that frees. Raises UnknownTask, ModelInUse."""
        task = catalogue.task_of(key)
        with self._claim(task):
            return sum(place.remove() for place in self._places(task))

    def import_from(self, key: str, path: Path) -> None:
        """Install those of the task's datasets that ``path`` (a zip, or a folder) holds.

        Raises UnknownTask, InputNotFound, ModelInUse, DamagedWeights, DiskFull.
        """
        task = catalogue.task_of(key)
        if not path.exists():
            raise InputNotFound("There is no file or folder at that path.")
        with self._claim(task):
            install = self._import_folder if path.is_dir() else self._import_zip
            if not install(self._places(task), path):
                names = " or ".join(dataset.folder for dataset in task.datasets)
                raise DamagedWeights(f"Nothing of the name {names} was found there.", hint="Choose another file.")

    def verify(self, key: str) -> None:
        """Compute every file's digest anew; `status` tells what differs. Raises UnknownTask, ModelInUse."""
        task = catalogue.task_of(key)
        with self._claim(task):
            for place in self._places(task):
                place.verify()

    def close(self) -> None:
        """Stop all downloads; their bytes are kept."""
        with self._lock:
            running = list(self._downloads.values())
        for download in running:
            download.cancel()

    def _places(self, task: Task) -> list[Installation]:
        return [Installation(dataset, self._root / task.key) for dataset in task.datasets]

    def _missing(self, task: Task) -> list[Installation]:
        wanted = (place for part in catalogue.with_needs(task) for place in self._places(part))
        return [place for place in wanted if place.condition().state != "ready"]

    def _state(self, task: Task, states: Set[str]) -> str:
        if states == {"ready"}:
            return "ready"
        if self._is_downloading(task):
            return "downloading"
        if "damaged" in states:
            return "damaged"
        return "absent" if states == {"absent"} else "partial"

    def _running(self, key: str) -> Download | None:
        download = self._downloads.get(key)
        return None if download is None or download.snapshot().over else download

    def _is_downloading(self, task: Task) -> bool:
        """Also as something that another task needs."""
        with self._lock:
            keys = [key for key in self._downloads if self._running(key) is not None]
        return any(task in catalogue.with_needs(catalogue.TASKS[key]) for key in keys)

    @contextmanager
    def _claim(self, task: Task) -> Iterator[None]:
        """Raises ModelInUse when the task is downloaded, or changed by somebody else."""
        if self._is_downloading(task):
            raise ModelInUse(f"The model {task.key} is being downloaded.")
        with self._claims.at_once({dataset.number for dataset in task.datasets}):
            yield

    def _bring_all(self, places: Sequence[Installation], download: Download) -> None:
        for place in places:
            with self._claims.when_free(place.dataset.number, download.go_on):
                # Another download may have brought it while this one waited.
                if place.condition().state != "ready":
                    self._bring(place, download)
            download.finish(place.dataset)

    def _bring(self, place: Installation, download: Download) -> None:
        dataset = place.dataset
        if self._offline:
            raise ModelMissing(f"{dataset.folder} is not on disk, and the server works offline.", hint=OFFLINE_HINT)
        urls = [f"{base}/{dataset.release_path}" for base in self._mirrors]
        fetched = downloads.fetch(urls, place.zip_path, report=partial(download.report, dataset, "downloading"))
        download.report(dataset, "verifying", 0, 1)
        extracting = partial(download.report, dataset, "extracting")
        try:
            for notice in self._digest_notices(dataset, fetched.sha256):
                download.warn(notice)
            place.install_zip(place.zip_path, source=fetched.url, sha256=fetched.sha256, report=extracting)
        except DamagedWeights as error:
            downloads.discard(place.zip_path)
            raise DownloadFailed(
                f"What was downloaded as {dataset.folder} is unusable: {error.message}",
                hint="Start the download again; nothing was installed.",
            ) from error
        downloads.discard(place.zip_path)

    def _import_zip(self, places: Sequence[Installation], path: Path) -> int:
        """How many of ``places`` were filled."""
        filled = 0
        with disk.errors_translated():
            digest = downloads.sha256_of(path)
        for place in places:
            if archives.find_folder(path, PurePosixPath(place.dataset.folder)) is not None:
                self._digest_notices(place.dataset, digest)
                place.install_zip(path, source=path.name, sha256=digest)
                filled += 1
        return filled

    def _import_folder(self, places: Sequence[Installation], path: Path) -> int:
        """How many of ``places`` were filled."""
        found = [(place, folder) for place in places if (folder := place.found_in(path)) is not None]
        for place, folder in found:
            place.install_folder(folder)
        return len(found)

    def _digest_notices(self, dataset: Dataset, sha256: str) -> Sequence[Notice]:
        """Raises DamagedWeights where the digest is known and differs, if the settings want that."""
        notices = _digest_notices(dataset, sha256)
        if notices and self._strict_digests:
            raise DamagedWeights(f"The zip of {dataset.folder} has another SHA-256 than the one that is known.")
        for notice in notices:
            log.warning("%s It is %s; known is %s.", notice.message, sha256, dataset.zip_sha256)
        return notices


def _digest_notices(dataset: Dataset, sha256: str | None) -> Sequence[Notice]:
    if None in {sha256, dataset.zip_sha256} or sha256 == dataset.zip_sha256:
        return ()
    return (Notice("unexpected_digest", f"{dataset.folder} came from a zip with an unknown SHA-256."),)


def _warnings(dataset: Dataset, found: Condition) -> Iterator[Notice]:
    if found.manifest is not None:
        yield from _digest_notices(dataset, found.manifest.zip_sha256)
    for name in found.damaged_files:
        yield Notice("damaged_file", f"{dataset.folder}/{name} is missing or not what was installed.")


def _megabytes(size_bytes: int) -> float:
    return round(size_bytes / 1e6, 1)


def _with_tilde(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)
