"""What the routes may call, made once when the server starts."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol, TypeAlias

from anyio import CapacityLimiter
from fastapi import Depends, Request

from openscans.jobs.detector import DetectionRequest
from openscans.jobs.queue import JobQueue
from openscans.server.access import AccessRules
from openscans.types import Detection, RunningNetwork, WorkerState
from openscans.weights.download_task import DownloadTask
from openscans.weights.status import CacheStats, Deletion, ModelStatus

PATH_CHECKS_AT_ONCE = 4
"""Paths of weights that are looked at, in threads that no other route needs: a disk may hang, as that of a server that
is gone does."""


class ModelStore(Protocol):
    """Which models are on disk, and who changes that. Errors as `openscans.errors.ModelError` and its kinds."""

    def status(self, key: str) -> ModelStatus: ...
    def statuses(self) -> Mapping[str, ModelStatus]: ...
    def cache_stats(self) -> CacheStats: ...
    def download(self, key: str) -> DownloadTask: ...
    def known_download(self, key: str) -> DownloadTask | None: ...
    def cancel(self, key: str) -> bool: ...
    def delete(self, key: str) -> Deletion: ...
    def import_from(self, key: str, path: Path) -> None: ...
    def verify(self, key: str) -> None: ...


class WorkerView(Protocol):
    """What can be seen of the process that runs the networks, at once."""

    @property
    def state(self) -> WorkerState: ...
    @property
    def networks(self) -> tuple[RunningNetwork, ...]: ...


@dataclass(frozen=True)
class AppState:
    """The rooms behind the routes. ``device`` and ``cuda_available`` are found out before the first request.

    ``path_checks`` are the threads in which paths of weights are looked at.
    """

    access: AccessRules
    models: ModelStore
    jobs: JobQueue[DetectionRequest, Detection]
    worker: WorkerView
    device: str
    cuda_available: bool
    instance_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    since_s: float = field(default_factory=time.monotonic)
    path_checks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(PATH_CHECKS_AT_ONCE))


async def _app_state(request: Request) -> AppState:
    # Not a plain function: every route would wait for a thread of the pool first.
    found: AppState = request.app.state.parts
    return found


State: TypeAlias = Annotated[AppState, Depends(_app_state)]
"""A route's parameter of this type is the state of the application that serves it."""
