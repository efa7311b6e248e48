"""The one child process that keeps the pipeline warm, as the server sees it: asked, stopped, killed when it must be.

Knows processes and pipes; nothing of HTTP, of where weights come from, or of what the pipeline does. The child's own
side of the pipe is `worker_child`.

Rules for threads. One thread at a time asks (the executor of `jobs`); another may close or read the state, and a timer
ends a worker that idles. `Worker._lock` guards which child is there and is never held while a question is answered.
"""

import logging
import multiprocessing
import threading
import time
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeGuard

from openscans.errors import Cancelled, OutOfMemory, WorkerCrashed
from openscans.jobs.worker_process import (
    Call,
    Failure,
    LogPlan,
    MakePipeline,
    ModalityRequest,
    Progress,
    Ready,
    Reply,
    Request,
    Stop,
    WarmUp,
    worker_main,
)
from openscans.progress import StageReport
from openscans.types import Detection, DetectionTask, WorkerState

TICK_S = 0.1
"""How often a call that hears nothing asks whether it is still wanted."""

CANCEL_S = 5.0
"""A patch of the largest network takes 2 to 3 s on two cores; what has not reacted by then hangs."""

DETECTION_FOLLOWS_S = 5.0
"""Who asks for the modality wants a detection next: however soon an idle worker ends, it is kept for that."""

END_S = 2.0
"""A killed process is gone in milliseconds, unless the system is out of memory and swaps."""

KILLED = -9
"""The exit code of a process that SIGKILL ended; Windows has no such thing."""

NOT_STARTED = "The worker process could not be started."

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
        self._asking = False
        self._closed = False

    @property
    def state(self) -> WorkerState:
        """cold, loading, ready, busy or failed. Takes no lock, so that it answers at once."""
        child = self._child
        if child is None or child.killed:
            return "cold"
        if not child.alive:
            return "failed"
        if not child.ready:
            return "loading"
        return "busy" if self._asking else "ready"

    def modality(self, path: Path, series_uid: str | None, report: StageReport) -> str | None:
        """`WorkerPipeline.modality`, in the child. Raises what it raises, WorkerCrashed, and Cancelled."""
        answer = self._ask(ModalityRequest(path, series_uid), report, at_least_warm_s=DETECTION_FOLLOWS_S)
        return answer if isinstance(answer, str) else None

    def detect(self, order: DetectionTask, report: StageReport) -> Detection:
        """`WorkerPipeline.detect`, in the child. Raises what it raises, WorkerCrashed, and Cancelled."""
        answer = self._ask(order, report)
        if not isinstance(answer, Detection):
            raise WorkerCrashed("The worker process gave an answer that makes no sense.")
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

    def close(self) -> None:
        """Kill the child, whatever it does; nothing can be asked any more."""
        with self._lock:
            self._closed = True
            self._rest_later(None)
            child = self._child
        if child is not None:
            child.kill()

    def _ask(self, question: Request, report: StageReport, *, at_least_warm_s: float = 0.0) -> object:
        child = self._engage()
        try:
            return child.ask(question, report, hang_s=self._hang_s)
        except OutOfMemory:
            # What it keeps warm, and what lies in pieces, may be what the next image lacks.
            child.kill()
            raise
        finally:
            with self._lock:
                self._asking = False
                if not self._closed:
                    self._rest_later(None if self._keep_warm_s is None else max(self._keep_warm_s, at_least_warm_s))

    def _engage(self) -> "Child":
        with self._lock:
            if self._closed:
                raise Cancelled
            self._rest_later(None)
            child = self._child
            # One that was killed may take a while to go, where its disk or the system's memory hangs.
            if child is None or child.killed or not child.alive:
                ended, self._child = child, Child(self._make_pipeline, self._log_plan)
                child = self._child
                if ended is not None:
                    ended.release()
            self._asking = True
            return child

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
            if self._asking or self._child is None:
                return
            child, self._child = self._child, None
        log.info("the worker was idle and gives its memory back")
        child.kill()
        child.release()


