"""One worker process and the pipe to it, as its parent sees them: calls go out, messages come back to who waits.

Knows processes and pipes; nothing of what is asked. The child's own side of the pipe is `worker_process`.

Rules for threads. Any number of threads ask at the same time. `Child._lock` guards who waits for which messages and
whether more may be asked, and is never held while one is awaited. Two threads of its own alone use the pipe: one
writes, so that a process that reads nothing any more holds nobody; one reads, and closes it when the process has ended.
"""

import logging
import multiprocessing
import pickle
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
    LoadRequest,
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
from openscans.system import folders
from openscans.system.program import REPLACED, RESTART, RUNNING
from openscans.types import WorkerState

TICK_S = 0.1
"""How often a call that hears nothing asks whether it is still wanted."""

CANCEL_S = 5.0
"""A patch of the largest network takes 2 to 3 s on two cores; what has not reacted by then hangs, or is so slow that a
new process serves the next one better."""

PATIENCE = 10.0
"""Times what one unit of work should take, after which it hangs: the first patch's time is reckoned from a small run,
which is off by up to four times (`networks.pace`), and other programs may take the cores meanwhile."""

MOST_LEFT = 20
"""Answers that nobody waits for any more, before the process is given up: each may be a thread on a disk that hangs."""

END_S = 2.0
"""A killed process is gone in milliseconds, unless the system is out of memory and swaps."""

KILLED = -9
"""The exit code of a process that SIGKILL ended; Windows has no such thing."""

NOT_STARTED = "The worker process could not be started."

log = logging.getLogger("openscans.worker")


class ChildRetired(Exception):
    """Nothing more may be asked of this process; another one serves."""


