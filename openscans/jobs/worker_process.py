"""The worker process from inside: calls come in through a pipe, progress and replies go out, until the pipe closes.

Knows the messages of both sides; of the pipeline only that it does what they ask.

Rules for threads. The main thread alone works with the pipeline, one call after another. One thread only reads the
pipe. What files tell is looked up in a thread a call, because a disk may hang for ever; such a thread is left alone
when nobody wants its answer any more. All of them write to the pipe, one at a time under `WorkerLoop._sending`.
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
from typing import Protocol, TypeAlias, get_args

from openscans.errors import Cancelled, OpenScansError, OutOfMemory
from openscans.jobs.fingerprint import FingerprintCache, read_uids, take_fingerprint
from openscans.jobs.job import UNFORESEEN
from openscans.jobs.readable_path import readable_path
from openscans.jobs.worker_messages import (
    Call,
    Failure,
    FileRequest,
    LoadRequest,
    Located,
    LookRequest,
    Message,
    OpenRequest,
    PipelineRequest,
    Progress,
    Ready,
    Reply,
    Stop,
    UidsRequest,
    UnpackRequest,
    WarmUp,
    ZipRequest,
)
from openscans.progress import Forecast, StageReport
from openscans.sources import archive
from openscans.system import logs
from openscans.system.program import RUNNING
from openscans.types import Detection, DetectionTask, TrainedModel

NOT_ENOUGH = "There is not enough memory for this image."

STILL_TIMES = 20
"""The same again only tells that it goes on, so that it is sent this seldom: a folder of thousands of files says it for
each, and to ask the clock whether it is time would take longer."""

SHORTAGE = re.compile(
    "bad_alloc|(failed|unable|cannot|can't|tried) (to )?allocate|out of memory|failed to map segment"
    "|resource temporarily unavailable|can't start new thread",
    re.IGNORECASE,
)
"""How libraries say in errors of many classes that memory did not suffice: for numbers, for their own code, for a
thread's stack."""

log = logging.getLogger("openscans.worker")


class WorkerPipeline(Protocol):
    """What the process keeps warm."""

    def open(self, path: Path, series_uid: str | None, report: StageReport) -> str | None: ...
    def detect(self, task: DetectionTask, report: StageReport) -> Detection: ...
    def load(self, models: tuple[TrainedModel, ...], device: str) -> None: ...


MakePipeline: TypeAlias = Callable[[], WorkerPipeline]
"""Called in the worker process, so it must be picklable: a function of a module, or a `functools.partial` of one."""


@dataclass(frozen=True)
class LogPlan:
    """Where the worker process writes its log."""

    folder: Path
    debug: bool = False


def worker_main(pipe: Connection, make_pipeline: MakePipeline, log_plan: LogPlan) -> None:
    """The process's whole life: answer calls until the pipe closes."""
    # Ctrl-C reaches the whole group of processes; the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Warnings of imaging libraries quote header values.
    warnings.simplefilter("ignore")
    RUNNING.remember_files()
    logs.set_up(log_plan.folder, file_name="worker.log", debug=log_plan.debug)
    WorkerLoop(pipe, make_pipeline).serve()


class WorkerLoop:
    """The worker's side of the pipe."""

    def __init__(self, pipe: Connection, make_pipeline: MakePipeline) -> None:
        self._pipe = pipe
        self._make_pipeline = make_pipeline
        self._pipeline: WorkerPipeline | None = None
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._fingerprints = FingerprintCache()
        self._stopped: set[int] = set()
        self._told: dict[int, tuple[Progress, int]] = {}
        self._sending = threading.Lock()

    def serve(self) -> None:
        threading.Thread(target=self._read, name="calls", daemon=True).start()
        while True:
            self._perform(self._calls.get())

    def _read(self) -> None:
        """Hand out what comes in. Ends the process, whatever it does, when the parent is gone or cannot be heard."""
        try:
            while True:
                self._take(self._pipe.recv())
        except (EOFError, OSError):
            os._exit(0)
        except Exception as error:
            log.critical("no more calls can be read", exc_info=error)
            os._exit(1)

    def _take(self, message: Call | Stop) -> None:
        if isinstance(message, Stop):
            self._stopped.add(message.number)
        elif isinstance(message.request, get_args(FileRequest)):
            try:
                threading.Thread(target=self._perform, args=(message,), name="files", daemon=True).start()
            except RuntimeError as error:
                log.error("no thread can be started", exc_info=error)
                self._send(Failure(message.number, OutOfMemory(NOT_ENOUGH)))
        else:
            self._calls.put(message)

    def _perform(self, call: Call) -> None:
        self._send(self._outcome(call))
        self._stopped.discard(call.number)
        self._told.pop(call.number, None)

    def _send(self, message: Message | Ready) -> None:
        with self._sending:
            self._pipe.send(message)

    def _outcome(self, call: Call) -> Reply | Failure:
        try:
            return Reply(call.number, self._answer(call.request, partial(self._report, call.number)))
        except OpenScansError as error:
            return Failure(call.number, error)
        except MemoryError:
            return Failure(call.number, OutOfMemory(NOT_ENOUGH))
        # Whatever one image makes go wrong must not end the worker for the next.
        except Exception as error:
            log.error("call %d failed", call.number, exc_info=error)
            if SHORTAGE.search(str(error)):
                return Failure(call.number, OutOfMemory(NOT_ENOUGH))
            return Failure(call.number, RUNNING.unforeseen(UNFORESEEN))

    def _answer(self, request: PipelineRequest | FileRequest, report: StageReport) -> object:
        if isinstance(request, LookRequest):
            path = readable_path(request.text, request.roots, partial(report, "reading"))
            fingerprint = take_fingerprint(
                path,
                request.series_uid,
                partial(report, "reading"),
                self._fingerprints,
                look_beside=not request.roots,
            )
            return Located(path, fingerprint)
        if isinstance(request, UidsRequest):
            return read_uids(request.locations)
        if isinstance(request, ZipRequest):
            return archive.is_zip(request.path)
        if isinstance(request, UnpackRequest):
            return archive.unpack(request.path, request.folder, partial(report, "reading"))
        if isinstance(request, OpenRequest | DetectionTask | LoadRequest | WarmUp):
            return self._run(request, report)
        return request.fingerprint.is_still(partial(report, "measuring"))

    def _run(self, request: OpenRequest | DetectionTask | LoadRequest | WarmUp, report: StageReport) -> object:
        if self._pipeline is None:
            self._pipeline = self._make_pipeline()
            self._send(Ready())
        if isinstance(request, LoadRequest):
            self._pipeline.load(request.models, request.device)
        if isinstance(request, LoadRequest | WarmUp):
            return None
        if isinstance(request, OpenRequest):
            return self._pipeline.open(request.path, request.series_uid, report)
        return self._pipeline.detect(request, report)

    def _report(self, number: int, stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        if number in self._stopped:
            raise Cancelled
        progress = Progress(number, stage, done, total, forecast)
        last, times = self._told.get(number, (None, 0))
        times = times + 1 if progress == last else 0
        self._told[number] = progress, times
        if times % STILL_TIMES == 0:
            self._send(progress)
