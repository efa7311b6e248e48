"""Event streams: the states of a long task as they come, framed as server-sent events, with a ping where none comes.

Knows tasks as what can be read and subscribed to; nothing of what they do, nor of routes.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from anyio import Event
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.background import BackgroundTask

from openscans.progress import LongTask, State

PING_S = 10

FAREWELL_S = 1.0
"""Time for a stream's last event when the server ends, which it does in under 3 s."""

EVENT_GAP_S = 0.1
"""Ten events a second move a bar smoothly; what changes faster is told together."""


def event_stream(
    events: AsyncIterator[Mapping[str, Any]], *, afterwards: Callable[[], None] | None = None
) -> EventSourceResponse:
    """Send ``events`` as they come, and call ``afterwards`` when the last was sent or the client has gone."""
    return EventSourceResponse(
        _frame(events),
        ping=PING_S,
        ping_message_factory=lambda: ServerSentEvent(comment="still here", sep="\n"),
        sep="\n",
        background=BackgroundTask(_call, afterwards) if afterwards else None,
        # Without them the library cuts the stream off at shutdown, before its last event.
        shutdown_event=Event(),
        shutdown_grace_period=FAREWELL_S,
    )


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


async def _frame(events: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[dict[str, str]]:
    async for event in events:
        yield {"data": json.dumps(event, ensure_ascii=False, allow_nan=False)}
