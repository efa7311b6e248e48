"""uvicorn, told when it has begun to listen and when it is about to end, and with an end to a caller's slowness.

Knows connections, bytes and timers; nothing of routes.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from openscans.errors import ForbiddenHost, InvalidRequest, OpenScansError
from openscans.server import error_responses
from openscans.server.middleware import LARGEST_HEAD_BYTES

GRACE_S = 1
"""Streams end themselves at once; connections that linger are cut after this, so that the exit takes under 3 s."""

REQUEST_S = 10.0
"""From the opening of the connection to the request's last byte. On one machine 256 kB take milliseconds."""

MOST_CONNECTIONS = 200
"""Some systems allow a process no more than 256 open files, and the log, models and pipes need some."""

NO_HOST = "Missing mandatory Host"
"""How h11 begins its sentence about a request without a Host header."""


class Server(uvicorn.Server):
    """``on_start`` is called once connections are answered, ``on_end`` while open streams can still be written to."""

    def __init__(self, app: ASGIApp, *, debug: bool, on_start: Callable[[], None], on_end: Callable[[], None]) -> None:
        # Without log_config uvicorn leaves logging as it is; its own formatter fails where there is no stdout.
        config = uvicorn.Config(
            app,
            http=Connection,
            h11_max_incomplete_event_size=LARGEST_HEAD_BYTES,
            log_config=None,
            # Named, or uvicorn would read what other servers' programs may have set in the environment.
            workers=1,
            forwarded_allow_ips="127.0.0.1,::1",
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


class Connection(H11Protocol):
    """HTTP over one connection: cut when a request takes too long to arrive, refused when there are too many."""

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, in the contract's form."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        answer = error_responses.error_response(_complaint(cast(h11.RemoteProtocolError, sys.exception())))
        headers = [*answer.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=answer.status_code, headers=headers),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """Let the time run while the rest of a request is awaited."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._rest()
        elif self._overdue is None:
            self._overdue = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _rest(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def _complaint(error: h11.RemoteProtocolError) -> OpenScansError:
    if str(error).startswith(NO_HOST):
        return ForbiddenHost("The request has no Host header.")
    return InvalidRequest("The request is not HTTP/1.1 as it should be, or its headers are too long.")
