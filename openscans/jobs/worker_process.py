"""The worker process from inside: calls come in through a pipe, progress and answers go out, until the pipe closes.

Knows the messages of both sides; of the pipeline only that it answers questions. One thread only reads the pipe; the
main thread works and only writes.
"""

import logging
import os
import queue
import re
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol, TypeAlias

from openscans.errors import Cancelled, OpenScansError, OutOfMemory
from openscans.progress import StageReport
from openscans.system import logs
from openscans.types import Detection, DetectionTask

NOT_ENOUGH = "There is not enough memory for this image."

SHORTAGE = re.compile(
    "bad_alloc|(failed|unable|cannot|can't|tried) (to )?allocate|out of memory|failed to map segment"
    "|resource temporarily unavailable|can't start new thread",
    re.IGNORECASE,
)
"""How libraries say in errors of many classes that memory did not suffice: for numbers, for their own code, for a
thread's stack."""

log = logging.getLogger("openscans.worker")


class WorkerPipeline(Protocol):
    """What the child keeps warm."""

    def modality(self, path: Path, series_uid: str | None, report: StageReport) -> str | None: ...
    def detect(self, order: DetectionTask, report: StageReport) -> Detection: ...


MakePipeline: TypeAlias = Callable[[], WorkerPipeline]
"""Called in the child, so it must be picklable: a function of a module, or a `functools.partial` of one."""


@dataclass(frozen=True)
class LogPlan:
    """Where the child writes its log."""

    folder: Path
    debug: bool = False


@dataclass(frozen=True)
class ModalityRequest:
    path: Path
    series_uid: str | None


@dataclass(frozen=True)
class WarmUp:
    """To build the pipeline and do nothing with it yet."""


Request: TypeAlias = ModalityRequest | DetectionTask | WarmUp


@dataclass(frozen=True)
class Call:
    number: int
    question: Request


@dataclass(frozen=True)
class Stop:
    number: int


@dataclass(frozen=True)
class Ready:
    """The pipeline is built."""


@dataclass(frozen=True)
class Progress:
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Reply:
    """``number`` is the call's."""

    number: int
    value: object


@dataclass(frozen=True)
class Failure:
    number: int
    error: OpenScansError


def worker_main(pipe: Connection, make_pipeline: MakePipeline, log_plan: LogPlan) -> None:
    """The child's whole life: answer calls until the pipe closes."""
    # Ctrl-C reaches the whole group of processes; the parent decides what becomes of the child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Warnings of imaging libraries quote header values.
    warnings.simplefilter("ignore")
    logs.set_up(log_plan.folder, file_name="worker.log", debug=log_plan.debug)
    WorkerLoop(pipe, make_pipeline).serve()


class WorkerLoop:
    """The child's side of the pipe."""

    def __init__(self, pipe: Connection, make_pipeline: MakePipeline) -> None:
        self._pipe = pipe
        self._make_pipeline = make_pipeline
        self._pipeline: WorkerPipeline | None = None
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._stopped = 0
        threading.Thread(target=self._read, daemon=True).start()

    def serve(self) -> None:
        while True:
            call = self._calls.get()
            self._pipe.send(self._outcome(call))

    def _read(self) -> None:
        """Sort what comes in. Ends the process, whatever it does, when the parent is gone."""
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(message, Stop):
                self._stopped = message.number
            else:
                self._calls.put(message)

    def _outcome(self, call: Call) -> Reply | Failure:
        try:
            return Reply(call.number, self._answer(call))
        except OpenScansError as error:
            return Failure(call.number, error)
        except MemoryError:
            return Failure(call.number, OutOfMemory(NOT_ENOUGH))
        # Whatever one image makes go wrong must not end the worker for the next.
        except Exception as error:
            log.error("call %d failed", call.number, exc_info=error)
            if SHORTAGE.search(str(error)):
                return Failure(call.number, OutOfMemory(NOT_ENOUGH))
            return Failure(call.number, OpenScansError("The detection failed for a reason that was not foreseen."))

    def _answer(self, call: Call) -> object:
        if self._pipeline is None:
            self._pipeline = self._make_pipeline()
            self._pipe.send(Ready())
        question = call.question
        if isinstance(question, WarmUp):
            return None
        report = partial(self._report, call.number)
        if isinstance(question, ModalityRequest):
            return self._pipeline.modality(question.path, question.series_uid, report)
        return self._pipeline.detect(question, report)

    def _report(self, number: int, stage: str, done: int, total: int) -> None:
        if self._stopped == number:
            raise Cancelled
        self._pipe.send(Progress(stage, done, total))
