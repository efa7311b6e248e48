"""The models over HTTP: what is there, downloads as streams, import, verify, delete.

Knows the models by their public functions; nothing of zips or folders. What touches the disk runs in a thread.
"""

import pathlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Annotated, TypeAlias

from fastapi import APIRouter, HTTPException, Path, Query, Request
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from openscans import errors
from openscans.errors import NotFound, OpenScansError
from openscans.jobs.readable_path import readable_path
from openscans.progress import Report
from openscans.server import sse
from openscans.server.disconnects import in_thread
from openscans.server.error_responses import error_keys
from openscans.server.head_requests import wants_head_only
from openscans.server.openapi import describe_end_of_stream, describe_errors, describe_stream
from openscans.server.schemas import DeletedAnswer, DownloadEvent, ImportBody, KnownTask, SuccessAnswer
from openscans.server.state import State
from openscans.weights import catalogue
from openscans.weights.download_task import DownloadTask
from openscans.weights.status import CacheStats, Deletion, ModelStatus

EVENT_GAP_S = 0.2
"""Five events a second at most; a download takes minutes."""

TaskKey: TypeAlias = Annotated[KnownTask, Path(description="The task whose models are meant.")]
OptionalTaskKey: TypeAlias = Annotated[KnownTask | None, Query(description="The one task that is asked for.")]

DOWNLOAD = describe_end_of_stream() | describe_errors(errors.UnknownTask) | describe_stream(DownloadEvent)

routes = APIRouter(prefix="/api/models", tags=["models"])


@routes.get("/status", responses=describe_errors(errors.UnknownTask))
def status(state: State, task: OptionalTaskKey = None) -> Mapping[str, ModelStatus] | ModelStatus:
    """Every task's models, or those of one task."""
    return state.models.statuses() if task is None else state.models.status(task)


@routes.get("/all", responses=describe_errors())
def every_status(state: State) -> Mapping[str, ModelStatus]:
    """Every task's models."""
    return state.models.statuses()


@routes.get("/cache-stats", responses=describe_errors())
def cache_stats(state: State) -> CacheStats:
    """How much room the models take on disk."""
    return state.models.cache_stats()


@routes.get("/download/{task}", response_class=EventSourceResponse, responses=DOWNLOAD)
@routes.post("/download/{task}", response_class=EventSourceResponse, responses=DOWNLOAD)
async def download(task: TaskKey, request: Request, state: State, last_event_id: sse.LastEventId = None) -> Response:
    """Fetch what the task needs and tell the progress; everybody who asks shares one download."""
    if wants_head_only(request):
        catalogue.task_of(task)  # raises UnknownTask
        return sse.event_stream(sse.no_events())
    if last_event_id:
        known = state.models.known_download(task)
        if known is None or sse.heard_last(last_event_id):
            return sse.nothing_more()
        return sse.event_stream(_events(known))
    return sse.event_stream(_events(await run_in_threadpool(state.models.download, task)))


@routes.delete("/download/{task}", responses=describe_errors(errors.UnknownTask), response_model_exclude_none=True)
def cancel_download(task: TaskKey, state: State) -> SuccessAnswer:
    """Stop the task's download and keep the bytes for the next."""
    if state.models.cancel(task):
        return SuccessAnswer(success=True, message="The download was cancelled; what is there is kept.")
    nothing = NotFound("Nothing was being downloaded.", hint="Nothing needs to be done.")
    return SuccessAnswer(message=nothing.message, **error_keys(nothing))


@routes.delete("/all", include_in_schema=False)
@routes.delete("/cache-stats", include_in_schema=False)
@routes.delete("/status", include_in_schema=False)
async def refuse_delete() -> None:
    """These addresses have the form of a task's, but are answered to GET alone."""
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"})


@routes.delete(
    "/{task}",
    responses=describe_errors(errors.UnknownTask, errors.ModelInUse, errors.DiskFull),
    response_model_exclude_none=True,
)
def delete(task: TaskKey, state: State) -> DeletedAnswer:
    """Remove the task's models from disk."""
    deletion = state.models.delete(task)
    freed_space_mb = round(deletion.freed_bytes / 1e6, 1)
    if deletion.removed:
        return DeletedAnswer(success=True, message=_deletion_message(deletion), freed_space_mb=freed_space_mb)
    nothing = _nothing_deleted(deletion)
    return DeletedAnswer(message=nothing.message, freed_space_mb=freed_space_mb, **error_keys(nothing))


@routes.post(
    "/import/{task}",
    responses=describe_errors(
        errors.UnknownTask,
        errors.ModelInUse,
        errors.InputNotFound,
        errors.ForbiddenPath,
        errors.UnusableImport,
        errors.ModelMissing,
        errors.DiskFull,
    ),
)
async def import_weights(task: TaskKey, body: ImportBody, request: Request, state: State) -> ModelStatus:
    """Install weights that came by other means, verified like a download."""
    find = partial(_import_path, body.file_path, state.access.allowed_roots)
    path = await in_thread(find, request, state.path_checks)
    await run_in_threadpool(state.models.import_from, task, path)
    status = await run_in_threadpool(state.models.status, task)
    return replace(status, warnings=(*status.warnings, *body.warnings()))


@routes.post("/verify/{task}", responses=describe_errors(errors.UnknownTask, errors.ModelInUse, errors.DiskFull))
def verify(task: TaskKey, state: State) -> ModelStatus:
    """Compute every file's digest anew."""
    state.models.verify(task)
    return state.models.status(task)


def _import_path(text: str, roots: Sequence[pathlib.Path], report: Report) -> pathlib.Path:
    """`readable_path`, by the name that was given where that is no risk: it may be a link named as a dataset."""
    real = readable_path(text, roots, report)
    return real if roots else pathlib.Path(text)


def _deletion_message(deletion: Deletion) -> str:
    if not deletion.needed_by:
        return "The model was deleted." if deletion.removed else "There was nothing to delete."
    done = "A part of the model was deleted" if deletion.removed else "Nothing was deleted"
    needed_by = " and ".join(deletion.needed_by)
    return f"{done}: {needed_by} needs what stays. Delete {needed_by} first to free that too."


def _nothing_deleted(deletion: Deletion) -> OpenScansError:
    """Why ``deletion`` removed nothing, which is no failure."""
    message = _deletion_message(deletion)
    if deletion.needed_by:
        return errors.ModelInUse(message, hint=f"Delete {' and '.join(deletion.needed_by)} first.")
    return errors.ModelMissing(message, hint="Nothing needs to be done.")


async def _events(shared: DownloadTask) -> AsyncIterator[sse.Event]:
    async for snapshot in sse.states(shared, gap_s=EVENT_GAP_S):
        keys = DownloadEvent.model_validate(snapshot).model_dump(exclude_none=True)
        if snapshot.failure is not None:
            keys |= error_keys(snapshot.failure)
        yield sse.Event(shared.id, keys, last=snapshot.over)
