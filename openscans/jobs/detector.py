"""From what a client asked to a DetectionTask for the worker: which networks, whether they must be fetched first.

Knows which networks each task opens; nothing of HTTP, queues, or how a network is run.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NoReturn, Protocol

from openscans.errors import (
    Cancelled,
    DamagedWeights,
    ModelError,
    ModelInUse,
    ModelMissing,
    OpenScansError,
    RefusedWeights,
    WorkerCrashed,
)
from openscans.jobs.fingerprint import Fingerprint
from openscans.jobs.image_files import ImageAccess, ImageFiles, files_of
from openscans.jobs.job import Look
from openscans.jobs.result_cache import ResultCache
from openscans.jobs.slow_detection import SlowDetectionWatch
from openscans.jobs.worker_messages import Located, LookRequest
from openscans.progress import Forecast, Report, StageReport
from openscans.types import Detection, DetectionTask, ResultWarning, TrainedModel, UidLocation
from openscans.weights import catalogue
from openscans.weights.catalogue import Dataset, Task

STAGE_WEIGHTS: Mapping[str, float] = {
    "downloading": 40.0,
    "reading": 0.7,
    "localising": 2.0,
    "segmenting": 8.0,
    "measuring": 0.5,
}
"""About the seconds that each takes beside the others, for an abdomen of 220 slices on two cores and 100 Mbit/s."""

log = logging.getLogger("openscans.jobs")


@dataclass(frozen=True)
class DetectionRequest:
    """What a client asked for. ``device`` None is the server's setting, ``model`` None is chosen by modality."""

    file_path: str
    fast_mode: bool = False
    device: str | None = None
    series_uid: str | None = None
    model: str | None = None
    use_cache: bool = True

    def __post_init__(self) -> None:
        if self.model is not None:
            catalogue.task_of(self.model)  # raises UnknownTask


class DetectionWorker(Protocol):
    """Where image files are opened and networks run."""

    def look(self, request: LookRequest, report: StageReport) -> Located: ...
    def is_unchanged(self, fingerprint: Fingerprint, report: StageReport) -> bool: ...
    def read_uids(self, locations: tuple[UidLocation, ...], report: StageReport) -> tuple[str, ...] | None: ...
    def is_zip(self, path: Path, report: StageReport) -> bool: ...
    def unpack(self, path: Path, folder: Path, report: StageReport) -> Path: ...
    def open(self, path: Path, series_uid: str | None, report: StageReport) -> str | None: ...
    def detect(self, task: DetectionTask, report: StageReport) -> Detection: ...
    def warm_up(self) -> None: ...
    def load(self, models: tuple[TrainedModel, ...], device: str) -> None: ...


class Weights(Protocol):
    """Where the networks' weights come from."""

    def ready(
        self, key: str, report: Report, *, download: bool
    ) -> AbstractContextManager[Mapping[int, TrainedModel]]: ...
    def trained_model(self, dataset_id: int) -> TrainedModel: ...


@dataclass(frozen=True)
class _Choice:
    """The task to run, and a warning where it is not quite the one that was asked for.

    ``modality_assumed``: nobody asked for it, and the image's format does not tell that it is the right one.
    """

    task: Task
    warnings: tuple[ResultWarning, ...]
    modality_assumed: bool