class Child:
    """One process and the pipe to it, as its parent sees them."""

    def __init__(self, make_pipeline: MakePipeline, log_plan: LogPlan) -> None:
        context = multiprocessing.get_context("spawn")
        try:
            self._pipe, far_end = context.Pipe()
        except OSError as error:
            raise WorkerCrashed(NOT_STARTED) from error
        self._process = context.Process(
            target=worker_main, args=(far_end, make_pipeline, log_plan), name="worker", daemon=True
        )
        try:
            # With the far end open here too, the death of the child would not close the pipe.
            with far_end:
                self._process.start()
        except OSError as error:
            self._pipe.close()
            raise WorkerCrashed(NOT_STARTED) from error
        self._calls = 0
        self._ready = False
        self.killed = False

    @property
    def alive(self) -> bool:
        try:
            return not wait([self._process.sentinel], timeout=0)
        except (OSError, ValueError):
            # Another thread has just released it.
            return False

    @property
    def ready(self) -> bool:
        """The pipeline is built."""
        # Before the first question nobody reads the pipe, and the first that comes through it is this.
        try:
            return self._ready or (self._calls == 0 and self._pipe.poll())
        except OSError:
            # Windows says so when the process has just ended.
            return False

    def warm_up(self) -> None:
        """Let it build its pipeline before the first question; nobody waits for that."""
        self._send(Call(0, WarmUp()))

    def ask(self, question: Request, report: StageReport, *, hang_s: float) -> object:
        """The pipeline's answer; its progress goes to ``report``, which may raise Cancelled.

        Raises WorkerCrashed when the process ends, or says nothing for ``hang_s``; then it is killed.
        """
        self._calls += 1
        self._send(Call(self._calls, question))
        known = Progress("reading", 0, 1)
        silent_s = 0.0
        while True:
            message = self._receive(TICK_S)
            if self._is_outcome(message):
                return _value(message)
            # Counted in waits, because a clock may run on while the whole machine sleeps.
            silent_s = silent_s + TICK_S if message is None else 0.0
            if silent_s > hang_s:
                log.warning("the worker said nothing for %.0f s and is killed", silent_s)
                self.kill()
                raise WorkerCrashed(f"The worker process made no progress for {hang_s:.0f} s and was ended.")
            if isinstance(message, Progress):
                known = message
            try:
                # With nothing new too, because this is how it is heard that nobody wants the answer any more.
                report(known.stage, known.done, known.total)
            except Cancelled:
                with suppress(WorkerCrashed):
                    self._stop()
                raise

    def kill(self) -> None:
        self.killed = True
        self._process.kill()
        self._process.join(END_S)

    def release(self) -> None:
        """Give the descriptors of one that has ended back: errors that are remembered keep it from being collected."""
        self._pipe.close()
        # It has not ended where even a kill did not help.
        with suppress(ValueError):
            self._process.close()

    def _stop(self) -> None:
        """Make the child stop the present call, so that it can serve the next; kill it where it does not react."""
        self._send(Stop(self._calls))
        deadline_s = time.monotonic() + CANCEL_S
        while time.monotonic() < deadline_s:
            if self._is_outcome(self._receive(TICK_S)):
                return
        log.warning("the worker did not stop in %.0f s and is killed", CANCEL_S)
        self.kill()

    def _send(self, message: Call | Stop) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._death() from error

    def _receive(self, timeout_s: float) -> object:
        """The next message, None where there is none yet. Raises WorkerCrashed."""
        heard = wait([self._pipe, self._process.sentinel], timeout_s)
        if not heard:
            return None
        if self._pipe not in heard:
            raise self._death()
        try:
            message = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        self._ready = self._ready or isinstance(message, Ready)
        return message

    def _is_outcome(self, message: object) -> TypeGuard[Reply | Failure]:
        """Whether it ends the present call; that of a warm-up may come while a question waits behind it."""
        return isinstance(message, Reply | Failure) and message.number == self._calls

    def _death(self) -> WorkerCrashed:
        self._process.join(END_S)
        log.warning("the worker ended with exit code %s", self._process.exitcode)
        if self._process.exitcode == KILLED:
            return WorkerCrashed(
                "The worker process was killed, as the system does when memory runs out.",
                hint="Close other programs, or use fast_mode, and send the request again.",
            )
        return WorkerCrashed("The worker process ended unexpectedly.")


def _value(outcome: Reply | Failure) -> object:
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome.value
