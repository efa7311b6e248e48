"""The API's description: how a route tells beside itself of its errors and its stream, and what belongs to no route.

Knows the form of errors and events, and which errors any route may answer with; of routes only those that links name.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, TypeAlias

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from openscans.errors import Busy, ForbiddenHost, ForbiddenOrigin, InvalidRequest, OpenScansError, Unauthorized
from openscans.server import access, schemas
from openscans.server.error_responses import status_of

JSON, EVENTS = "application/json", "text/event-stream"

PLACE = "#/components/schemas/{model}"
"""Where the description holds what is referred to."""

EVERYWHERE: tuple[type[OpenScansError], ...] = (ForbiddenHost, ForbiddenOrigin, InvalidRequest, OpenScansError, Busy)
"""A gate's refusal, a request too large, what nobody foresaw, too many at once: any route may answer so."""

Responses: TypeAlias = dict[int | str, dict[str, Any]]
"""What the framework takes as a route's ``responses``: by status, in OpenAPI's form."""


def describe_errors(*kinds: type[OpenScansError]) -> Responses:
    """For a route's ``responses``: it may answer with errors of these ``kinds``, beside those of `EVERYWHERE`."""
    codes: dict[int, set[str]] = defaultdict(set)
    for kind in (*EVERYWHERE, *kinds):
        codes[status_of(kind)].add(kind.code)
    return {status: _error(status, own) for status, own in sorted(codes.items())}


def describe_stream(event: type[BaseModel]) -> Responses:
    """For a route's ``responses``: its success may come as a stream of events whose data are each an ``event``."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": _refer_to(event)}
    shape = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {HTTPStatus.OK.value: {"content": {EVENTS: {"schema": shape}}}}


def describe_end_of_stream() -> Responses:
    """For a route's ``responses``: there is nothing more to hear for who asks again with the header Last-Event-ID."""
    return {HTTPStatus.NO_CONTENT.value: {"description": "Nothing more to hear after the event of Last-Event-ID."}}


def describe(app: FastAPI, *, with_token: bool) -> None:
    """Make ``app`` describe itself completely from now on."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app, with_token=with_token)
        return app.openapi_schema

    # The framework's documented place for it.
    app.openapi = described  # type: ignore[method-assign]


def _description(app: FastAPI, *, with_token: bool) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    operations = dict(_operations(found))
    _add_models(found)
    _add_links(operations)
    if with_token:
        _add_token(found, operations)
    return found


def _operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def _error(status: int, codes: set[str]) -> dict[str, Any]:
    own = {"type": "object", "properties": {"code": {"enum": sorted(codes)}}}
    shape = {"allOf": [_refer_to(schemas.ErrorAnswer), own]}
    return {"description": HTTPStatus(status).phrase, "content": {JSON: {"schema": shape}}}


def _refer_to(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": PLACE.format(model=model.__name__)}


def _add_models(description: dict[str, Any]) -> None:
    """Describe what errors and events alone refer to; the framework knows what whole answers hold."""
    models = description["components"]["schemas"]
    referred = re.findall(PLACE.format(model=r"(\w+)"), json.dumps(description["paths"]))
    for name in sorted(set(referred) - models.keys()):
        shape = getattr(schemas, name).model_json_schema(ref_template=PLACE)
        models |= shape.pop("$defs", {}) | {name: shape}


def _add_links(operations: dict[str, dict[str, Any]]) -> None:
    """A detection's answer names its job."""
    links = operations["POST /api/detect-vertebrae"]["responses"]["200"].setdefault("links", {})
    for name in ("GET /api/jobs/{job_id}", "DELETE /api/jobs/{job_id}"):
        identifier = operations[name]["operationId"]
        links[identifier] = {"operationId": identifier, "parameters": {"job_id": "$response.body#/job_id"}}


def _add_token(description: dict[str, Any], operations: dict[str, dict[str, Any]]) -> None:
    description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    status = status_of(Unauthorized)
    for place, operation in operations.items():
        if place != f"GET {access.OPEN_PATH}":
            operation["security"] = [{"token": []}]
            operation["responses"][str(status)] = _error(status, {Unauthorized.code})