class Child:
    """One process and the pipe to it, as its parent sees them."""

    def __init__(self, make_pipeline: MakePipeline, log_plan: LogPlan) -> None:
        if RUNNING.replaced:
            raise WorkerCrashed(REPLACED, hint=RESTART)
        context = multiprocessing.get_context("spawn")
        try:
            self._pipe, far_end = context.Pipe()
        except OSError as error:
            raise WorkerCrashed(NOT_STARTED) from error
        self._process = context.Process(
            target=worker_main, args=(far_end, make_pipeline, log_plan), name="worker", daemon=True
        )
        try:
            if folders.leave_lost_folder():
                log.warning("the folder that the server was started in is gone or closed")
            # With the far end open here too, the death of the child would not close the pipe.
            with far_end:
                self._process.start()
        except OSError as error:
            self._pipe.close()
            raise WorkerCrashed(NOT_STARTED) from error
        self._lock = threading.Lock()
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._calls = 0
        self._inboxes: dict[int, queue.SimpleQueue[Message | None]] = {}
        self._unanswered: set[int] = set()
        self._for_pipeline: set[int] = set()
        self._loading: set[int] = set()
        self._pipeline_wanted = self._pipeline_built = False
        self.retired = self._ended = False
        self._exit_code: int | None = None
        self._writer = threading.Thread(target=self._write, name="worker-calls", daemon=True)
        self._writer.start()
        threading.Thread(target=self._read, name="worker-replies", daemon=True).start()

    @property
    def alive(self) -> bool:
        try:
            return not wait([self._process.sentinel], timeout=0)
        except (OSError, ValueError):
            # Another thread has just released it.
            return False

    @property
    def serves(self) -> bool:
        """Whether more may be asked of it."""
        return not self.retired and not self._ended and self.alive

    @property
    def pipeline_state(self) -> WorkerState:
        """cold where nobody has wanted the pipeline yet, then loading, busy or ready."""
        if not self._pipeline_built or self._loading:
            return "loading" if self._pipeline_wanted else "cold"
        return "busy" if self._for_pipeline else "ready"

    def warm_up(self) -> None:
        """Let it build its pipeline before the first call; nobody waits for that."""
        self._pipeline_wanted = True
        self._send(Call(0, WarmUp()))

    def ask(self, request: Request, report: StageReport, *, hang_s: float) -> object:
        """The reply; its progress goes to ``report``, which may raise Cancelled.

        Raises WorkerCrashed when the process ends, or says nothing for ``hang_s`` and for `PATIENCE` times what it said
        that a unit of its work takes; then no more is asked of it. What waits for another call of the pipeline's hears
        nothing, and that is no hang. Raises ChildRetired where no more is asked already.
        """
        with self._call(request) as (number, inbox):
            known = Progress(number, "reading", 0, 1)
            silent_s = 0.0
            while True:
                message = self._next(inbox, TICK_S)
                if isinstance(message, Reply | Failure):
                    return _value(message)
                # Counted in waits, because a clock may run on while the whole machine sleeps.
                silent_s = silent_s + TICK_S if message is None and self._has_turn(number) else 0.0
                patience_s = max(hang_s, PATIENCE * _unit_s(known))
                if silent_s > patience_s:
                    log.warning("the worker said nothing for %.0f s", silent_s)
                    self._give_up(number)
                    raise WorkerCrashed(f"The worker process made no progress for {patience_s:.0f} s and was ended.")
                if message is not None:
                    known = message
                try:
                    # With nothing new too, because this is how it is heard that nobody wants the answer any more.
                    report(known.stage, known.done, known.total, known.forecast)
                except Cancelled:
                    self._send(Stop(number))
                    if isinstance(request, get_args(PipelineRequest)):
                        self._await_end(number, inbox)
                    elif len(self._unanswered) - len(self._inboxes) >= MOST_LEFT:
                        self._give_up(number)
                    raise

    def kill(self) -> None:
        with self._lock:
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
            if self.retired or self._ended:
                raise ChildRetired
            self._calls += 1
            number = self._calls
            self._inboxes[number] = inbox
            self._unanswered.add(number)
            if isinstance(request, get_args(PipelineRequest)):
                self._for_pipeline.add(number)
                self._pipeline_wanted = True
            if isinstance(request, LoadRequest):
                self._loading.add(number)
        try:
            self._send(Call(number, request))
            yield number, inbox
        finally:
            with self._lock:
                del self._inboxes[number]
                self._for_pipeline.discard(number)
                self._loading.discard(number)
                over = self.retired and not self._inboxes
            if over:
                self.kill()

    def _has_turn(self, number: int) -> bool:
        """Whether the process works on that call: the pipeline does one after another, by their numbers."""
        with self._lock:
            return number not in self._for_pipeline or number == min(self._for_pipeline)

    def _await_end(self, number: int, inbox: "queue.SimpleQueue[Message | None]") -> None:
        """Wait until the call has stopped, so that the next can be served; give the child up where it does not.

        One that waits for its turn stops when that comes.
        """
        if not self._has_turn(number):
            return
        deadline_s = time.monotonic() + CANCEL_S
        with suppress(WorkerCrashed):
            while time.monotonic() < deadline_s:
                if isinstance(self._next(inbox, TICK_S), Reply | Failure):
                    return
            log.warning("the worker did not stop in %.0f s", CANCEL_S)
            self._give_up(number)

    def _give_up(self, number: int) -> None:
        """Ask no more of a process that hangs.

        Where what hangs is a disk alone, who still waits for an answer gets it, and the last to leave ends the process.
        """
        with self._lock:
            self.retired = True
            over = number in self._for_pipeline or self._inboxes.keys() <= {number}
        if over:
            self.kill()

    def _send(self, message: Call | Stop) -> None:
        # As `Connection.send` would, but with what goes wrong in it told to who asks.
        self._outgoing.put(pickle.dumps(message))

    def _write(self) -> None:
        """Send what is to be sent. Of a process that has ended `_read` tells all who wait."""
        with suppress(OSError):
            while (message := self._outgoing.get()) is not None:
                self._pipe.send_bytes(message)

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
        """Hand every message to who waits for it, and to all who wait that no more come."""
        try:
            with suppress(EOFError, OSError):
                while True:
                    self._deliver(self._pipe.recv())
        finally:
            # Before anybody hears of it, because of two threads that wait for a process only one is told its exit code.
            self._exit_code = self._wait_for_end()
            if not self.retired:
                log.warning("the worker ended with exit code %s", self._exit_code)
            with self._lock:
                self._ended = True
                for inbox in self._inboxes.values():
                    inbox.put(None)
            self._outgoing.put(None)
            self._writer.join()
            self._pipe.close()

    def _deliver(self, message: Message | Ready) -> None:
        if isinstance(message, Ready):
            self._pipeline_built = True
            return
        with self._lock:
            inbox = self._inboxes.get(message.number)
            if not isinstance(message, Progress):
                self._unanswered.discard(message.number)
        if inbox is not None:
            inbox.put(message)

    def _wait_for_end(self) -> int | None:
        """The exit code; None where it goes on, or was released."""
        with suppress(ValueError):
            self._process.join(END_S)
            return self._process.exitcode
        return None

    def _death(self) -> WorkerCrashed:
        if self._exit_code == KILLED:
            return WorkerCrashed(
                "The worker process was killed, as the system does when memory runs out.",
                hint="Close other programs, or use fast_mode, and send the request again.",
            )
        if RUNNING.replaced:
            return WorkerCrashed(REPLACED, hint=RESTART)
        return WorkerCrashed("The worker process ended unexpectedly.")


def _unit_s(known: Progress) -> float:
    """What a unit of the work takes that it is at, as far as it said so."""
    return 0.0 if known.forecast is None else known.forecast.unit_s or 0.0


def _value(outcome: Reply | Failure) -> object:
    if isinstance(outcome, Failure):
        raise outcome.error
    return outcome.value
