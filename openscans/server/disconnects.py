"""What ends when a client leaves before its answer: whatever was awaited for it, and the look at a path of weights.

Knows requests, tasks and threads; nothing of what is done in them.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.requests import Request

from openscans.errors import Cancelled
from openscans.progress import Report

Value = TypeVar("Value")


async def while_connected(request: Request, work: Coroutine[Any, Any, Value]) -> Value:
    """What ``work`` returns. Raises Cancelled when the client of ``request``, whose body was read, leaves first."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_client_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Cancelled
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def in_thread(work: Callable[[Report], Value], request: Request, limiter: CapacityLimiter) -> Value:
    """What ``work`` returns, called in one of the threads that ``limiter`` allows.

    Raises Cancelled when the client of ``request``, whose body was read, leaves first. So does the `Report` that
    ``work`` is given; until it has ended it is one of those that are allowed.
    """
    left, waiting = threading.Event(), CancelScope()

    def report(_done: int, _total: int) -> None:
        if left.is_set():
            raise Cancelled

    async def heed() -> None:
        await _client_left(request)
        left.set()
        # It interrupts who waits for a thread, but not who has one.
        waiting.cancel()

    heeding = asyncio.ensure_future(heed())
    try:
        with waiting:
            return await to_thread.run_sync(work, report, limiter=limiter)
        raise Cancelled
    finally:
        left.set()
        heeding.cancel()


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