class Detector:
    """Performs a `DetectionRequest`, from the choice of the model to the answer."""

    def __init__(
        self,
        worker: DetectionWorker,
        weights: Weights,
        results: ResultCache,
        images: ImageAccess,
        *,
        auto_download: bool,
        device: str,
    ) -> None:
        self._images = images
        self._worker = worker
        self._weights = weights
        self._results = results
        self._auto_download = auto_download
        self._device = device

    def look(self, request: DetectionRequest, report: StageReport) -> Look[DetectionRequest, Detection]:
        """Which image the request names, and what was found in it by the same networks before, where that is known.

        Raises InvalidRequest, ForbiddenPath, InputNotFound, WorkerCrashed, and Cancelled.
        """
        since_s = perf_counter()
        found = self._locate(request, report)
        request = replace(request, file_path=str(found.path))
        if found.fingerprint is None or not request.use_cache:
            return Look(request, found.fingerprint)
        known = self._find_cached(request, found.fingerprint, report)
        if known is not None:
            known = replace(known, timings_ms={"recall": round((perf_counter() - since_s) * 1000)})
        return Look(request, found.fingerprint, known)

    def perform(self, look: Look[DetectionRequest, Detection], report: StageReport) -> Detection:
        """Find it anew, and keep it.

        Raises VolumeError, ModelError, WorkerCrashed, OutOfMemory, DiskFull, and Cancelled.
        """
        report("reading", 0, 1)
        with files_of(Path(look.request.file_path), self._worker, self._images.private_folders, report) as files:
            choice = self._choose(look.request, files, report)
            watch = SlowDetectionWatch(report, faster=choice.task.fast not in {None, choice.task.key})
            found = files.name_in(self._run(look.request, files, choice, watch.report))
        found = replace(found, warnings=(*found.warnings, *choice.warnings))
        if isinstance(look.image, Fingerprint) and look.request.use_cache:
            self._put(look.request, look.image, found, report)
        # After it was kept: who gets the answer from there waits for nothing, and the same weights may have come from
        # elsewhere by then.
        return replace(found, warnings=(*found.task.weights_warnings, *found.warnings, *watch.warnings))

    def warm_up(self) -> None:
        """Start the worker, and let it load the networks that are on disk; returns when that is done.

        One task after another, so that a detection gets its turn between two. What cannot be loaded now is passed over.
        """
        self._worker.warm_up()
        for task in catalogue.TASKS.values():
            try:
                self._load(task)
            except Cancelled:
                return
            except OpenScansError as error:
                # Most have not fetched every task's weights.
                missing = isinstance(error, ModelMissing) and not isinstance(error, (DamagedWeights, RefusedWeights))
                log.log(logging.DEBUG if missing else logging.WARNING, "%s is not loaded: %s", task.key, error.message)

    def _load(self, task: Task) -> None:
        with self._weights.ready(task.key, _refuse_to_wait, download=False) as models:
            opened = tuple(models[dataset.number] for dataset in task.opened)
            self._worker.load(opened, self._device)

    def _locate(self, request: DetectionRequest, report: StageReport) -> Located:
        question = LookRequest(request.file_path, self._images.roots, request.series_uid)
        try:
            return self._worker.look(question, report)
        except WorkerCrashed:
            # It may have ended over another's detection.
            return self._worker.look(question, report)

    def _find_cached(self, request: DetectionRequest, image: Fingerprint, report: StageReport) -> Detection | None:
        kept = self._results.get(self._results.key(image, self._question(request)))
        if kept is None:
            return None
        try:
            chosen = catalogue.task_of(kept.task)
            task = self._task(request, chosen, self._weights.trained_model)
            if chosen.robust is not None and len(kept.weights) > len(task.networks):
                task = replace(task, robust=self._weights.trained_model(chosen.robust.number))
            uids = self._worker.read_uids(kept.locations(image), report)
            if uids is None or tuple(network.sha256 for network in task.networks) != kept.weights:
                return None
            kept = kept.with_uids(uids)
        except (ModelError, IndexError, ValueError, WorkerCrashed):
            return None
        return Detection(
            kept.vertebrae,
            kept.image,
            task,
            kept.device,
            kept.precision,
            kept.detected_at,
            (*task.weights_warnings, *kept.warnings),
            labels=kept.labels,
            cached=True,
        )

    def _put(self, request: DetectionRequest, image: Fingerprint, found: Detection, report: StageReport) -> None:
        """Keep what was found, unless the image has changed meanwhile."""

        def still_measuring(_stage: str, _done: int, _total: int, _forecast: Forecast | None = None, /) -> None:
            report("measuring", 1, 1)

        try:
            unchanged = self._worker.is_unchanged(image, still_measuring)
        except WorkerCrashed:
            return
        if unchanged:
            self._results.put(self._results.key(image, self._question(request)), found, image)

    def _question(self, request: DetectionRequest) -> tuple[str, ...]:
        """All that decides what is found in an image, but the settings that stay."""
        return request.series_uid or "", request.model or "", str(request.fast_mode), request.device or self._device

    def _choose(self, request: DetectionRequest, files: ImageFiles, report: StageReport) -> _Choice:
        assumed = False
        if request.model:
            task = catalogue.task_of(request.model)
        else:
            modality = self._worker.open(files.locate(report), request.series_uid, report)
            task, assumed = catalogue.task_for(modality), modality is None
        return _Choice(*(catalogue.fast_form(task) if request.fast_mode else (task, ())), modality_assumed=assumed)

    def _run(self, request: DetectionRequest, files: ImageFiles, choice: _Choice, report: StageReport) -> Detection:
        waiting = partial(report, "downloading")
        with self._weights.ready(choice.task.key, waiting, download=self._auto_download) as models:
            task = self._task(request, choice.task, models.__getitem__)
            robust = choice.task.robust
            known = task.weights_warnings
            task = replace(task, path=files.locate(report), modality_assumed=choice.modality_assumed)
            if robust is not None and robust.number in models:
                task = replace(task, robust=models[robust.number])
            elif robust is not None:
                task = replace(task, robust_lacks=self._why_lacking(robust))
            # Not of the network that looks again: mostly it has no part in the answer.
            return self._worker.detect(task, _with_warnings(report, known))

    def _why_lacking(self, dataset: Dataset) -> str:
        """Why a detection may not open ``dataset``, and what to do for that."""
        try:
            self._weights.trained_model(dataset.number)
        except RefusedWeights as error:
            return f"{error.message} {error.hint}"
        except ModelError:
            task = catalogue.owner_of(dataset).key
            return f"{dataset.folder} is not on disk as a whole. Download it with POST /api/models/download/{task}."
        return f"{dataset.folder} is being downloaded or changed just now. Ask again when that is done."

    def _task(self, request: DetectionRequest, task: Task, model: Callable[[int], TrainedModel]) -> DetectionTask:
        """``model`` gives the network of a dataset's number. Raises what it raises."""
        localiser = None if task.localiser is None else model(task.localiser.number)
        return DetectionTask(
            path=Path(request.file_path),
            key=task.key,
            segmenter=model(task.segmenter.number),
            localiser=localiser,
            series_uid=request.series_uid,
            fast_mode=request.fast_mode,
            device=request.device or self._device,
            modality=task.modality,
        )


def _with_warnings(report: StageReport, warnings: tuple[ResultWarning, ...]) -> StageReport:
    """``report`` with ``warnings`` among those of every forecast, so that who waits hears them before the answer."""

    def tell(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        report(stage, done, total, forecast and replace(forecast, warnings=(*warnings, *forecast.warnings)))

    return tell


def _refuse_to_wait(_done: int, _total: int) -> NoReturn:
    raise ModelInUse("The model is being downloaded or changed.")
