"""How errors leave the server: the one table from error classes to HTTP statuses, and the contract's form of them.

Knows HTTP; nothing of what the routes do.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from openscans import errors
from openscans.errors import Cancelled, InvalidRequest, MethodNotAllowed, NotFound, OpenScansError
from openscans.server import unknown_keys
from openscans.server.schemas import ErrorAnswer
from openscans.system.program import RUNNING

STATUS: dict[type[OpenScansError], int] = {
    OpenScansError: 500,
    Cancelled: 409,
    InvalidRequest: 422,
    NotFound: 404,
    MethodNotAllowed: 405,
    errors.InputNotFound: 404,
    errors.UnknownSeries: 404,
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

NO_THREAD = "can't start new thread"
"""What Python says where a route, or the work that it waits for, needs a thread and the system has none left."""

RETRY_AFTER_S = 5
"""About one detection on two cores: then there is a place in the queue."""


def status_of(kind: type[OpenScansError]) -> int:
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def error_keys(error: OpenScansError) -> dict[str, Any]:
    """What every answer and event says of the error that ends it."""
    return ErrorAnswer(error=error.message, detail=error.message, code=error.code, hint=error.hint).model_dump()


def error_response(error: OpenScansError) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, errors.Busy) else None
    return JSONResponse(error_keys(error), status_of(type(error)), headers)


def answer_errors(app: FastAPI) -> None:
    """Give every error that can leave a route, and every route that is not there, the contract's shape."""
    app.add_exception_handler(OpenScansError, _on_own_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_framework_error)
    app.add_exception_handler(RuntimeError, _on_runtime_error)
    app.add_exception_handler(Exception, _on_unforeseen_error)


async def _on_own_error(_: Request, error: Exception) -> Response:
    return error_response(error if isinstance(error, OpenScansError) else await _unforeseen())


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    if request.method == "POST" and "json" not in request.headers.get("content-type", ""):
        return error_response(InvalidRequest("Send a JSON object with the header Content-Type: application/json."))
    found = error.errors() if isinstance(error, RequestValidationError) else []
    # Never the values themselves: a path may hold a patient's name.
    sentences = [f"{_place(entry['loc'])}: {entry['msg']}{_suggestion(entry)}" for entry in found[:3]]
    return error_response(InvalidRequest("; ".join(sentences) or "The request cannot be understood."))


def _suggestion(entry: Mapping[str, Any]) -> str:
    """What may have been meant for a key of the body that is missing."""
    if entry["type"] != "missing" or not isinstance(entry["input"], dict):
        return ""
    question = unknown_keys.suggest(str(entry["loc"][-1]), entry["input"])
    return "" if question is None else f" ({question})"


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
    found = {method.upper() for path in same for method in paths[path]}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


async def _on_runtime_error(_: Request, error: Exception) -> Response:
    if str(error) != NO_THREAD:
        raise error
    return error_response(errors.Busy("The system has no threads left."))


async def _on_unforeseen_error(_: Request, __: Exception) -> Response:
    # Starlette raises the error again after this answer, and uvicorn logs it.
    return error_response(await _unforeseen())


async def _unforeseen() -> OpenScansError:
    # It looks at the program's files, which may lie on a disk that hangs.
    return await run_in_threadpool(RUNNING.unforeseen, UNFORESEEN)
