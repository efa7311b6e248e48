"""Detections in a queue: looked at at once, worked for one at a time; identical ones share a job; cancel.

Knows neither how an image is looked at nor what is done with it (two callables given to it), nor who asks over what.

Rules for threads. `JobQueue._lock` guards which jobs exist, their place in the line and how many wait for each; it is
never held while work runs or a listener is called, but a `Job`'s own lock may be taken while it is held. Images are
looked at by several threads of their own, since none may wait for a detection, or for a disk that hangs; the work is
done by one thread.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, Protocol

from openscans.errors import Busy, Cancelled, OpenScansError, UnknownJob
from openscans.jobs.job import UNFORESEEN, Job, JobSnapshot, Look, RequestT, ResultT
from openscans.progress import StageReport
from openscans.system.program import RUNNING

JOBS_REMEMBERED = 50
"""Finished jobs that can still be asked for; a result is some tens of kilobytes, its label map packed."""

LOOKS_AT_ONCE = 100
"""As many as requests are answered at once; each is a thread that waits for the worker process."""

log = logging.getLogger("openscans.jobs")


class Work(Protocol[RequestT, ResultT]):
    """What a queue does for a request. An error of `look` is the request's own, and there never was a job."""

    def look(self, request: RequestT, report: StageReport) -> Look[RequestT, ResultT]: ...
    def perform(self, look: Look[RequestT, ResultT], report: StageReport) -> ResultT: ...


