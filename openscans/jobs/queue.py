"""Long work in a queue, one at a time: progress as state that is read, identical requests share one job, cancel.

Knows neither what is done (a callable given to it) nor who asks over what.

Rules for threads. `JobQueue._lock` guards which jobs exist and how many wait for each; `Job._lock` guards one job's
snapshot and listeners. Neither is held while work runs, while a listener is called, or while the other is taken,
except that `JobQueue._lock` may be held when a `Job._lock` is taken. Work runs in the one thread of the executor.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

from openscans.errors import Busy, Cancelled, OpenScansError, UnknownJob
from openscans.progress import Report, StageReport, ignore_progress
from openscans.types import JobStatus

Request = TypeVar("Request", bound=Hashable)
Result = TypeVar("Result")

JOBS_REMEMBERED = 50
"""Finished jobs that can still be asked for; a result is a few kilobytes."""

PROGRESS_DIGITS = 3
"""Changes below a thousandth are not told: a bar has no more pixels, and bytes would come in thousands a second."""

log = logging.getLogger("openscans.jobs")


@dataclass(frozen=True)
class Snapshot(Generic[Result]):
    """A job as it stands. ``status`` is queued, a stage's name, complete, error or cancelled."""

    job_id: str
    status: JobStatus = "queued"
    progress: float = 0.0
    eta_s: float | None = None
    elapsed_ms: int = 0
    result: Result | None = None
    error: OpenScansError | None = None

    @property
    def over(self) -> bool:
        return self.status in {"complete", "error", "cancelled"}


