"""Event streams: the states of a long task as they come, framed as server-sent events, with a ping where none comes.

Knows tasks as what can be read and subscribed to; nothing of what they do, nor of routes.

A browser's EventSource asks again whenever its stream has ended, with the id of the last event that it got in the
header Last-Event-ID. Who sends that header therefore starts nothing: it hears of what runs, or how that ended; and 204,
at which EventSource asks no more, once it has heard the end or nobody here knows of the task.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

import anyio
from fastapi import Header
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.background import BackgroundTask
from starlette.responses import Response

from openscans.progress import LongTask, State

PING_S = 10

FAREWELL_S = 1.0
"""Time for a stream's last event when the server ends, which it does in under 3 s."""

EVENT_GAP_S = 0.1
"""Ten events a second move a bar smoothly; what changes faster is told together."""


LAST = "last"

LastEventId: TypeAlias = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="The id of the last event of a stream that broke off or ended; with it nothing is started anew.",
    ),
]


@dataclass(frozen=True)
class Event:
    """``keys`` of the state of the task ``task_id``; after the ``last`` one there is no other."""

    task_id: str
    keys: Mapping[str, Any]
    last: bool


def heard_last(last_event_id: str) -> bool:
    """Whether it is the id of an event that ended its stream."""
    return last_event_id.endswith(f".{LAST}")


def task_of(last_event_id: str) -> str:
    """The id of the task that the event was of; anything, if it is no event's id."""
    return last_event_id.rpartition(".")[0]


def nothing_more() -> Response:
    """The answer at which EventSource asks no more."""
    return Response(status_code=HTTPStatus.NO_CONTENT)


def event_stream(events: AsyncIterator[Event], *, afterwards: Callable[[], None] | None = None) -> EventSourceResponse:
    """Send ``events`` as they come, and call ``afterwards`` when the last was sent or the client has gone."""
    return EventSourceResponse(
        _frame(events),
        ping=PING_S,
        ping_message_factory=lambda: ServerSentEvent(comment="still here", sep="\n"),
        sep="\n",
        background=BackgroundTask(_call, afterwards) if afterwards else None,
        # Without them the library cuts the stream off at shutdown, before its last event.
        shutdown_event=anyio.Event(),
        shutdown_grace_period=FAREWELL_S,
    )


async def no_events() -> AsyncIterator[Event]:
    """Of a stream of which only the head is asked for."""
    none: tuple[Event, ...] = ()
    for event in none:
        yield event


async def states(task: LongTask[State], *, gap_s: float) -> AsyncGenerator[State]:
    """Every state of ``task`` that the reader is in time for, none twice, and always the last.

    At most one in ``gap_s`` seconds, the last one excepted.
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    with task.subscribe(lambda: loop.call_soon_threadsafe(changed.set)):
        while not (told := task.snapshot()).over:
            yield told
            with suppress(TimeoutError):
                await asyncio.wait_for(_reach(lambda: task.snapshot().over, changed), gap_s)
            await _reach(lambda: task.snapshot() != told, changed)
        yield told


async def _reach(condition: Callable[[], bool], changed: asyncio.Event) -> None:
    """Wait until ``condition`` holds, which is looked at whenever something has ``changed``."""
    while not condition():
        changed.clear()
        await changed.wait()


async def _call(work: Callable[[], None]) -> None:
    """Call ``work``, which is short, here: the pool of threads may be full, and then nobody would hear of it."""
    work()


async def _frame(events: AsyncIterator[Event]) -> AsyncIterator[dict[str, str]]:
    count = 0
    async for event in events:
        count += 1
        data = json.dumps(event.keys, ensure_ascii=False, allow_nan=False)
        yield {"id": f"{event.task_id}.{LAST if event.last else count}", "data": data}
