"""How errors and events leave the server: the one table from error classes to HTTP statuses, and SSE framing.

Knows HTTP; nothing of what the routes do.
"""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, Event, to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from openscans import errors
from openscans.errors import Cancelled, InvalidRequest, MethodNotAllowed, NotFound, OpenScansError
from openscans.progress import Report
from openscans.server.schemas import ErrorAnswer

Value = TypeVar("Value")

STATUS: dict[type[OpenScansError], int] = {
    OpenScansError: 500,
    Cancelled: 409,
    InvalidRequest: 422,
    NotFound: 404,
    MethodNotAllowed: 405,
    errors.InputNotFound: 404,
    errors.ForbiddenPath: 403,
    errors.ForbiddenHost: 403,
    errors.ForbiddenOrigin: 403,
    errors.VolumeError: 422,
    errors.UnsupportedFile: 415,
    errors.UnsupportedTransferSyntax: 415,
    errors.ModelError: 500,
    errors.UnknownTask: 404,
    errors.ModelMissing: 503,
    errors.UnusableImport: 422,
    errors.ModelInUse: 409,
    errors.DownloadFailed: 502,
    errors.UnknownJob: 404,
    errors.Busy: 503,
    errors.WorkerCrashed: 500,
    errors.OutOfMemory: 507,
    errors.DiskFull: 507,
    errors.Unauthorized: 401,
}
"""A class that is not named here has the status of its nearest ancestor that is."""

PARAMETER = re.compile(r"\{\w+\}")
"""In a route's address."""

UNFORESEEN = "Something went wrong in the server that was not foreseen."

RETRY_AFTER_S = 5
"""About one detection on two cores: then there is a place in the queue."""

PING_S = 10

FAREWELL_S = 1.0
"""Time for a stream's last event when the server ends, which it does in under 3 s."""

EVENT_GAP_S = 0.1
"""Ten events a second move a bar smoothly; what changes faster is told together."""


def _kinds(kind: type[OpenScansError]) -> Iterator[type[OpenScansError]]:
    # A wrong setting is an error too, but ends the program before there is anybody to tell.
    if kind.__module__ == errors.__name__:
        yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def status_of(kind: type[OpenScansError]) -> int:
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


STATUS_OF_CODE = {kind.code: status_of(kind) for kind in _kinds(OpenScansError)}


def error_keys(error: OpenScansError) -> dict[str, str]:
    """What an event says of the error that ends it."""
    return {"error": error.message, "code": error.code, "hint": error.hint}


def error_response(error: OpenScansError) -> Response:
    body = ErrorAnswer(error=error.message, detail=error.message, code=error.code, hint=error.hint)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, errors.Busy) else None
    return JSONResponse(body.model_dump(), status_of(type(error)), headers)


def answer_errors(app: FastAPI) -> None:
    """Give every error that can leave a route, and every route that is not there, the contract's shape."""
    app.add_exception_handler(OpenScansError, _on_own_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_framework_error)
    app.add_exception_handler(Exception, _on_unforeseen_error)


async def _on_own_error(_: Request, error: Exception) -> Response:
    return error_response(error if isinstance(error, OpenScansError) else OpenScansError(UNFORESEEN))


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    if request.method == "POST" and "json" not in request.headers.get("content-type", ""):
        return error_response(InvalidRequest("Send a JSON object with the header Content-Type: application/json."))
    found = error.errors() if isinstance(error, RequestValidationError) else []
    # Never the values themselves: a path may hold a patient's name.
    sentences = [f"{_place(entry['loc'])}: {entry['msg']}" for entry in found[:3]]
    return error_response(InvalidRequest("; ".join(sentences) or "The request cannot be understood."))


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location[1:] if isinstance(part, str)) or str(location[0])


async def _on_framework_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    if status == HTTPStatus.NOT_FOUND:
        return error_response(NotFound("There is nothing at this address."))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        response = error_response(MethodNotAllowed(f"This address does not answer to {request.method}."))
        response.headers["Allow"] = ", ".join(_methods_at(request)) or (getattr(error, "headers", None) or {})["Allow"]
        return response
    return error_response(InvalidRequest("The request cannot be understood."))


def _methods_at(request: Request) -> list[str]:
    """All methods that are answered at the request's address; the framework knows those of one route alone."""
    paths, here = request.app.openapi()["paths"], request.scope["path"]
    same = [here] if here in paths else [path for path in paths if re.fullmatch(PARAMETER.sub("[^/]+", path), here)]
    return sorted({method.upper() for path in same for method in paths[path]})


async def _on_unforeseen_error(_: Request, __: Exception) -> Response:
    # Starlette raises the error again after this answer, and uvicorn logs it.
    return error_response(OpenScansError(UNFORESEEN))


def event_stream(
    events: AsyncIterator[Mapping[str, Any]], *, afterwards: Callable[[], None] | None = None
) -> EventSourceResponse:
    """Send ``events`` as they come, and call ``afterwards`` when the last was sent or the client has gone."""
    return EventSourceResponse(
        _framed(events),
        ping=PING_S,
        ping_message_factory=lambda: ServerSentEvent(comment="still here", sep="\n"),
        sep="\n",
        background=BackgroundTask(_called, afterwards) if afterwards else None,
        # Without them the library cuts the stream off at shutdown, before its last event.
        shutdown_event=Event(),
        shutdown_grace_period=FAREWELL_S,
    )


async def _called(work: Callable[[], None]) -> None:
    """Call ``work``, which is short, here: the pool of threads may be full, and then nobody would hear of it."""
    work()


async def _framed(events: AsyncIterator[Mapping[str, Any]]) -> AsyncIterator[dict[str, str]]:
    async for event in events:
        yield {"data": json.dumps(event, ensure_ascii=False, allow_nan=False)}


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
