"""uvicorn, told when it has begun to listen and when it is about to end, and with an end to a caller's slowness.

Knows connections, bytes and timers; nothing of routes.

Who closes its side after a request (`nc -N`) may still read, or may be gone: TCP tells them apart only once something
is written. So its answer is gone on with, and until that begins, or its next event comes, what HTTP allows there is
written now and then: "100 Continue", or a comment of a stream. Who is gone makes that fail, and its request is over.
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
from openscans.system.listeners import most_open_files

GRACE_S = 1
"""Streams end themselves at once; connections that linger are cut after this, so that the exit takes under 3 s."""

REQUEST_S = 10.0
"""From the opening of the connection to the request's last byte. On one machine 256 kB take milliseconds."""

KEEP_ALIVE_S = 320
"""Longer than clients keep a connection that they do not use (Chrome five minutes, Firefox 115 s, Go and Rust's hyper
90 s): who closes it first while the other is about to send loses that request. An idle one costs nobody anything, since
it is closed when its place is needed."""

MOST_CONNECTIONS = 200
"""Twice what is answered at a time. Some systems allow a process no more than 256 open files."""

MOST_PENDING = 2048
"""Connections that wait in the system to be accepted, and are no open files yet."""

OTHER_FILES = 40
"""Open files beside connections: streams, logs, locks, models, the worker's pipes."""

PROBE_S = 0.02
LONGEST_PROBE_S = 2.0
"""How soon something is written to who has closed its side, and how seldom in the end. Most answers come sooner."""

OLD_CLIENT_S = 2.0
"""HTTP/1.0 knows nothing that could be written before an answer; a client of that age is taken for gone after this."""

EVENTS, STILL_HERE = b"text/event-stream", b": still here\n\n"

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
            timeout_keep_alive=KEEP_ALIVE_S,
            # So many are accepted at once, three times before the first of them is looked at.
            backlog=max(most_connections() // 4, 1),
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
        for listener in sockets or ():
            # asyncio lets as many wait as it accepts at once; whom the system turns away tries again after a second.
            listener.listen(MOST_PENDING)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Not in the pool that requests share: it may be full.
        await asyncio.to_thread(self._on_end)
        await super().shutdown(sockets)

    def end(self) -> None:
        """Ask it to end, from any thread."""
        self.should_exit = True


class _Exchange(h11.Connection):
    """What is said on one connection, and whether the answer that is being sent is a stream of events."""

    sends_events = False

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """All that is sent comes by here."""
        if isinstance(event, h11.Response):
            kind = next((value for name, value in event.headers if name == b"content-type"), b"")
            self.sends_events = kind.startswith(EVENTS)
        return super().send_with_data_passthrough(event)


class Connection(H11Protocol):
    """HTTP over one connection: cut when a request takes too long to arrive, or when others need its place."""

    conn: _Exchange
    _overdue: asyncio.TimerHandle | None = None
    _probe: asyncio.TimerHandle | None = None
    _waits_since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.conn = _Exchange(h11.SERVER, LARGEST_HEAD_BYTES)
        super().connection_made(transport)
        self._waits_since_s = self.loop.time()
        self._watch()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open: the client sends no more, but its request may be whole."""
        if self._waits:
            return False
        self.cycle.keep_alive = False
        old = self.cycle.scope["http_version"] == "1.0"
        self._probe = self.loop.call_later(OLD_CLIENT_S if old else PROBE_S, self._touch, PROBE_S)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        if self._probe is not None:
            self._probe.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._waits_since_s = self.loop.time()
        super().on_response_complete()

    @property
    def _waits(self) -> bool:
        """Whether it is the client's turn: nothing is being answered, or its body has not come whole."""
        return self.cycle is None or self.cycle.response_complete or self.conn.their_state is h11.SEND_BODY

    def _make_room(self) -> None:
        """Cut the connection that has waited longest for its client, where there are too many.

        What is being answered stays, and so does the youngest while there is an older one: who calls now is served.
        """
        here = [one for one in cast(set[Connection], self.connections) if not one.transport.is_closing()]
        if len(here) > most_connections():
            min((one for one in here if one._waits), key=lambda one: one._waits_since_s).transport.abort()

    def _touch(self, wait_s: float) -> None:
        """Write something to who has closed its side; where that one is gone, the next write fails."""
        if self.conn.our_state is h11.SEND_RESPONSE:
            if self.cycle.scope["http_version"] == "1.0":
                self.transport.abort()
                return
            self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        elif self.conn.our_state is h11.SEND_BODY and self.conn.sends_events:
            self.transport.write(self.conn.send(h11.Data(data=STILL_HERE)) or b"")
        self._probe = self.loop.call_later(wait_s, self._touch, min(wait_s * 2, LONGEST_PROBE_S))

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


def most_connections() -> int:
    """How many connections there may be at the same time, with as many open files left for those that come at once."""
    files = most_open_files()
    return min(MOST_CONNECTIONS, max(files - OTHER_FILES, files // 2) // 2)


def _complaint(error: h11.RemoteProtocolError) -> OpenScansError:
    if str(error).startswith(NO_HOST):
        return ForbiddenHost("The request has no Host header.")
    return InvalidRequest("The request is not HTTP/1.1 as it should be, or its headers are too long.")
