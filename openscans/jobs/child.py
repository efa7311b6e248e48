"""One worker process and the pipe to it, as its parent sees them: calls go out, messages come back to who waits.

Knows processes and pipes; nothing of what is asked. The child's own side of the pipe is `worker_process`.

Rules for threads. Any number of threads ask at the same time. `Child._lock` guards who waits for which messages, and is
never held while one is awaited. A thread of the child's own alone reads its pipe, and alone closes it.
"""

import logging
import multiprocessing
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import get_args

from openscans.errors import Cancelled, WorkerCrashed
from openscans.jobs.worker_messages import (
    Call,
    Failure,
    Message,
    PipelineRequest,
    Progress,
    Ready,
    Reply,
    Request,
    Stop,
    WarmUp,
)
from openscans.jobs.worker_process import LogPlan, MakePipeline, worker_main
from openscans.progress import StageReport
from openscans.types import WorkerState

TICK_S = 0.1
"""How often a call that hears nothing asks whether it is still wanted."""

CANCEL_S = 5.0
"""A patch of the largest network takes 2 to 3 s on two cores; what has not reacted by then hangs."""

END_S = 2.0
"""A killed process is gone in milliseconds, unless the system is out of memory and swaps."""

KILLED = -9
"""The exit code of a process that SIGKILL ended; Windows has no such thing."""

NOT_STARTED = "The worker process could not be started."

log = logging.getLogger("openscans.worker")


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
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._calls = 0
        self._inboxes: dict[int, queue.SimpleQueue[Message | None]] = {}
        self._for_pipeline: set[int] = set()
        self._pipeline_wanted = self._pipeline_built = False
        self.retired = False
        threading.Thread(target=self._read, name="worker-replies", daemon=True).start()

    @property
    def alive(self) -> bool:
        try:
            return not wait([self._process.sentinel], timeout=0)
        except (OSError, ValueError):
            # Another thread has just released it.
            return False

    @property
    def pipeline_state(self) -> WorkerState:
        """cold where nobody has wanted the pipeline yet, then loading, busy or ready."""
        if not self._pipeline_built:
            return "loading" if self._pipeline_wanted else "cold"
        return "busy" if self._for_pipeline else "ready"

    def warm_up(self) -> None:
        """Let it build its pipeline before the first call; nobody waits for that."""
        self._pipeline_wanted = True
        self._send(Call(0, WarmUp()))

    def ask(self, request: Request, report: StageReport, *, hang_s: float) -> object:
        """The reply; its progress goes to ``report``, which may raise Cancelled.

        Raises WorkerCrashed when the process ends, or says nothing for ``hang_s``; then no more is asked of it.
        """
        with self._call(request) as (number, inbox):
            known = Progress(number, "reading", 0, 1)
            silent_s = 0.0
            while True:
                message = self._next(inbox, TICK_S)
                if isinstance(message, Reply | Failure):
                    return _value(message)
                # Counted in waits, because a clock may run on while the whole machine sleeps.
                silent_s = silent_s + TICK_S if message is None else 0.0
                if silent_s > hang_s:
                    log.warning("the worker said nothing for %.0f s", silent_s)
                    self._give_up(number)
                    raise WorkerCrashed(f"The worker process made no progress for {hang_s:.0f} s and was ended.")
                if message is not None:
                    known = message
                try:
                    # With nothing new too, because this is how it is heard that nobody wants the answer any more.
                    report(known.stage, known.done, known.total)
                except Cancelled:
                    with suppress(WorkerCrashed):
                        self._stop(number, inbox)
                    raise

    def kill(self) -> None:
        self.retired = True
        # One that has ended may be released already.
        with suppress(ValueError):
            self._process.kill()
            self._process.join(END_S)

    def release(self) -> None:
        """Give back what one holds that has ended: errors that are remembered keep it from being collected."""
        # It has not ended where even a kill did not help.
        with suppress(ValueError):
            self._process.close()

    @contextmanager
    def _call(self, request: Request) -> Iterator[tuple[int, "queue.SimpleQueue[Message | None]"]]:
        """Send ``request``: the number of its call, and where its messages arrive."""
        inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        with self._lock:
            self._calls += 1
            number = self._calls
            self._inboxes[number] = inbox
            if isinstance(request, get_args(PipelineRequest)):
                self._for_pipeline.add(number)
                self._pipeline_wanted = True
        try:
            self._send(Call(number, request))
            yield number, inbox
        finally:
            with self._lock:
                del self._inboxes[number]
                self._for_pipeline.discard(number)
                idle = not self._for_pipeline
            if self.retired and idle:
                self.kill()

    def _stop(self, number: int, inbox: "queue.SimpleQueue[Message | None]") -> None:
        """Make the child stop the call, so that it can serve the next; give it up where it does not react."""
        self._send(Stop(number))
        deadline_s = time.monotonic() + CANCEL_S
        while time.monotonic() < deadline_s:
            if isinstance(self._next(inbox, TICK_S), Reply | Failure):
                return
        log.warning("the worker did not stop in %.0f s", CANCEL_S)
        self._give_up(number)

    def _give_up(self, number: int) -> None:
        """Ask no more of a process that hangs. What hangs may be a disk alone: a detection is not ended with it."""
        self.retired = True
        with self._lock:
            others = self._for_pipeline - {number}
        if not others:
            self.kill()

    def _send(self, message: Call | Stop) -> None:
        try:
            with self._sending:
                self._pipe.send(message)
        except OSError as error:
            raise self._death() from error

    def _next(self, inbox: "queue.SimpleQueue[Message | None]", timeout_s: float) -> Message | None:
        """The next message, None where there is none yet. Raises WorkerCrashed."""
        try:
            message = inbox.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if message is None:
            raise self._death()
        return message

    def _read(self) -> None:
        """Hand every message to who waits for it, and the end of the process to all."""
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                break
            if isinstance(message, Ready):
                self._pipeline_built = True
                continue
            with self._lock:
                inbox = self._inboxes.get(message.number)
            if inbox is not None:
                inbox.put(message)
        with self._lock:
            for inbox in self._inboxes.values():
                inbox.put(None)
        with self._sending:
            self._pipe.close()

    def _death(self) -> WorkerCrashed:
        exit_code = None
        with suppress(ValueError):
            self._process.join(END_S)
            exit_code = self._process.exitcode
        log.warning("the worker ended with exit code %s", exit_code)
        if exit_code == KILLED:
            return WorkerCrashed(
                "The worker process was killed, as the system does when memory runs out.",
                hint="Close other programs, or use fast_mode, and send the request again.",
            )
        return WorkerCrashed("The worker process ended unexpectedly.")


def _value(outcome: Reply | Failure) -> object:
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome.value