class JobQueue(Generic[RequestT, ResultT]):
    """Does ``work`` for one request at a time and lets at most ``most_waiting`` others wait."""

    def __init__(self, work: Work[RequestT, ResultT], *, weights: Mapping[str, float], most_waiting: int) -> None:
        self._work = work
        self._weights = weights
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._jobs: dict[str, Job[RequestT, ResultT]] = {}
        self._joined: dict[str, Job[RequestT, ResultT]] = {}
        self._line: dict[str, Job[RequestT, ResultT]] = {}
        self._futures: dict[str, Future[Any]] = {}
        self._looks = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look")
        self._runs = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._closed = False

    def submit(self, request: RequestT) -> Job[RequestT, ResultT]:
        """A job for ``request``, whose image is looked at from now on; who submits must `release`. Raises Busy.

        After the look it is complete, where its answer is known; it follows the job that does the same for the same
        image; or it waits in the line. Where that is full, it ends with Busy and is forgotten, as it is where the look
        finds that the request cannot be answered.
        """
        with self._lock:
            if self._closed:
                raise Busy("The server is shutting down.")
            job: Job[RequestT, ResultT] = Job(request, self._weights)
            self._forget_oldest()
            looking = self._futures[job.id] = _start(self._looks, self._look, job)
            self._jobs[job.id] = job
        looking.add_done_callback(partial(self._after_look, job))
        return job

    def join(self, job_id: str) -> Job[RequestT, ResultT]:
        """Wait for a job that was submitted before, which may be over; who joins must `release`. Raises UnknownJob."""
        with self._lock:
            job = self._find(job_id)
            job.waiting += 1
        return job

    def release(self, job: Job[RequestT, ResultT]) -> None:
        """Wait for ``job`` no longer; the last one to leave stops it."""
        with self._lock:
            job.waiting -= 1
            is_left = job.waiting <= 0
            waited_for = self._joined.get(job.id, job)
            if waited_for is not job:
                waited_for.waiting -= 1
            future = None
            if waited_for.waiting <= 0:
                # Under the same lock: who joins from now on must see that it is stopped.
                waited_for.stop()
                future = self._futures.get(waited_for.id)
        if is_left:
            job.follow_no_more()
        if future is not None:
            future.cancel()

    def get(self, job_id: str) -> Job[RequestT, ResultT]:
        with self._lock:
            return self._find(job_id)

    def cancel(self, job_id: str) -> Job[RequestT, ResultT]:
        """Stop a job, whoever waits for it. One that is over stays as it is."""
        job = self.get(job_id)
        self._stop(job)
        return job

    def snapshots(self) -> list[JobSnapshot[ResultT]]:
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
        for pool in (self._looks, self._runs):
            pool.shutdown(wait=False, cancel_futures=True)

    def _find(self, job_id: str) -> Job[RequestT, ResultT]:
        found = self._jobs.get(job_id) or self._joined.get(job_id)
        if found is None:
            raise UnknownJob("There is no job of that id, or it ended long ago.")
        return found

    def _look(self, job: Job[RequestT, ResultT]) -> Look[RequestT, ResultT]:
        job.begin()
        return self._work.look(job.look.request, job.report)

    def _run(self, job: Job[RequestT, ResultT]) -> ResultT:
        if job.snapshot().over:
            # It was told that there is no thread for it, and stayed in the pool's own line.
            raise Cancelled
        job.begin()
        return self._work.perform(job.look, job.report)

    def _after_look(self, job: Job[RequestT, ResultT], looking: "Future[Look[RequestT, ResultT]]") -> None:
        error = _error_of(looking, job)
        if error is None:
            job.look = looking.result()
            try:
                job.raise_if_stopped()
                self._go_on(job)
            except (Busy, Cancelled) as refusal:
                error = refusal
        if error is None:
            return
        if not isinstance(error, Cancelled):
            with self._lock:
                self._forget(job.id)
        self._end(job, None, error)

    def _go_on(self, job: Job[RequestT, ResultT]) -> None:
        """What comes of ``job`` after its look. Raises Busy, and Cancelled where it was stopped meanwhile."""
        if job.look.known is not None:
            self._end(job, job.look.known, None)
            return
        twin = self._place(job)
        if twin is None:
            self._await_turn(job)
            return
        job.follow(twin)
        if job.waiting <= 0:
            # Who left meanwhile found nothing to follow no more.
            job.follow_no_more()

    def _place(self, job: Job[RequestT, ResultT]) -> Job[RequestT, ResultT] | None:
        """Give ``job`` its place in the line; or the job there that it joins. Raises Busy, and Cancelled if stopped."""
        with self._lock:
            if job.stopped:
                raise Cancelled
            twin = self._twin_of(job)
            if twin is None:
                self._check_room()
                self._line[job.id] = job
                return None
            twin.waiting += job.waiting
            self._joined[job.id] = twin
            self._forget(job.id)
            return twin

    def _await_turn(self, job: Job[RequestT, ResultT]) -> None:
        """Raises Busy and Cancelled."""
        job.take_place()
        with self._lock:
            # Who stopped it meanwhile found no future to cancel.
            if job.stopped or self._closed:
                raise Cancelled
            running = self._futures[job.id] = _start(self._runs, self._run, job)
        running.add_done_callback(partial(self._after_run, job))

    def _after_run(self, job: Job[RequestT, ResultT], running: "Future[ResultT]") -> None:
        error = _error_of(running, job)
        self._end(job, None if error is not None else running.result(), error)

    def _end(self, job: Job[RequestT, ResultT], result: ResultT | None, error: OpenScansError | None) -> None:
        """Its last state, which alone is remembered: what tells an image of thousands of files takes megabytes."""
        job.finish(result, error)
        with self._lock:
            self._line.pop(job.id, None)
            self._futures.pop(job.id, None)
            job.forget_look()

    def _twin_of(self, job: Job[RequestT, ResultT]) -> Job[RequestT, ResultT] | None:
        """The job in the line that does the same for the same image; who cannot tell its image has none."""
        if job.look.image is None:
            return None
        alive = (other for other in self._line.values() if not other.stopped and not other.snapshot().over)
        return next((other for other in alive if _does(other) == _does(job)), None)

    def _check_room(self) -> None:
        """Raises Busy where the line is full."""
        alive = sum(not other.snapshot().over for other in self._line.values())
        if alive > self._most_waiting:
            raise Busy(f"{alive} detections are running or waiting already.")

    def _stop(self, job: Job[RequestT, ResultT]) -> None:
        with self._lock:
            job.stop()
            future = self._futures.get(job.id)
        # Outside the lock: what waits for its turn ends here, and tells its listeners.
        if future is not None:
            future.cancel()

    def _forget_oldest(self) -> None:
        over = [job_id for job_id, job in self._jobs.items() if job.snapshot().over]
        for job_id in over[: max(0, len(over) - JOBS_REMEMBERED + 1)]:
            self._forget(job_id)
        for job_id in [job_id for job_id, job in self._joined.items() if job.id not in self._jobs]:
            del self._joined[job_id]

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id, None)
        self._line.pop(job_id, None)
        self._futures.pop(job_id, None)


def _start(pool: ThreadPoolExecutor, work: Callable[[Job[Any, Any]], Any], job: Job[Any, Any]) -> "Future[Any]":
    """Raises Busy where the system has no thread left for it."""
    try:
        return pool.submit(work, job)
    except RuntimeError as error:
        raise Busy("The system has no threads left.") from error


def _does(job: Job[RequestT, ResultT]) -> tuple[RequestT, Hashable]:
    return job.look.request, job.look.image


def _error_of(future: "Future[Any]", job: Job[RequestT, ResultT]) -> OpenScansError | None:
    """What the job of ``future`` failed with, as an error that a caller may see."""
    error = Cancelled() if future.cancelled() else future.exception()
    if error is None or isinstance(error, OpenScansError):
        if error is not None:
            log.info("job %s ended: %s", job.id, error.code)
        return error
    log.error("job %s failed", job.id, exc_info=error)
    return RUNNING.unforeseen(UNFORESEEN)
