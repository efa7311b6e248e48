"""What stands before the routes: who may call, what a page may read, how much one caller may ask for at a time.

Knows requests as they come in; nothing of what the routes do.
"""

from collections.abc import Callable

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openscans.errors import Busy, InvalidRequest, OpenScansError
from openscans.server import access, error_responses
from openscans.server.head_requests import HeadRequests

LARGEST_BODY_BYTES = 256 * 1024
"""Windows' longest path with every character escaped is 192 kB of JSON; nothing else in a request is long."""

LARGEST_HEAD_BYTES = 32 * 1024
"""Address and headers together; browsers send 2 kB, and a token may be long."""

MOST_AT_ONCE = 100
"""Requests that are being answered, open streams among them; a viewer has a handful."""

METHODS = ["GET", "HEAD", "POST", "DELETE"]
HEADERS = ["Authorization", "Content-Type"]

HEADERS_OF_LIBRARIES = [
    *("traceparent", "tracestate", "baggage", "sentry-trace", "b3", "uber-trace-id", "x-amzn-trace-id", "newrelic"),
    *(f"x-b3-{name}" for name in ("traceid", "spanid", "parentspanid", "sampled", "flags")),
    *(f"x-datadog-{name}" for name in ("trace-id", "parent-id", "origin", "sampling-priority", "tags")),
    *("request-id", "request-context", "x-request-id", "x-correlation-id", "x-requested-with"),
    *("cache-control", "pragma", "last-event-id"),
]
"""Tracing libraries and clients of event streams add these to every request of a page. Nothing is made of them."""


def protect(app: FastAPI, rules: access.AccessRules) -> None:
    """Put the gates before the routes. What is added last stands outermost and is asked first."""
    refuse = error_responses.error_response
    app.add_middleware(HeadRequests)
    app.add_middleware(Limits, refuse=refuse)
    if rules.token is not None:
        app.add_middleware(access.Gate, check=access.token_check(rules.token), refuse=refuse)
    # Outside the gates above, so that an allowed page may read their refusals too.
    app.add_middleware(
        Cors,
        allow_origin_regex=access.origins_pattern(rules.allowed_origins),
        allow_methods=METHODS,
        allow_headers=HEADERS + HEADERS_OF_LIBRARIES,
        # Browsers ask so before a page from elsewhere may call a server on this machine.
        allow_private_network=True,
    )
    app.add_middleware(access.Gate, check=access.origin_check(rules.allowed_origins), refuse=refuse)
    app.add_middleware(access.Gate, check=access.host_check(rules.host), refuse=refuse)


class Cors(CORSMiddleware):
    """Tells browsers what a page may do; a preflight for more than that is refused in the contract's form."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        refusal = error_responses.error_response(
            InvalidRequest(
                f"A page may use {', '.join(METHODS)} with the headers {', '.join(HEADERS)} and those of tracing."
            )
        )
        refusal.headers["Vary"] = answer.headers["Vary"]
        return refusal


class Limits:
    """ASGI middleware that bounds a request's size, and how many are answered at the same time."""

    def __init__(self, app: ASGIApp, *, refuse: Callable[[OpenScansError], ASGIApp]) -> None:
        self._app = app
        self._refuse = refuse
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await access.beside_requests(self._app, scope)(scope, receive, send)
            return
        # Who has not sent its request whole is no more than a connection, which is bounded by itself.
        try:
            body = await _whole_body(scope, receive)
        except InvalidRequest as error:
            await self._refuse(error)(scope, receive, send)
            return
        if body is not None:
            await self._answer(scope, _beginning_with(body, receive), send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Who started the server must see that it is up, however busy it is.
        if scope["path"] != access.OPEN_PATH and self._open >= MOST_AT_ONCE:
            await self._refuse(Busy(f"{self._open} requests are being answered already."))(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1


async def _whole_body(scope: Scope, receive: Receive) -> bytes | None:
    """None when the client has gone. Raises InvalidRequest for a request that is too large."""
    header_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
    # Not every web server tells the path as it came.
    path_bytes = len(scope.get("raw_path") or scope["path"].encode())
    if header_bytes + path_bytes + len(scope["query_string"]) > LARGEST_HEAD_BYTES:
        raise InvalidRequest(f"The request's headers are longer than {LARGEST_HEAD_BYTES} bytes.")
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > LARGEST_BODY_BYTES:
            raise InvalidRequest(f"The request's body is longer than {LARGEST_BODY_BYTES} bytes.")
    return bytes(body)


def _beginning_with(body: bytes, receive: Receive) -> Receive:
    """``receive`` as it was before ``body`` was read from it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
