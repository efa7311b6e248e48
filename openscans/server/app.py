"""The web application: its routes, what stands before them, how its errors look, and its description."""

from fastapi import FastAPI

from openscans.server import detection_routes, error_responses, middleware, model_routes, openapi, service_routes
from openscans.server.state import AppState
from openscans.version import version

TITLE = "OpenScans AI Backend"


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
    for part in (service_routes.routes, model_routes.routes, detection_routes.routes):
        app.include_router(part)
    error_responses.answer_errors(app)
    middleware.protect(app, parts.access)
    openapi.describe(app, with_token=parts.access.token is not None)
    return app