class ProgressTracker:
    """Turns stages and units of work into one share of the whole that never falls.

    ``weights`` are the seconds that each stage takes on a usual machine, in their order. A stage that is left out
    leaves its share to those that come.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._stage, self._total = "", 0
        self._start = self._span = self._progress = 0.0
        self._since_s = 0.0

    def advance(self, stage: str, done: int, total: int) -> tuple[float, float | None]:
        """The progress of the whole, and the seconds that remain; None before a unit of the stage was measured."""
        now_s = time.monotonic()
        if stage != self._stage:
            self._start, self._span = self._progress, (1 - self._progress) * self._share(stage)
        if (stage, total) != (self._stage, self._total):
            # What came before the units were counted, such as loading, tells nothing of their pace.
            self._stage, self._total, self._since_s = stage, total, now_s
        within = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
        self._progress = max(self._progress, self._start + self._span * within)
        if within <= 0:
            return self._progress, None
        return self._progress, (now_s - self._since_s) * (1 - within) / within + sum(self._later(stage))

    def _share(self, stage: str) -> float:
        if stage not in self._weights:
            return 0.0
        return self._weights[stage] / (self._weights[stage] + sum(self._later(stage)))

    def _later(self, stage: str) -> list[float]:
        """The weights of the stages after ``stage``."""
        stages = list(self._weights)
        return [self._weights[later] for later in stages[stages.index(stage) + 1 :]] if stage in stages else []


class Job(Generic[Request, Result]):
    """One piece of work that somebody, or several, wait for."""

    def __init__(self, request: Request, weights: Mapping[str, float]) -> None:
        self.request = request
        self.waiting = 0
        self._snapshot: Snapshot[Result] = Snapshot(uuid.uuid4().hex)
        self._track = ProgressTracker(weights)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], object]] = []
        self._began_s: float | None = None

    @property
    def id(self) -> str:
        return self._snapshot.job_id

    @property
    def stopped(self) -> bool:
        """Somebody asked it to stop; it may not have done so yet."""
        return self._stop.is_set()

    def snapshot(self) -> Snapshot[Result]:
        with self._lock:
            return self._snapshot

    @contextmanager
    def subscribe(self, listener: Callable[[], object]) -> Iterator[None]:
        """Call ``listener`` after every change, from the thread that changes; it must return at once."""
        with self._lock:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def report(self, stage: str, done: int, total: int) -> None:
        """The `StageReport` that the work is given. Raises Cancelled."""
        if self.stopped:
            raise Cancelled
        progress, eta_s = self._track.advance(stage, done, total)
        progress = round(progress, PROGRESS_DIGITS)
        known = self.snapshot()
        if (stage, progress) != (known.status, known.progress):
            self._change(status=stage, progress=progress, eta_s=None if eta_s is None else round(eta_s, 1))

    def begin(self) -> None:
        self._began_s = time.monotonic()

    def stop(self) -> None:
        self._stop.set()

    def finish(self, result: Result | None, error: OpenScansError | None) -> None:
        """Give the job its one last state. What fails after somebody stopped it counts as cancelled."""
        if error is None:
            self._change(status="complete", progress=1.0, eta_s=0.0, result=result)
        elif self.stopped or isinstance(error, Cancelled):
            self._change(status="cancelled", eta_s=None, error=Cancelled())
        else:
            self._change(status="error", eta_s=None, error=error)

    def _change(self, **values: object) -> None:
        elapsed_ms = 0 if self._began_s is None else round((time.monotonic() - self._began_s) * 1000)
        with self._lock:
            self._snapshot = replace(self._snapshot, elapsed_ms=elapsed_ms, **values)  # type: ignore[arg-type]
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()


class JobQueue(Generic[Request, Result]):
    """Runs ``perform(request, report)`` for one request at a time and lets at most ``queue`` others wait.

    ``recall(request, report)`` knows what some requests gave before, and is asked in the caller's thread.
    """

    def __init__(
        self,
        perform: Callable[[Request, StageReport], Result],
        *,
        weights: Mapping[str, float],
        queue: int,
        recall: Callable[[Request, Report], Result | None] | None = None,
    ) -> None:
        self._perform = perform
        self._recall = recall
        self._weights = weights
        self._queue = queue
        self._lock = threading.Lock()
        self._jobs: dict[str, Job[Request, Result]] = {}
        self._futures: dict[str, Future[Result]] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._closed = False

    def from_cache(self, request: Request, report: Report = ignore_progress) -> Job[Request, Result] | None:
        """Attend a job that is over because its result was known; None where it is not. It waits for no other.

        Raises what ``report`` raises, while it is found out.
        """
        job: Job[Request, Result] = Job(request, self._weights)
        job.begin()
        result = None if self._recall is None else self._recall(request, report)
        if result is None:
            return None
        job.finish(result, None)
        with self._lock:
            self._forget_oldest()
            self._jobs[job.id] = job
            job.waiting += 1
        return job

    def find_running(self, request: Request) -> Job[Request, Result] | None:
        """Attend the live job that does the same, as `join` does; None where none does."""
        with self._lock:
            if (job := self._live_twin(request)) is not None:
                job.waiting += 1
            return job

    def submit(self, request: Request) -> Job[Request, Result]:
        """Attend the live job that does the same, or a new one; who joins must `leave`. Raises Busy."""
        with self._lock:
            if self._closed:
                raise Busy("The server is shutting down.")
            job = self._live_twin(request) or self._enqueue(request)
            job.waiting += 1
            return job

    def release(self, job: Job[Request, Result]) -> None:
        """Attend ``job`` no longer; the last one to leave stops it."""
        with self._lock:
            job.waiting -= 1
            if job.waiting > 0:
                return
            job.stop()
        self._drop_if_queued(job.id)

    def get(self, job_id: str) -> Job[Request, Result]:
        with self._lock:
            if job_id not in self._jobs:
                raise UnknownJob("There is no job of that id, or it ended long ago.")
            return self._jobs[job_id]

    def cancel(self, job_id: str) -> Job[Request, Result]:
        """Stop a job, whoever waits for it. One that is over stays as it is."""
        job = self.get(job_id)
        job.stop()
        self._drop_if_queued(job_id)
        return job

    def snapshots(self) -> list[Snapshot[Result]]:
        """All jobs that are remembered, oldest first."""
        with self._lock:
            return [job.snapshot() for job in self._jobs.values()]

    def counts(self) -> dict[str, int]:
        alive = [snapshot for snapshot in self.snapshots() if not snapshot.over]
        queued = sum(snapshot.status == "queued" for snapshot in alive)
        return {"running": len(alive) - queued, "queued": queued}

    def close(self) -> None:
        """Take no more work and stop what there is; returns before running work has noticed."""
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _live_twin(self, request: Request) -> Job[Request, Result] | None:
        live = (job for job in self._jobs.values() if not job.stopped and not job.snapshot().over)
        return next((job for job in live if job.request == request), None)

    def _enqueue(self, request: Request) -> Job[Request, Result]:
        alive = sum(not job.snapshot().over for job in self._jobs.values())
        if alive > self._queue:
            raise Busy(f"{alive} detections are running or waiting already.")
        job: Job[Request, Result] = Job(request, self._weights)
        self._forget_oldest()
        self._jobs[job.id] = job
        future = self._executor.submit(self._run, job)
        self._futures[job.id] = future
        future.add_done_callback(partial(self._settle, job))
        return job

    def _forget_oldest(self) -> None:
        over = [job_id for job_id, job in self._jobs.items() if job.snapshot().over]
        for job_id in over[: max(0, len(over) - JOBS_REMEMBERED + 1)]:
            del self._jobs[job_id]
            self._futures.pop(job_id, None)

    def _drop_if_queued(self, job_id: str) -> None:
        with self._lock:
            future = self._futures.get(job_id)
        # Outside the lock: cancelling calls `_settle`, and that the listeners.
        if future is not None:
            future.cancel()

    def _run(self, job: Job[Request, Result]) -> Result:
        job.begin()
        return self._perform(job.request, job.report)

    def _settle(self, job: Job[Request, Result], future: "Future[Result]") -> None:
        error = Cancelled() if future.cancelled() else future.exception()
        if error is None:
            job.finish(future.result(), None)
        elif isinstance(error, OpenScansError):
            log.info("job %s ended: %s", job.id, error.code)
            job.finish(None, error)
        else:
            log.error("job %s failed", job.id, exc_info=error)
            job.finish(None, OpenScansError("The detection failed for a reason that was not foreseen."))
