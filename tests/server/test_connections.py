"""Connections as clients of every kind keep them: by both loopback addresses, for long, half closed."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from openscans.server.uvicorn_server import OLD_CLIENT_S, PROBE_S, STILL_HERE, Server
from tests.live_server import LiveServer, eventually, live_server
from tests.server.test_limits import POST, STREAM, answer_on, connection_to, ends

SCRIPTED = ("-m", "tests.scripted_server")

UVICORNS_OWN_S = 5.0
"""After which it closes a connection that nobody uses, unless told otherwise."""

GET = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"


def has_ipv6_loopback() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6_loopback(), reason="this machine has no ::1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_OFFLINE": "1"}, program=SCRIPTED) as running:
        yield running


def port_of(server: LiveServer) -> int:
    return int(server.url.rsplit(":", 1)[1])


def health_at(address: str, port: int) -> dict[str, Any]:
    url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    found: dict[str, Any] = httpx.get(f"{url}/api/health", trust_env=False).json()
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@needs_ipv6
@pytest.mark.parametrize("host", [{}, {"HOST": "localhost"}], ids=["by default", "as localhost"])
@pytest.mark.parametrize("port", ["free", "named"])
def test_both_loopback_addresses_are_listened_to_on_one_port(tmp_path: Path, host: dict[str, str], port: str) -> None:
    named = {"PORT": str(free_port())} if port == "named" else {}
    with live_server(tmp_path, host | named) as server:
        found = {health_at(address, port_of(server))["instance_id"] for address in ("127.0.0.1", "::1", "localhost")}
        assert len(found) == 1
        assert server.output == [f"LISTENING http://127.0.0.1:{port_of(server)}"]


@needs_ipv6
def test_an_address_that_was_asked_for_is_the_only_one(tmp_path: Path) -> None:
    with live_server(tmp_path, {"HOST": "::1"}) as server:
        assert server.url.startswith("http://[::1]:")
        assert server.get("/api/health").status_code == 200
        with pytest.raises(ConnectionRefusedError):
            connection_to(server)


@needs_ipv6
def test_where_another_has_the_port_at_the_second_address_the_first_is_served_and_the_log_tells(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = str(other.getsockname()[1])
        with live_server(tmp_path, {"PORT": port}) as server:
            assert server.url == f"http://127.0.0.1:{port}"
            assert server.get("/api/health").status_code == 200
            assert "::1 cannot be had" in (tmp_path / "logs" / "server.log").read_text(encoding="utf-8")


def test_a_connection_that_is_used_every_now_and_then_is_kept(server: LiveServer) -> None:
    """A client that asks every five seconds, as long as uvicorn waits by itself, would lose a request in five."""
    with connection_to(server) as connection:
        connection.sendall(GET % b"/api/health")
        assert answer_on(connection)[0] == 200
        assert not ends(connection, within_s=UVICORNS_OWN_S + 1.0)
        connection.sendall(GET % b"/api/health")
        assert answer_on(connection)[0] == 200


def half_closed(server: LiveServer, request: bytes) -> socket.socket:
    """A connection whose client has said all that it has to say."""
    connection = connection_to(server)
    connection.sendall(request)
    connection.shutdown(socket.SHUT_WR)
    return connection


def detection(image: Path, head: bytes = POST) -> bytes:
    image.touch()
    body = json.dumps({"file_path": str(image)}).encode()
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("path", [b"/api/health", b"/api/models/status", b"/docs", b"/api/nothing"])
def test_a_request_whose_client_closes_its_side_is_answered(server: LiveServer, path: bytes) -> None:
    with half_closed(server, GET % path) as connection:
        response = HTTPResponse(connection)
        response.begin()
        assert response.status == (404 if path == b"/api/nothing" else 200)
        assert len(response.read()) == int(response.headers["content-length"])
        assert ends(connection, within_s=5)


def test_a_detection_whose_client_closes_its_side_is_answered(server: LiveServer, tmp_path: Path) -> None:
    with half_closed(server, detection(tmp_path / "slow")) as connection:
        status, body = answer_on(connection)
        assert (status, body["success"]) == (200, True)
        assert ends(connection, within_s=5)


def test_a_stream_whose_client_closes_its_side_comes_whole(server: LiveServer, tmp_path: Path) -> None:
    with half_closed(server, detection(tmp_path / "slow", STREAM)) as connection:
        response = HTTPResponse(connection)
        response.begin()
        events = [json.loads(line[6:]) for line in response.read().split(b"\n") if line.startswith(b"data: ")]
    assert [event["status"] for event in events if "result" in event] == ["complete"]


@pytest.mark.parametrize("head", [POST, STREAM], ids=["answer", "stream"])
@pytest.mark.parametrize("first", ["half", "whole"])
def test_a_client_that_is_gone_cancels_its_detection_soon_also_if_it_closed_its_side_first(
    server: LiveServer, tmp_path: Path, head: bytes, first: str
) -> None:
    request = detection(tmp_path / "long", head)
    with half_closed(server, request) if first == "half" else connection_to(server) as connection:
        if first == "whole":
            connection.sendall(request)
        assert eventually(lambda: "segmenting" in states(server))
    assert eventually(lambda: set(states(server)) <= {"cancelled", "complete"}, within_s=5)


@contextmanager
def served(app: ASGIApp) -> Iterator[int]:
    """The port at which our web server answers for ``app``."""
    started = threading.Event()
    server = Server(app, debug=False, on_start=started.set, on_end=lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert started.wait(10)
            yield int(listener.getsockname()[1])
        finally:
            server.end()
            thread.join()


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
def test_into_an_answer_in_pieces_a_sign_of_life_is_written_where_it_is_a_stream_alone(kind: bytes) -> None:
    """The client, which asked for a stream, has closed its side; so signs come, as long as nothing else does."""

    async def answer_in_pieces(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        await asyncio.sleep(5 * PROBE_S)
        await send({"type": "http.response.body", "body": b"}"})

    with served(answer_in_pieces) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n") % b"/")
        connection.shutdown(socket.SHUT_WR)
        response = HTTPResponse(connection)
        response.begin()
        assert (STILL_HERE in response.read()) == (kind == b"text/event-stream")


def states(server: LiveServer) -> list[str]:
    return [job["status"] for job in server.get("/api/jobs").json()["jobs"]]


def test_of_a_client_that_knows_no_interim_answers_a_short_request_is_answered(
    server: LiveServer, tmp_path: Path
) -> None:
    with half_closed(server, GET.replace(b"1.1", b"1.0") % b"/api/health") as connection:
        assert answer_on(connection)[0] == 200
    with half_closed(server, detection(tmp_path / "long", POST.replace(b"1.1", b"1.0"))) as connection:
        assert ends(connection, within_s=OLD_CLIENT_S + 5)
    assert eventually(lambda: set(states(server)) <= {"cancelled", "complete"}, within_s=5)


def test_of_a_half_request_whose_client_closes_its_side_nothing_comes(server: LiveServer) -> None:
    for half in (b"", b"GET /api/health HTTP/1.1\r\nHost:", POST + b"Content-Length: 100\r\n\r\n{"):
        with half_closed(server, half) as connection:
            assert ends(connection, within_s=5)
