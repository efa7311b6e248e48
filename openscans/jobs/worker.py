"""The one child process that keeps the pipeline warm, as the server sees it: asked, stopped, killed when it must be.

Knows when a child is needed and when no more; nothing of HTTP, of weights, or of what the pipeline does.

Rules for threads. Any number of threads ask at the same time, of which one at most asks for detections (that of the
queue), and one that networks are loaded. `Worker._lock` guards which child there is, how many ask, and the timer that
ends one that idles; it is never held while an answer is awaited.
"""

import logging
import threading
from contextlib import suppress
from pathlib import Path

from openscans.errors import Cancelled, OutOfMemory, WorkerCrashed
from openscans.jobs.child import Child, ChildRetired
from openscans.jobs.fingerprint import Fingerprint
from openscans.jobs.worker_messages import (
    LoadRequest,
    Located,
    LookRequest,
    OpenRequest,
    Request,
    UidsRequest,
    UnchangedRequest,
    UnpackRequest,
    ZipRequest,
)
from openscans.jobs.worker_process import LogPlan, MakePipeline
from openscans.progress import Forecast, StageReport
from openscans.types import Detection, DetectionTask, RunningNetwork, TrainedModel, UidLocation, WorkerState

DETECTION_FOLLOWS_S = 5.0
"""Who asks what files tell, or has networks loaded, wants more next: however soon an idle worker ends, it is kept for
that."""

NO_SENSE = "The worker process gave an answer that makes no sense."

log = logging.getLogger("openscans.worker")


class Worker:
    """Asks the child, starting it at the first need and afresh after its death."""

    def __init__(
        self, make_pipeline: MakePipeline, *, keep_warm_s: float | None, hang_s: float, log_plan: LogPlan
    ) -> None:
        """``keep_warm_s``: idle seconds until the child ends, None for never. ``hang_s``: `Child.ask`."""
        self._make_pipeline = make_pipeline
        self._keep_warm_s = keep_warm_s
        self._hang_s = hang_s
        self._log_plan = log_plan
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._idle: threading.Timer | None = None
        self._asking = 0
        self._networks: tuple[RunningNetwork, ...] = ()
        self._closed = False

    @property
    def state(self) -> WorkerState:
        """cold, loading, ready, busy or failed, of the pipeline. Takes no lock, so that it answers at once."""
        child = self._child
        if child is None or child.retired:
            return "cold"
        if not child.alive:
            return "failed"
        return child.pipeline_state

    @property
    def networks(self) -> tuple[RunningNetwork, ...]:
        """How the networks of the last detection ran; none before one. Takes no lock, either."""
        return self._networks

    def look(self, request: LookRequest, report: StageReport) -> Located:
        """`readable_path` and `take_fingerprint`, in the child, beside whatever else it does.

        Raises what they raise, WorkerCrashed, and Cancelled.
        """
        answer = self._ask(request, report, at_least_warm_s=DETECTION_FOLLOWS_S)
        if not isinstance(answer, Located):
            raise WorkerCrashed(NO_SENSE)
        return answer

    def is_unchanged(self, fingerprint: Fingerprint, report: StageReport) -> bool:
        """`Fingerprint.is_still`, in the same way."""
        return self._ask(UnchangedRequest(fingerprint), report) is True

    def read_uids(self, locations: tuple[UidLocation, ...], report: StageReport) -> tuple[str, ...] | None:
        """`fingerprint.read_uids`, in the same way."""
        answer = self._ask(UidsRequest(locations), report)
        return answer if isinstance(answer, tuple) else None

    def is_zip(self, path: Path, report: StageReport) -> bool:
        """`archive.is_zip`, in the same way."""
        return self._ask(ZipRequest(path), report, at_least_warm_s=DETECTION_FOLLOWS_S) is True

    def unpack(self, path: Path, folder: Path, report: StageReport) -> Path:
        """`archive.unpack`, in the child, in its turn among what the pipeline does.

        Raises what it raises, WorkerCrashed, and Cancelled; nothing is written any more then.
        """
        answer = self._ask(UnpackRequest(path, folder), report, at_least_warm_s=DETECTION_FOLLOWS_S)
        if not isinstance(answer, Path):
            raise WorkerCrashed(NO_SENSE)
        return answer

    def open(self, path: Path, series_uid: str | None, report: StageReport) -> str | None:
        """`WorkerPipeline.open`, in the child. Raises what it raises, WorkerCrashed, and Cancelled."""
        answer = self._ask(OpenRequest(path, series_uid), report, at_least_warm_s=DETECTION_FOLLOWS_S)
        return answer if isinstance(answer, str) else None

    def detect(self, task: DetectionTask, report: StageReport) -> Detection:
        """`WorkerPipeline.detect`, in the child. Raises what it raises, WorkerCrashed, and Cancelled."""
        answer = self._ask(task, report)
        if not isinstance(answer, Detection):
            raise WorkerCrashed(NO_SENSE)
        self._networks = answer.networks
        return answer

    def warm_up(self) -> None:
        """Start the child before it is needed. Returns while it loads; what goes wrong is told to who asks first."""
        with self._lock:
            if self._closed or self._child is not None:
                return
            with suppress(WorkerCrashed):
                self._child = Child(self._make_pipeline, self._log_plan)
                self._child.warm_up()
            self._rest_later(self._keep_warm_s)

    def load(self, models: tuple[TrainedModel, ...], device: str) -> None:
        """`WorkerPipeline.load`, in the child. Raises what it raises, WorkerCrashed, and Cancelled."""
        self._ask(LoadRequest(models, device), _tell_nobody, at_least_warm_s=DETECTION_FOLLOWS_S)

    def close(self) -> None:
        """Kill the child, whatever it does; nothing can be asked any more."""
        with self._lock:
            self._closed = True
            self._rest_later(None)
            child = self._child
        if child is not None:
            child.kill()

    def _ask(self, request: Request, report: StageReport, *, at_least_warm_s: float = 0.0) -> object:
        with self._lock:
            self._rest_later(None)
            self._asking += 1
        try:
            return self._ask_child(request, report)
        finally:
            with self._lock:
                self._asking -= 1
                if self._asking == 0 and not self._closed:
                    self._rest_later(None if self._keep_warm_s is None else max(self._keep_warm_s, at_least_warm_s))

    def _ask_child(self, request: Request, report: StageReport) -> object:
        while True:
            child = self._serving_child()
            try:
                return child.ask(request, report, hang_s=self._hang_s)
            except ChildRetired:
                continue
            except OutOfMemory:
                # Networks that are not loaded for want of memory leave all as it was.
                if isinstance(request, OpenRequest | DetectionTask):
                    # What it keeps warm, and what lies in pieces, may be what the next image lacks.
                    child.kill()
                raise

    def _serving_child(self) -> Child:
        with self._lock:
            if self._closed:
                raise Cancelled
            # One that was killed may take a while to go, where its disk or the system's memory hangs.
            if self._child is None or not self._child.serves:
                ended, self._child = self._child, Child(self._make_pipeline, self._log_plan)
                if ended is not None:
                    ended.release()
            return self._child

    def _rest_later(self, seconds: float | None) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if seconds is not None:
            self._idle = threading.Timer(seconds, self._rest)
            self._idle.daemon = True
            self._idle.start()

    def _rest(self) -> None:
        with self._lock:
            if self._asking > 0 or self._child is None:
                return
            child, self._child = self._child, None
        log.info("the worker was idle and gives its memory back")
        child.kill()
        child.release()


def _tell_nobody(_stage: str, _done: int, _total: int, _forecast: Forecast | None = None, /) -> None: ...
