"""Detections and their jobs over HTTP: as one answer, or as a stream of progress that ends with the answer.

Knows requests and jobs by their public functions; nothing of images or networks.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from openscans import errors
from openscans.errors import Cancelled, OpenScansError
from openscans.jobs.detector import DetectionRequest
from openscans.jobs.job import Job, JobSnapshot
from openscans.server import error_responses, sse
from openscans.server.disconnects import while_connected
from openscans.server.openapi import describe_end_of_stream, describe_errors, describe_stream
from openscans.server.schemas import DetectBody, DetectionAnswer, JobAnswer, JobsAnswer
from openscans.server.state import AppState, State
from openscans.types import Detection, ResultWarning

DetectionJob: TypeAlias = Job[DetectionRequest, Detection]
DetectionSnapshot: TypeAlias = JobSnapshot[Detection]

LOOK_S = 2.0
"""An answer that is known by then, or refused, needs no stream of progress; a viewer waits no longer for anything."""

JobId: TypeAlias = Annotated[str, Path(description="As an answer or an event named it.")]

routes = APIRouter(tags=["detection"])


@routes.post(
    "/api/detect-vertebrae",
    response_model=DetectionAnswer,
    responses=describe_stream(JobAnswer)
    | describe_end_of_stream()
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
async def detect_vertebrae(
    body: DetectBody, request: Request, state: State, last_event_id: sse.LastEventId = None
) -> DetectionAnswer | Response:
    """Find and label the vertebrae of one image; with Accept: text/event-stream, tell the progress on the way."""
    wants_events = "text/event-stream" in request.headers.get("accept", "")
    if wants_events and last_event_id:
        return _stream_known(last_event_id, state)
    job = state.jobs.submit(DetectionRequest(**body.known()))
    with ExitStack() as waiting:
        waiting.callback(state.jobs.release, job)
        if not wants_events:
            return _result(await while_connected(request, _last(job)), body.warnings())
        await while_connected(request, _placed(job))
        _raise_refusal(job.snapshot())
        # From here on it is the stream that waits.
        return sse.event_stream(_events(job, body.warnings()), afterwards=waiting.pop_all().close)


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


def _stream_known(last_event_id: str, state: AppState) -> Response:
    """The stream of the job that the event was of, as far as there is more to hear."""
    if sse.heard_last(last_event_id):
        return sse.nothing_more()
    try:
        job = state.jobs.join(sse.task_of(last_event_id))
    except errors.UnknownJob:
        return sse.nothing_more()
    return sse.event_stream(_events(job), afterwards=partial(state.jobs.release, job))


async def _placed(job: DetectionJob) -> None:
    """Wait until its image was looked at, but no longer than `LOOK_S`; whoever streams then sees it looked at."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_S), aclosing(sse.states(job, gap_s=0.0)) as snapshots:
            async for snapshot in snapshots:
                if snapshot.placed:
                    return


def _raise_refusal(snapshot: DetectionSnapshot) -> None:
    """Raises what the request was refused for at the first look: that is told by a status, and no stream begins."""
    if snapshot.error is not None and not snapshot.placed and not isinstance(snapshot.error, Cancelled):
        raise snapshot.error


def _result(snapshot: DetectionSnapshot, more: Sequence[ResultWarning] = ()) -> DetectionAnswer:
    """What was found, with ``more`` warnings, of the request. Raises what it ended with."""
    if snapshot.error is not None:
        raise snapshot.error
    if snapshot.result is None:
        raise OpenScansError("The detection ended without a result.")
    found = replace(snapshot.result, warnings=(*snapshot.result.warnings, *more))
    return DetectionAnswer.of(found, job_id=snapshot.job_id, processing_time_ms=snapshot.elapsed_ms)


def _job_answer(
    snapshot: DetectionSnapshot, *, with_result: bool = True, more: Sequence[ResultWarning] = ()
) -> JobAnswer:
    """``snapshot`` with only those keys set that it has come to; ``more`` as for `_result`."""
    warnings = [*snapshot.warnings, *more]
    keys: dict[str, Any] = {"warnings": warnings} if warnings else {}
    if snapshot.error is not None:
        keys |= error_responses.error_keys(snapshot.error)
    elif snapshot.over and with_result:
        keys["result"] = _result(snapshot, more)
    return JobAnswer(
        job_id=snapshot.job_id,
        status=snapshot.status,
        progress=snapshot.progress,
        eta_s=snapshot.eta_s,
        elapsed_ms=snapshot.elapsed_ms,
        **keys,
    )


async def _events(job: DetectionJob, more: Sequence[ResultWarning] = ()) -> AsyncIterator[sse.Event]:
    async for snapshot in sse.states(job, gap_s=sse.EVENT_GAP_S):
        keys = _job_answer(snapshot, more=more).model_dump(mode="json", exclude_unset=True)
        yield sse.Event(snapshot.job_id, keys, last=snapshot.over)


async def _last(job: DetectionJob) -> DetectionSnapshot:
    return [snapshot async for snapshot in sse.states(job, gap_s=0.0)][-1]
