"""The service as a whole over HTTP: whether it is up, what it is, and where everything else is."""

import os
import platform
import time
from collections.abc import Mapping
from html import escape

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

from openscans.server.openapi import JSON, describe_errors
from openscans.server.schemas import HealthAnswer, IndexAnswer, JobCounts
from openscans.server.state import State
from openscans.version import version

routes = APIRouter(tags=["service"])


@routes.get("/api/health", responses=describe_errors())
async def health(state: State) -> HealthAnswer:
    """Whether the server is up, and what it is doing."""
    return HealthAnswer(
        version=version(),
        device=state.device,
        cuda_available=state.cuda_available,
        python_version=platform.python_version(),
        instance_id=state.instance_id,
        pid=os.getpid(),
        uptime_s=round(time.monotonic() - state.since_s, 1),
        worker=state.worker.state,
        engine=list(state.worker.networks),
        jobs=JobCounts(**state.jobs.counts()),
    )


@routes.get("/", responses=describe_errors())
async def index(request: Request) -> IndexAnswer:
    """What this is, and where everything else is."""
    return IndexAnswer(name=request.app.title, version=version(), addresses=_addresses(request.app))


@routes.get("/docs", response_class=HTMLResponse, responses=describe_errors())
async def docs(request: Request) -> str:
    """The same as a page for a person."""
    title = escape(request.app.title)
    parts = [_table(_addresses(request.app))]
    for where, keys in _request_keys(request.app).items():
        parts.append(f"<h2>Keys of <code>{escape(where)}</code></h2>{_table(keys)}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title} {version()}</h1>"
        f"<p>{escape(request.app.description)}{''.join(parts)}"
        "<p>Requests and answers in full: <a href=/openapi.json>/openapi.json</a>"
    )


def _table(rows: Mapping[str, str]) -> str:
    lines = "".join(f"<tr><td><code>{escape(name)}</code><td>{escape(text)}" for name, text in rows.items())
    return f"<table>{lines}</table>"


def _addresses(app: FastAPI) -> dict[str, str]:
    """ "GET /api/health" → what it does, for every route of the OpenAPI description."""
    return {
        f"{method.upper()} {path}": operation.get("description", "")
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    }


def _request_keys(app: FastAPI) -> dict[str, dict[str, str]]:
    """For every route that takes an object: its keys, and what each means."""
    described, found = app.openapi(), {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if "requestBody" in operation:
                shape = operation["requestBody"]["content"][JSON]["schema"]["$ref"].rpartition("/")[2]
                keys = described["components"]["schemas"][shape]["properties"]
                found[f"{method.upper()} {path}"] = {name: key["description"] for name, key in keys.items()}
    return found
