"""What the routes may call, made once when the server starts."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from anyio import CapacityLimiter
from fastapi import Depends, Request

from config import Settings
from model_manager import Models
from openscans.jobs.detector import DetectionRequest
from openscans.jobs.queue import Jobs
from openscans.types import Detection

LOOKS_AT_ONCE = 4
"""Requests whose images are looked at, in threads that no other route needs. A disk is read no faster by more, and
where one hangs, as that of a server that is gone does, so do all that ask for its files."""


@dataclass(frozen=True)
class Activity:
    """What goes on behind the queue: the worker's state."""

    worker_state: Callable[[], str]


@dataclass(frozen=True)
class House:
    """The rooms behind the routes. ``device`` and ``cuda_available`` are found out before the first request.

    Who looks at an image asks ``looks`` for a thread.
    """

    settings: Settings
    models: Models
    jobs: Jobs[DetectionRequest, Detection]
    activity: Activity
    device: str
    cuda_available: bool
    instance_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    since_s: float = field(default_factory=time.monotonic)
    looks: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(LOOKS_AT_ONCE))


async def _of(request: Request) -> House:
    # Not a plain function: every route would wait for a thread of the pool first.
    house: House = request.app.state.house
    return house


HouseHere: TypeAlias = Annotated[House, Depends(_of)]
"""A route's parameter of this type is the house of the application that serves it."""
