"""uvicorn, told when it has begun to listen and when it is about to end."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from openscans.server.connection import Connection
from openscans.server.middleware import LARGEST_HEAD_BYTES

GRACE_S = 1
"""Streams end themselves at once; connections that linger are cut after this, so that the exit takes under 3 s."""


class Server(uvicorn.Server):
    """``on_start`` is called once connections are answered, ``on_end`` while open streams can still be written to."""

    def __init__(self, app: ASGIApp, *, debug: bool, on_start: Callable[[], None], on_end: Callable[[], None]) -> None:
        # Without log_config uvicorn leaves logging as it is; its own formatter fails where there is no stdout.
        config = uvicorn.Config(
            app,
            http=Connection,
            h11_max_incomplete_event_size=LARGEST_HEAD_BYTES,
            log_config=None,
            access_log=debug,
            server_header=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._on_start = on_start
        self._on_end = on_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Not in the pool that requests share: it may be full.
        await asyncio.to_thread(self._on_end)
        await super().shutdown(sockets)

    def end(self) -> None:
        """Ask it to end, from any thread."""
        self.should_exit = True
