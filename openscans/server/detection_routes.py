"""Detections and their jobs over HTTP: as one answer, or as a stream of progress that ends with the answer.

Knows requests and jobs by their public functions; nothing of images or networks.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from starlette.responses import Response

from openscans import errors
from openscans.errors import OpenScansError
from openscans.jobs.detector import DetectionRequest
from openscans.jobs.queue import Job, Snapshot
from openscans.progress import Report
from openscans.server import error_responses
from openscans.server.openapi import describe_errors, describe_stream
from openscans.server.readable_path import readable_path
from openscans.server.schemas import DetectBody, DetectionAnswer, JobAnswer, JobsAnswer
from openscans.server.state import AppState, State
from openscans.types import Detection

DetectionJob: TypeAlias = Job[DetectionRequest, Detection]
DetectionSnapshot: TypeAlias = Snapshot[Detection]

JobId: TypeAlias = Annotated[str, PathParameter(description="As an answer or an event named it.")]

routes = APIRouter(tags=["detection"])


@routes.post(
    "/api/detect-vertebrae",
    response_model=DetectionAnswer,
    responses=describe_stream(JobAnswer)
    | describe_errors(
        errors.InputNotFound,
        errors.ForbiddenPath,
        *errors.kinds_of(errors.VolumeError),
        errors.UnknownTask,
        errors.ModelMissing,
        errors.DownloadFailed,
        errors.Cancelled,
        errors.WorkerCrashed,
        errors.DiskFull,
        errors.OutOfMemory,
    ),
)
async def detect_vertebrae(body: DetectBody, request: Request, state: State) -> DetectionAnswer | Response:
    """Find and label the vertebrae of one image; with Accept: text/event-stream, tell the progress on the way."""
    job = await _job(body, request, state)
    leave = partial(state.jobs.release, job)
    if "text/event-stream" in request.headers.get("accept", ""):
        return error_responses.event_stream(_events(job), afterwards=leave)
    try:
        return _result(await error_responses.while_connected(request, _last(job)))
    finally:
        leave()


@routes.get("/api/jobs", responses=describe_errors(), response_model_exclude_unset=True)
async def list_jobs(state: State) -> JobsAnswer:
    """All detections that are remembered, oldest first, without their results."""
    return JobsAnswer(jobs=[_job_answer(snapshot, with_result=False) for snapshot in state.jobs.snapshots()])


@routes.get("/api/jobs/{job_id}", responses=describe_errors(errors.UnknownJob), response_model_exclude_unset=True)
async def show_job(job_id: JobId, state: State) -> JobAnswer:
    """One detection as it stands, with its result once it has one."""
    return _job_answer(state.jobs.get(job_id).snapshot())


@routes.delete("/api/jobs/{job_id}", responses=describe_errors(errors.UnknownJob), response_model_exclude_unset=True)
async def cancel_job(job_id: JobId, state: State) -> JobAnswer:
    """Cancel a detection, whoever waits for it; the answer tells how it stands, and it ends soon after."""
    return _job_answer(state.jobs.cancel(job_id).snapshot())


async def _job(body: DetectBody, request: Request, state: AppState) -> DetectionJob:
    """Attend the job that answers ``request``. Raises Cancelled when its client leaves while the image is looked at."""
    wanted = await error_responses.in_thread(partial(_wanted, body, state.access.allowed_roots), request, state.looks)
    if (job := state.jobs.find_running(wanted)) is not None:
        return job
    # Whether the answer is known takes a look at every file: not for what is being found just now.
    known = await error_responses.in_thread(partial(state.jobs.from_cache, wanted), request, state.looks)
    return known or state.jobs.submit(wanted)


def _wanted(body: DetectBody, roots: Sequence[Path], report: Report) -> DetectionRequest:
    path = readable_path(body.file_path, roots, report)
    return DetectionRequest(path, **body.model_dump(exclude={"file_path"}))


def _result(snapshot: DetectionSnapshot) -> DetectionAnswer:
    if snapshot.error is not None:
        raise snapshot.error
    if snapshot.result is None:
        raise OpenScansError("The detection ended without a result.")
    return DetectionAnswer.of(snapshot.result, job_id=snapshot.job_id, processing_time_ms=snapshot.elapsed_ms)


def _job_answer(snapshot: DetectionSnapshot, *, with_result: bool = True) -> JobAnswer:
    """``snapshot`` with only those keys set that it has come to."""
    keys: dict[str, Any] = {}
    if snapshot.error is not None:
        keys |= error_responses.error_keys(snapshot.error)
    elif snapshot.over and with_result:
        keys["result"] = _result(snapshot)
    return JobAnswer(
        job_id=snapshot.job_id,
        status=snapshot.status,
        progress=snapshot.progress,
        eta_s=snapshot.eta_s,
        elapsed_ms=snapshot.elapsed_ms,
        **keys,
    )


async def _events(job: DetectionJob) -> AsyncIterator[dict[str, Any]]:
    async for snapshot in _snapshots(job):
        yield _job_answer(snapshot).model_dump(mode="json", exclude_unset=True)
        if not snapshot.over:
            await asyncio.sleep(error_responses.EVENT_GAP_S)


async def _last(job: DetectionJob) -> DetectionSnapshot:
    return [snapshot async for snapshot in _snapshots(job)][-1]


async def _snapshots(job: DetectionJob) -> AsyncIterator[DetectionSnapshot]:
    """Every state of ``job`` that the reader is in time for, and always the last."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    with job.subscribe(lambda: loop.call_soon_threadsafe(changed.set)):
        while not (snapshot := job.snapshot()).over:
            yield snapshot
            await changed.wait()
            changed.clear()
        yield snapshot
