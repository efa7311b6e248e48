"""The models over HTTP: what is there, downloads as streams, import, verify, delete.

Knows the models by their public functions; nothing of zips or folders. Plain functions, because each touches disk.
"""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, HTTPException
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from openscans.server import sse
from openscans.server.readable_path import readable_path
from openscans.server.schemas import (
    CacheStatsAnswer,
    DeletedAnswer,
    DownloadEvent,
    ImportBody,
    ModelStatusAnswer,
    SuccessAnswer,
)
from openscans.server.state import AppState, State
from openscans.weights.download_task import DownloadTask
from openscans.weights.status import Deletion

EVENT_GAP_S = 0.2
"""Five events a second at most; a download takes minutes."""

routes = APIRouter(prefix="/api/models", tags=["models"])


@routes.get("/status")
def status(state: State, task: str | None = None) -> dict[str, ModelStatusAnswer] | ModelStatusAnswer:
    """Every task's models, or those of one task."""
    if task is not None:
        return status_of(state, task)
    return every_status(state)


@routes.get("/all")
def every_status(state: State) -> dict[str, ModelStatusAnswer]:
    """Every task's models."""
    return {task: ModelStatusAnswer.model_validate(found) for task, found in state.models.statuses().items()}


@routes.get("/cache-stats")
def cache_stats(state: State) -> CacheStatsAnswer:
    """How much room the models take on disk."""
    return CacheStatsAnswer.model_validate(state.models.cache_stats())


@routes.get("/download/{task}")
@routes.post("/download/{task}")
async def download(task: str, state: State) -> EventSourceResponse:
    """Fetch what the task needs and tell the progress; everybody who asks shares one download."""
    shared = await run_in_threadpool(state.models.download, task)
    return sse.event_stream(_events(shared))


@routes.delete("/download/{task}")
def cancel_download(task: str, state: State) -> SuccessAnswer:
    """Stop the task's download and keep the bytes for the next."""
    stopped = state.models.cancel(task)
    return SuccessAnswer(
        success=stopped,
        message="The download was cancelled; what is there is kept." if stopped else "Nothing was being downloaded.",
    )


@routes.delete("/all", include_in_schema=False)
@routes.delete("/cache-stats", include_in_schema=False)
@routes.delete("/status", include_in_schema=False)
async def refuse_delete() -> None:
    """These addresses have the form of a task's, but are answered to GET alone."""
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"})


@routes.delete("/{task}")
def delete(task: str, state: State) -> DeletedAnswer:
    """Remove the task's models from disk."""
    deletion = state.models.delete(task)
    return DeletedAnswer(
        success=deletion.removed,
        message=_deletion_message(deletion),
        freed_space_mb=round(deletion.freed_bytes / 1e6, 1),
    )


@routes.post("/import/{task}")
def import_weights(task: str, body: ImportBody, state: State) -> ModelStatusAnswer:
    """Install weights that came by other means, verified like a download."""
    path = readable_path(body.file_path, state.access.allowed_roots)
    state.models.import_from(task, path)
    return status_of(state, task)


@routes.post("/verify/{task}")
def verify(task: str, state: State) -> ModelStatusAnswer:
    """Compute every file's digest anew."""
    state.models.verify(task)
    return status_of(state, task)


def status_of(state: AppState, task: str) -> ModelStatusAnswer:
    return ModelStatusAnswer.model_validate(state.models.status(task))


def _deletion_message(deletion: Deletion) -> str:
    if not deletion.needed_by:
        return "The model was deleted." if deletion.removed else "There was nothing to delete."
    done = "A part of the model was deleted" if deletion.removed else "Nothing was deleted"
    needed_by = " and ".join(deletion.needed_by)
    return f"{done}: {needed_by} needs what stays. Delete {needed_by} first to free that too."


async def _events(shared: DownloadTask) -> AsyncIterator[dict[str, Any]]:
    async for snapshot in sse.states(shared, gap_s=EVENT_GAP_S):
        yield DownloadEvent.model_validate(snapshot).model_dump(exclude_none=True)
