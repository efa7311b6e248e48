"""Which models are on disk and whole; downloads, imports, verifies and deletes them, inside the one folder we own.

Knows tasks and who is changing or using what; nothing of HTTP's routes, networks or images.

Rules for threads and processes. `Models._lock` guards which downloads there are; no file is touched while it is held.
`Models._locks` has a lock a dataset, for all processes on the home: a dataset is changed only by the thread that holds
its lock alone, and a detection shares the locks of what it opens from the look that found it whole to its end. Who
detects or downloads waits for a lock, a download for one at a time; all others are told ModelInUse. What is seen
without a lock may be gone a moment later: it is only told, or looked at again under the lock.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from openscans.errors import ModelInUse, ModelMissing, OpenScansError
from openscans.progress import Report
from openscans.system.files import printable
from openscans.types import ModelState, TrainedModel
from openscans.weights import catalogue, status
from openscans.weights.catalogue import Dataset, Task
from openscans.weights.dataset_locks import DatasetLocks
from openscans.weights.download_task import TELL_EVERY_S, DownloadTask
from openscans.weights.installation import Installation
from openscans.weights.releases import Installer
from openscans.weights.status import CacheStats, Deletion, ModelStatus

PROGRESS_UNITS = 1000

DELETIONS_FORGIVEN = 2
"""How often a model may be deleted between its download and the detection that it was for. Each takes somebody's hand
in a moment of milliseconds."""

log = logging.getLogger("openscans.models")


class Models:
    """All models of one home folder. ``totalsegmentator_results`` is where TotalSegmentator keeps its own weights."""

    def __init__(self, home: Path, installer: Installer, *, totalsegmentator_results: Path | None = None) -> None:
        self._root = home / "models" / "totalsegmentator"
        self._installer = installer
        self._digests = installer.digests
        self._totalsegmentator_results = totalsegmentator_results
        self._lock = threading.Lock()
        self._downloads: dict[str, DownloadTask] = {}
        self._locks = DatasetLocks(self._root / "locks")

    def status(self, key: str) -> ModelStatus:
        """Raises UnknownTask."""
        task = catalogue.task_of(key)
        found = {place: place.condition() for place in status.places_about(task, self._root)}
        return status.status_of(
            task,
            self._root,
            state=self._state(task, {found[place].state for place in self._places(task)}),
            found=found,
            digests=self._digests,
            totalsegmentator_results=self._totalsegmentator_results,
        )

    def statuses(self) -> dict[str, ModelStatus]:
        return {key: self.status(key) for key in catalogue.TASKS}

    def cache_stats(self) -> CacheStats:
        """How much room every task takes."""
        return status.cache_stats(self._root)

    def trained_model(self, dataset_id: int) -> TrainedModel:
        """Raises ModelMissing, DamagedWeights, RefusedWeights."""
        for task in catalogue.TASKS.values():
            for place in self._places(task):
                if place.dataset.number == dataset_id:
                    return place.trained_model(self._digests)
        raise ModelMissing(f"There is no model with the dataset number {dataset_id}.")

    @contextmanager
    def ready(self, key: str, report: Report, *, download: bool) -> Iterator[Mapping[int, TrainedModel]]:
        """The networks that the task opens, by their datasets' numbers, whole; nobody changes them within the block.

        That of its ``robust`` dataset is among them where it is on disk, and is not waited for.
        What is missing is downloaded first if ``download`` says so, by joining a download that runs or by a new one.
        ``report`` is called while anything is waited for. Raises UnknownTask, ModelMissing and its kinds,
        DownloadFailed, DiskFull, Busy, and what ``report`` raises; who stops waiting stops no download.
        """
        task = catalogue.task_of(key)
        places = [status.place_of(dataset, self._root) for dataset in task.opened]
        with ExitStack() as held:
            models = self._hold_ready(task, places, report, held, download=download)
            yield {**self._hold_whole(task.robust, held), **models}

    def download(self, key: str) -> DownloadTask:
        """The download of the task and of what it needs: the one that runs, or a new one.

        Raises UnknownTask, and Busy where the system has no thread left for a new one.
        """
        task = catalogue.task_of(key)
        missing = self._missing(task)
        with self._lock:
            running = self._running(task.key)
            if running is not None:
                return running
            download = self._downloads[key] = DownloadTask(
                [place.dataset for place in missing], partial(self._download_all, missing)
            )
        download.start()
        return download

    def known_download(self, key: str) -> DownloadTask | None:
        """The task's download that runs, or the last one that ran here; starts none. Raises UnknownTask."""
        catalogue.task_of(key)
        with self._lock:
            return self._downloads.get(key)

    def cancel(self, key: str) -> bool:
        """Stop every download that brings the task, whoever began it for what task, and keep the bytes.

        Whether there was one. Raises UnknownTask.
        """
        task = catalogue.task_of(key)
        with self._lock:
            running = {other: self._running(other) for other in self._downloads}
        bringing = [
            download
            for other, download in running.items()
            if download is not None and (other == key or download.brings(task.datasets))
        ]
        stopped = [download.cancel() for download in bringing]
        return any(stopped)

    def delete(self, key: str) -> Deletion:
        """Remove the task's models, not what they need, nor what another downloaded task needs of them.

        Raises UnknownTask, ModelInUse.
        """
        task = catalogue.task_of(key)
        with self._hold_alone(task):
            needed_by = tuple(other for other in catalogue.needing(task) if self.status(other).downloaded)
            places = self._places(task)
            if needed_by:
                places = [place for place in places if place.condition().state != "ready"]
            stay = len(places) < len(task.datasets)
            # A link that leads nowhere is damage without a file.
            removed = any(place.sizes_bytes() or place.condition().state == "damaged" for place in places)
            return Deletion(removed, sum(place.remove() for place in places), needed_by if stay else ())

    def import_from(self, key: str, path: Path) -> None:
        """Install those of the task's datasets that ``path`` (a zip, or a folder) holds; it stays as it is.

        Raises UnknownTask, InputNotFound, ModelInUse, UnusableImport, DiskFull.
        """
        task = catalogue.task_of(key)
        with self._hold_alone(task):
            self._installer.import_from(self._places(task), path)

    def verify(self, key: str) -> None:
        """Compute every file's digest anew; `status` tells what differs. Raises UnknownTask, ModelInUse."""
        task = catalogue.task_of(key)
        with self._hold_alone(task):
            for place in self._places(task):
                place.verify()

    def tidy(self) -> None:
        """Clean up after processes that were killed, but not after those that live, and look whether all is whole."""
        for task in catalogue.TASKS.values():
            for place in self._places(task):
                if place.has_leftovers(self._digests):
                    self._tidy(place)
                self._look_at(place)

    def close(self) -> None:
        """Stop all downloads; their bytes are kept."""
        with self._lock:
            running = list(self._downloads.values())
        for download in running:
            download.cancel()

    def _places(self, task: Task) -> list[Installation]:
        return status.places_of(task, self._root)

    def _missing(self, task: Task) -> list[Installation]:
        wanted = (place for part in catalogue.with_needs(task) for place in self._places(part))
        return [place for place in wanted if not self._is_usable(place)]

    def _is_usable(self, place: Installation) -> bool:
        return place.condition().is_usable(place.dataset, self._digests)

    def _hold_ready(
        self, task: Task, places: Sequence[Installation], report: Report, held: ExitStack, *, download: bool
    ) -> Mapping[int, TrainedModel]:
        for _ in range(DELETIONS_FORGIVEN + 1 if download else 0):
            if any(place.condition().state != "ready" for place in places):
                self._await_download(task, report)
            # Whoever deletes between the look and the lock is seen under the lock.
            with suppress(ModelMissing):
                return self._hold(places, report, held)
        return self._hold(places, report, held)

    def _hold(self, places: Sequence[Installation], report: Report, held: ExitStack) -> Mapping[int, TrainedModel]:
        """Give ``held`` the shared locks of ``places``. Raises ModelMissing and its kinds; then it has none."""
        names = [place.dataset.folder for place in places]
        with ExitStack() as tried:
            tried.enter_context(self._locks.shared(names, partial(report, 0, 1)))
            models = {place.dataset.number: place.trained_model(self._digests) for place in places}
            held.push(tried.pop_all())
        return models

    def _hold_whole(self, dataset: Dataset | None, held: ExitStack) -> Mapping[int, TrainedModel]:
        """Give ``held`` the shared lock of ``dataset`` and tell its network, if that is whole and nobody changes it."""
        if dataset is None:
            return {}
        # Nor does a detection fail for want of it, as where its lock cannot be made on a disk that is full.
        with suppress(OpenScansError), ExitStack() as tried:
            tried.enter_context(self._locks.try_shared(dataset.folder))
            model = status.place_of(dataset, self._root).trained_model(self._digests)
            held.push(tried.pop_all())
            return {dataset.number: model}
        return {}

    def _await_download(self, task: Task, report: Report) -> None:
        for snapshot in self.download(task.key).states(gap_s=TELL_EVERY_S):
            report(int(snapshot.progress * PROGRESS_UNITS), PROGRESS_UNITS)
        if snapshot.failure is not None:
            raise snapshot.failure

    def _state(self, task: Task, states: Set[ModelState]) -> ModelState:
        if states == {"ready"}:
            return "ready"
        if self._is_downloading(task) or self._is_downloaded_elsewhere(task):
            return "downloading"
        if "damaged" in states:
            return "damaged"
        return "absent" if states == {"absent"} else "partial"

    def _running(self, key: str) -> DownloadTask | None:
        download = self._downloads.get(key)
        return None if download is None or download.snapshot().over else download

    def _is_downloading(self, task: Task) -> bool:
        """Also as something that another task needs."""
        with self._lock:
            keys = [key for key in self._downloads if self._running(key) is not None]
        return any(task in catalogue.with_needs(catalogue.TASKS[key]) for key in keys)

    def _is_downloaded_elsewhere(self, task: Task) -> bool:
        """By another process; its bytes are here, and it holds the lock, as no cancelled thread of ours does."""
        begun = (place for place in self._places(task) if place.condition().state == "partial")
        return not self._is_stopping(task) and any(self._locks.is_held(place.dataset.folder) for place in begun)

    def _is_stopping(self, task: Task) -> bool:
        """Whether a download that brought the task is over, but its thread has not noticed yet."""
        with self._lock:
            known = list(self._downloads.values())
        return any(one.snapshot().over and one.at_work and one.brings(task.datasets) for one in known)

    @contextmanager
    def _hold_alone(self, task: Task) -> Iterator[None]:
        """Raises ModelInUse when the task is downloaded, used, or changed by somebody else."""
        if self._is_downloading(task):
            raise ModelInUse(f"The model {task.key} is being downloaded.")
        with self._locks.try_exclusive([dataset.folder for dataset in task.datasets]):
            yield

    def _look_at(self, place: Installation) -> None:
        """Say in the log what keeps it from being used."""
        found = place.condition()
        for name in found.damaged_files:
            log.warning("%s/%s is damaged.", place.dataset.folder, printable(name))
        refusal = found.manifest and self._digests.refusal(place.dataset, found.manifest.zip_sha256)
        if refusal:
            log.warning("%s %s", refusal.message, refusal.hint)

    def _tidy(self, place: Installation) -> None:
        try:
            # Who holds the lock is at work there, and is no left-over.
            with suppress(ModelInUse), self._locks.try_exclusive([place.dataset.folder]):
                place.tidy(self._digests)
        except OpenScansError as error:
            log.warning("%s cannot be tidied up: %s", place.dataset.folder, error.message)

    def _download_all(self, places: Sequence[Installation], download: DownloadTask) -> None:
        for place in places:
            self._installer.require_takeable(place.dataset)
        for place in places:
            watch = partial(self._watch, place, download)
            with self._locks.exclusive(place.dataset.folder, watch):
                # Another process may have brought it while this one waited, or died over it.
                place.tidy(self._digests)
                if not self._is_usable(place):
                    self._installer.download(place, download)
            download.finish(place.dataset)

    def _watch(self, place: Installation, download: DownloadTask) -> None:
        """Tell how far somebody else is with what ``download`` waits for."""
        download.report(place.dataset, *place.stage())
