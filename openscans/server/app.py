"""The web application: its routes, who may call, and what a person sees who opens it in a browser.

Knows HTTP and the rooms behind it by their public functions; nothing of numpy, torch, DICOM, or locks.
"""

import os
import platform
import time
from html import escape
from http import HTTPStatus

from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from openscans.server import detection_routes, error_responses, middleware, model_routes, openapi
from openscans.server.schemas import HealthAnswer, IndexAnswer, JobCounts
from openscans.server.state import AppState, State
from openscans.version import version

TITLE = "OpenScans AI Backend"

routes = APIRouter(tags=["service"])


def create_app(parts: AppState) -> FastAPI:
    """The application over what is given; it owns nothing that must be ended."""
    app = FastAPI(
        title=TITLE,
        version=version(),
        description="Finds and labels the vertebrae of a CT or MR image. Not a medical device.",
        # The framework's pages load scripts from the internet; ours is at /docs.
        docs_url=None,
        redoc_url=None,
        # Newer versions of the framework can report to a collector that the environment names.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.parts = parts
    for part in (routes, model_routes.routes, detection_routes.routes):
        app.include_router(part)
    error_responses.answer_errors(app)
    middleware.protect(app, parts.access)
    openapi.describe(app, with_token=parts.access.token is not None)
    return app


@routes.get("/api/health")
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
        worker=state.worker_state(),
        jobs=JobCounts(**state.jobs.counts()),
    )


@routes.get("/")
async def index(request: Request) -> IndexAnswer:
    """What this is, and where everything else is."""
    return IndexAnswer(name=TITLE, version=version(), addresses=_addresses(request.app))


@routes.get("/docs", response_class=HTMLResponse)
async def docs(request: Request) -> str:
    """The same as a page for a person."""
    rows = "".join(
        f"<tr><td><code>{escape(where)}</code><td>{escape(what)}" for where, what in _addresses(request.app).items()
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{TITLE}</title><h1>{TITLE} {version()}</h1>"
        f"<p>{escape(request.app.description)}<table>{rows}</table>"
        "<p>Requests and answers in full: <a href=/openapi.json>/openapi.json</a>"
    )


@routes.delete("/api/models/all", include_in_schema=False)
@routes.delete("/api/models/cache-stats", include_in_schema=False)
@routes.delete("/api/models/status", include_in_schema=False)
async def no_task() -> None:
    """These addresses have the form of a task's, but are answered to GET alone."""
    raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET"})


def _addresses(app: FastAPI) -> dict[str, str]:
    """ "GET /api/health" → what it does, for every route of the OpenAPI description."""
    return {
        f"{method.upper()} {path}": operation.get("description", "")
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    }
