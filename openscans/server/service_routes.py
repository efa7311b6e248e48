"""The service as a whole over HTTP: whether it is up, what it is, and where everything else is."""

import os
import platform
import time
from html import escape

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse

from openscans.server.openapi import describe_errors
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
    rows = "".join(
        f"<tr><td><code>{escape(where)}</code><td>{escape(what)}" for where, what in _addresses(request.app).items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><h1>{title} {version()}</h1>"
        f"<p>{escape(request.app.description)}<table>{rows}</table>"
        "<p>Requests and answers in full: <a href=/openapi.json>/openapi.json</a>"
    )


def _addresses(app: FastAPI) -> dict[str, str]:
    """ "GET /api/health" → what it does, for every route of the OpenAPI description."""
    return {
        f"{method.upper()} {path}": operation.get("description", "")
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    }
