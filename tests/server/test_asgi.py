"""The application under other ASGI servers than ours: those that tell it of their start and end, and of websockets."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient
from starlette.types import Message, Scope
from starlette.websockets import WebSocketDisconnect

from config import Settings
from main import build_parts, build_state
from openscans.server import access, create_app, error_responses
from openscans.server.middleware import Limits
from tests.live_server import eventually

OWN = "http://localhost"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[FastAPI]:
    settings = Settings.from_env({"OPENSCANS_HOME": str(tmp_path), "OPENSCANS_TOKEN": "s3cret"})
    parts = build_parts(settings)
    yield create_app(build_state(settings, parts))
    parts.close()


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of ``app`` under uvicorn as it comes, but for a failing start, which it would pass over."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert eventually(lambda: server.started or not thread.is_alive())
        assert server.started
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_a_server_that_tells_of_its_start_and_end_runs_it(app: FastAPI) -> None:
    with served(app) as url:
        assert httpx.get(f"{url}/api/health", trust_env=False).status_code == 200


def test_the_frameworks_own_client_runs_it_with_its_start_and_end(app: FastAPI) -> None:
    with TestClient(app, base_url=OWN) as client:
        assert client.get("/api/health").json()["status"] == "healthy"


@pytest.mark.parametrize("path", ["/", "/api/health", "/nowhere"])
@pytest.mark.parametrize("host", [OWN, "http://elsewhere.example"])
def test_a_websocket_is_closed_before_it_is_accepted(app: FastAPI, host: str, path: str) -> None:
    client = TestClient(app, base_url=host, headers={"Authorization": "Bearer s3cret"})
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
        pass


@pytest.mark.parametrize(
    "gate", [Limits, partial(access.Gate, check=access.host_check("localhost"))], ids=["limits", "gate"]
)
def test_each_gate_by_itself_keeps_websockets_from_the_routes(gate: Any) -> None:
    async def routes(*_: object) -> None:
        raise AssertionError("It came through.")

    sent = said_by(
        gate(routes, refuse=error_responses.error_response), {"type": "websocket", "path": "/", "headers": []}
    )
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_a_server_that_does_not_tell_the_path_as_it_came_is_served(app: FastAPI) -> None:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/health",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    assert said_by(app, scope)[0]["status"] == 200


def said_by(app: Any, scope: Scope) -> list[Message]:
    """What ``app`` sends to one that has nothing more to say."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent
