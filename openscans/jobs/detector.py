"""From what a client asked to an order for the worker: which networks, whether they must be fetched first.

Knows which networks each task opens; nothing of HTTP, queues, or how a network is run.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Protocol

from openscans.errors import ModelError
from openscans.jobs.result_cache import CacheEntry, ResultCache
from openscans.progress import Report, StageReport, ignore_progress
from openscans.types import Detection, DetectionTask, TrainedModel
from openscans.weights import catalogue
from openscans.weights.catalogue import Task

STAGE_WEIGHTS: Mapping[str, float] = {
    "downloading": 40.0,
    "reading": 0.7,
    "localising": 2.0,
    "segmenting": 8.0,
    "measuring": 0.5,
}
"""About the seconds that each takes beside the others, for an abdomen of 220 slices on two cores and 100 Mbit/s."""


@dataclass(frozen=True)
class DetectionRequest:
    """What a client asked for. ``device`` None is the server's setting, ``model`` None is chosen by modality."""

    path: Path
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

    def modality(self, path: Path, series_uid: str | None, report: StageReport) -> str | None: ...
    def detect(self, order: DetectionTask, report: StageReport) -> Detection: ...


class Weights(Protocol):
    """Where the networks' weights come from."""

    def ready(
        self, key: str, report: Report, *, download: bool
    ) -> AbstractContextManager[Mapping[int, TrainedModel]]: ...
    def trained_model(self, dataset_id: int) -> TrainedModel: ...


class Detector:
    """Performs a `DetectionRequest`, from the choice of the model to the answer."""

    def __init__(
        self, worker: DetectionWorker, weights: Weights, results: ResultCache, *, auto_download: bool, device: str
    ) -> None:
        self._worker = worker
        self._weights = weights
        self._results = results
        self._auto_download = auto_download
        self._device = device

    def recall(self, request: DetectionRequest, report: Report = ignore_progress) -> Detection | None:
        """What was found in the same image by the same networks before; None where that is not known.

        ``report`` is called while files are looked at, and may raise Cancelled.
        """
        since = perf_counter()
        entry = self._entry(request, report)
        kept = None if entry is None else entry.get()
        if kept is None:
            return None
        try:
            order = self._order(request, catalogue.task_of(kept.task), self._weights.trained_model)
        except ModelError:
            return None
        if tuple(network.sha256 for network in order.networks) != kept.weights:
            return None
        return Detection(
            vertebrae=kept.vertebrae,
            image=kept.image,
            order=order,
            device=kept.device,
            warnings=kept.warnings,
            timings_ms={"recall": round((perf_counter() - since) * 1000)},
            cached=True,
        )

    def __call__(self, request: DetectionRequest, report: StageReport) -> Detection:
        """Raises VolumeError, ModelError, WorkerCrashed, OutOfMemory, and Cancelled."""
        report("reading", 0, 1)
        entry = self._entry(request, partial(report, "reading"))
        found = self._found(request, report)
        if entry is not None:
            entry.put(found)
        return found

    def _entry(self, request: DetectionRequest, report: Report = ignore_progress) -> CacheEntry | None:
        """Where the answer is kept; None for what shall be found anew."""
        if not request.use_cache:
            return None
        question = (request.model or "", str(request.fast_mode), request.device or self._device)
        return self._results.entry(request.path, request.series_uid, question, report)

    def _found(self, request: DetectionRequest, report: StageReport) -> Detection:
        task = catalogue.task_of(request.model) if request.model else self._task_by_modality(request, report)
        task, warnings = catalogue.fast_form(task) if request.fast_mode else (task, ())
        found = self._performed(request, task, report)
        return replace(found, warnings=(*found.warnings, *warnings))

    def _performed(self, request: DetectionRequest, task: Task, report: StageReport) -> Detection:
        waiting = partial(report, "downloading")
        with self._weights.ready(task.key, waiting, download=self._auto_download) as models:
            return self._worker.detect(self._order(request, task, models.__getitem__), report)

    def _task_by_modality(self, request: DetectionRequest, report: StageReport) -> Task:
        return catalogue.task_for(self._worker.modality(request.path, request.series_uid, report))

    def _order(self, request: DetectionRequest, task: Task, model: Callable[[int], TrainedModel]) -> DetectionTask:
        """``model`` gives the network of a dataset's number. Raises what it raises."""
        localiser = None if task.localiser is None else model(task.localiser.number)
        return DetectionTask(
            path=request.path,
            task=task.key,
            segmenter=model(task.segmenter.number),
            localiser=localiser,
            series_uid=request.series_uid,
            fast_mode=request.fast_mode,
            device=request.device or self._device,
        )
