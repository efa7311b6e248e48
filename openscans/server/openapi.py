"""The OpenAPI description, completed by what the framework cannot see: errors, event streams, links, the token.

Knows the routes by method and path, and the codes that each may answer with.
"""

from collections import defaultdict
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from openscans.server import access, error_responses
from openscans.server.schemas import DownloadEvent, ErrorAnswer, JobAnswer

JSON, EVENTS = "application/json", "text/event-stream"

EVERYWHERE = {"forbidden_host", "forbidden_origin", "invalid_request", "internal_error", "busy"}
"""A gate's refusal, a request too large, too many at once, what nobody foresaw: any route may answer so."""

PATH_CODES = {"file_not_found", "forbidden_path"}

IMAGE_CODES = {
    "corrupt_file",
    "inconsistent_geometry",
    "no_image",
    "several_volumes",
    "too_few_slices",
    "unsupported_file",
    "unsupported_modality",
    "unsupported_transfer_syntax",
}

MORE: dict[str, set[str]] = {
    "GET /api/models/status": {"unknown_task"},
    "GET /api/models/download/{task}": {"unknown_task"},
    "POST /api/models/download/{task}": {"unknown_task"},
    "DELETE /api/models/download/{task}": {"unknown_task"},
    "DELETE /api/models/{task}": {"unknown_task", "model_in_use"},
    "POST /api/models/import/{task}": PATH_CODES
    | {"unknown_task", "model_in_use", "model_missing", "corrupt_file", "disk_full"},
    "POST /api/models/verify/{task}": {"unknown_task", "model_in_use"},
    "POST /api/detect-vertebrae": PATH_CODES
    | IMAGE_CODES
    | {"unknown_task", "cancelled", "download_failed", "model_missing", "worker_crashed", "disk_full", "out_of_memory"},
    "GET /api/jobs/{job_id}": {"unknown_job"},
    "DELETE /api/jobs/{job_id}": {"unknown_job"},
}

STREAMS: dict[str, tuple[set[str], type[DownloadEvent] | type[JobAnswer]]] = {
    "GET /api/models/download/{task}": ({EVENTS}, DownloadEvent),
    "POST /api/models/download/{task}": ({EVENTS}, DownloadEvent),
    "POST /api/detect-vertebrae": ({JSON, EVENTS}, JobAnswer),
}
"""What a success is sent as, and what each event's data holds."""

UNUSED = ("HTTPValidationError", "ValidationError")
"""The framework's own form of a refusal, which never leaves this server."""


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
    models = found["components"]["schemas"]
    for name in UNUSED:
        models.pop(name, None)
    for model in (ErrorAnswer, DownloadEvent):
        shape = model.model_json_schema(ref_template="#/components/schemas/{model}")
        models |= shape.pop("$defs", {}) | {model.__name__: shape}
    operations = dict(_operations(found))
    for place, operation in operations.items():
        _add_errors(operation["responses"], EVERYWHERE | MORE.get(place, set()))
        if place in STREAMS:
            _add_stream(operation["responses"]["200"], *STREAMS[place])
    _add_links(operations)
    if with_token:
        _add_token(found, operations)
    return found


def _operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def _add_errors(responses: dict[str, Any], codes: set[str]) -> None:
    by_status = defaultdict(list)
    for code in sorted(codes):
        by_status[error_responses.STATUS_OF_CODE[code]].append(code)
    for status, own in sorted(by_status.items()):
        error = {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}
        shape = {"allOf": [error, {"type": "object", "properties": {"code": {"enum": own}}}]}
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": {JSON: {"schema": shape}}}


def _add_stream(success: dict[str, Any], types: set[str], event: type[DownloadEvent] | type[JobAnswer]) -> None:
    content = success["content"]
    data = {
        "type": "string",
        "contentMediaType": JSON,
        "contentSchema": {"$ref": f"#/components/schemas/{event.__name__}"},
    }
    content[EVENTS] = {"schema": {"type": "object", "properties": {"data": data}, "required": ["data"]}}
    success["content"] = {kind: shape for kind, shape in content.items() if kind in types}


def _add_links(operations: dict[str, dict[str, Any]]) -> None:
    """A detection's answer names its job."""
    links = operations["POST /api/detect-vertebrae"]["responses"]["200"].setdefault("links", {})
    for name in ("GET /api/jobs/{job_id}", "DELETE /api/jobs/{job_id}"):
        identifier = operations[name]["operationId"]
        links[identifier] = {"operationId": identifier, "parameters": {"job_id": "$response.body#/job_id"}}


def _add_token(description: dict[str, Any], operations: dict[str, dict[str, Any]]) -> None:
    description["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for place, operation in operations.items():
        if place != f"GET {access.OPEN_PATH}":
            operation["security"] = [{"token": []}]
            _add_errors(operation["responses"], {"unauthorized"})
