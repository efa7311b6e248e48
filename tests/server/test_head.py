"""HEAD at every address that answers to GET: the same head, no body, and nothing begun."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live_server import LiveServer, live_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_OFFLINE": "1"}) as running:
        yield running


def described_gets(server: LiveServer) -> list[str]:
    paths = server.get("/openapi.json").json()["paths"]
    found = [path.format(task="vertebrae", job_id="none") for path, methods in paths.items() if "get" in methods]
    assert "/api/health" in found
    return [*found, "/openapi.json", "/api/nothing", "/api/models/status?task=none"]


VARIES = {"date", "content-length"}
"""Health's answer tells the time that has passed."""


def test_head_is_answered_wherever_get_is_with_the_same_head_and_no_body(server: LiveServer) -> None:
    with server.client() as client:
        for path in described_gets(server):
            head, get = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            told = [{name: one.headers[name] for name in one.headers if name not in VARIES} for one in (head, get)]
            assert told[0] == told[1], path
        assert client.head("/docs").headers["content-length"] == str(len(client.get("/docs").content))
        assert client.head("/api/models/download/none").status_code == 404


def test_head_is_named_among_the_methods_and_answered_to_no_post(server: LiveServer) -> None:
    with server.client() as client:
        assert client.request("PUT", "/api/health").headers["allow"] == "GET, HEAD"
        assert client.head("/api/detect-vertebrae").status_code == 405


def test_head_of_a_download_begins_none(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mirror:
        url = {"OPENSCANS_WEIGHTS_URL": f"http://127.0.0.1:{mirror.getsockname()[1]}"}
        with live_server(tmp_path, url) as server, server.client() as client:
            for task in ("vertebrae", "total_body"):
                answer = client.head(f"/api/models/download/{task}")
                assert (answer.status_code, answer.content) == (200, b"")
                assert answer.headers["content-type"].startswith("text/event-stream")
            assert {model["state"] for model in client.get("/api/models/status").json().values()} == {"absent"}
