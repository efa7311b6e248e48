"""How much one caller may ask for: sizes, time, connections, streams; over plain sockets against a real server."""

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from openscans.server.middleware import LARGEST_BODY_BYTES, LARGEST_HEAD_BYTES, MOST_AT_ONCE
from openscans.server.uvicorn_server import MOST_CONNECTIONS, REQUEST_S
from tests.live_server import LiveServer, eventually, live_server

SCRIPTED = ("-m", "tests.scripted_server")

POST = b"POST /api/detect-vertebrae HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
STREAM = POST + b"Accept: text/event-stream\r\n"
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"

MANY = 260


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), program=SCRIPTED) as running:
        yield running


def connection_to(server: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=30)


def answer_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    response = HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def assert_invalid(connection: socket.socket) -> None:
    status, body = answer_on(connection)
    assert (status, body["code"]) == (422, "invalid_request")
    assert set(body) == {"success", "error", "detail", "code", "hint"}


def is_up(server: LiveServer) -> bool:
    return server.get("/api/health").status_code == 200


def test_a_body_up_to_the_limit_is_read_and_one_byte_more_is_refused(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "fine").touch()
    body = json.dumps({"file_path": str(tmp_path / "fine"), "more": ""}).encode()
    for spare, status in ((0, 200), (1, 422)):
        padded = body.replace(b'""', b'"' + b" " * (LARGEST_BODY_BYTES - len(body) + spare) + b'"')
        with connection_to(server) as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(padded) + padded)
            assert answer_on(connection)[0] == status


def test_a_body_that_does_not_say_how_long_it_is_ends_at_the_limit_too(server: LiveServer) -> None:
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with connection_to(server) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 5)
        assert_invalid(connection)
    assert is_up(server)


@pytest.mark.parametrize("head", [b"GET /api/health HTTP/1.1\r\nX: %s\r\n", b"GET /api/health?%s HTTP/1.1\r\n"])
@pytest.mark.parametrize("ends", [True, False], ids=["at once", "without end"])
def test_a_head_that_is_too_long_is_refused(server: LiveServer, head: bytes, ends: bool) -> None:
    whole = head % (b"x" * LARGEST_HEAD_BYTES) + b"Host: localhost\r\n\r\n"
    with connection_to(server) as connection:
        connection.sendall(whole if ends else whole[: LARGEST_HEAD_BYTES + 1])
        assert_invalid(connection)


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n", b"\0" * 100]
)
def test_what_is_no_http_is_answered_in_the_contracts_form(server: LiveServer, garbage: bytes) -> None:
    with connection_to(server) as connection:
        connection.sendall(garbage + b"\r\n\r\n")
        assert_invalid(connection)


def test_a_body_that_turns_to_garbage_after_its_answer_closes_the_connection(server: LiveServer) -> None:
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with connection_to(server) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + piece * 5)
        assert_invalid(connection)
        connection.sendall(b"no length\r\n\r\n")
        assert ends(connection, within_s=5)
    assert is_up(server)
    assert not [line for line in server.errors if "data_received" in line]


def ends(connection: socket.socket, *, within_s: float) -> bool:
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_request_that_takes_too_long_to_arrive_is_cut_but_not_its_answer(server: LiveServer, tmp_path: Path) -> None:
    """One that says nothing, a head and a body that go on byte by byte; beside them a stream that lasts longer."""
    (tmp_path / "long").touch()
    began_s = time.monotonic()
    with (
        server.detection_events(tmp_path / "long") as events,
        connection_to(server) as silent,
        connection_to(server) as head,
        connection_to(server) as body,
    ):
        head.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX: ")
        body.sendall(POST + b"Content-Length: 1000\r\n\r\n")
        while time.monotonic() < began_s + REQUEST_S - 1:
            for slow in (head, body):
                slow.sendall(b" ")
                assert not ends(slow, within_s=0.25)
        for cut in (silent, head, body):
            assert ends(cut, within_s=5)
        assert REQUEST_S - 1 < time.monotonic() - began_s < REQUEST_S + 3
        for event in events:
            assert event["status"] not in {"error", "cancelled"}
            if time.monotonic() > began_s + REQUEST_S + 0.5:
                break
    assert is_up(server)


def test_beyond_a_number_of_open_streams_the_answer_is_busy_but_health_answers(
    server: LiveServer, tmp_path: Path
) -> None:
    (tmp_path / "long").touch()
    body = json.dumps({"file_path": str(tmp_path / "long")}).encode()
    request = STREAM + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert eventually(lambda: server.get("/api/health").json()["jobs"]["running"] == 0)
    with ExitStack() as open_streams:
        streams = [open_streams.enter_context(connection_to(server)) for _ in range(MOST_AT_ONCE)]
        for stream in streams:
            stream.sendall(request)
        for stream in streams:
            assert stream.recv(15) == b"HTTP/1.1 200 OK"
        refused = server.detect(tmp_path / "long")
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert int(refused.headers["Retry-After"]) > 0
        assert is_up(server)
    assert eventually(lambda: server.get("/api/jobs").status_code == 200)


WAITING = {
    "silent": b"",
    "half a head": b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX: ",
    "no body": POST + b"Content-Length: 1000\r\n\r\n",
    "kept after an answer": HEALTH,
}


@pytest.mark.parametrize("sent", WAITING.values(), ids=WAITING)
def test_connections_that_wait_keep_nobody_out_and_the_oldest_go_first(
    server: LiveServer, tmp_path: Path, sent: bytes
) -> None:
    (tmp_path / "fine").touch()
    (tmp_path / "long").touch()
    with server.detection_events(tmp_path / "long") as events, ExitStack() as open_connections:
        waiting = [open_connections.enter_context(connection_to(server)) for _ in range(MANY)]
        for connection in waiting:
            with suppress(ConnectionError):
                connection.sendall(sent)
            if sent == HEALTH:
                with suppress(ConnectionError, HTTPException):
                    answer_on(connection)
        for _ in range(20):
            assert answers(server)
        assert server.post("/api/exports", {}).status_code == 404
        assert server.get("/api/models/status").status_code == 200
        assert ends(waiting[0], within_s=5)
        # What is being answered is none of those that wait.
        assert [next(events)["status"] for _ in range(3)][-1] not in {"error", "cancelled"}
    assert server.detect(tmp_path / "fine").status_code == 200


def test_what_waits_longest_is_cut_and_not_what_came_last(server: LiveServer) -> None:
    with ExitStack() as open_connections:
        waiting = [open_connections.enter_context(connection_to(server)) for _ in range(MOST_CONNECTIONS + 10)]
        assert all(ends(connection, within_s=5) for connection in waiting[:10])
        last = waiting[-1]
        last.sendall(HEALTH)
        assert answer_on(last)[0] == 200
    assert is_up(server)


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")

FEW_FILES = {"a soft limit": 'ulimit -Sn 64 && exec "$@"', "a hard limit": 'ulimit -n 64 && exec "$@"'}


@POSIX
@pytest.mark.parametrize("limit", FEW_FILES.values(), ids=FEW_FILES)
def test_where_few_files_may_be_open_many_connections_keep_nobody_out(tmp_path: Path, limit: str) -> None:
    (tmp_path / "fine").touch()
    limited = ("-c", limit, "sh", sys.executable, *SCRIPTED)
    with (
        live_server(tmp_path / "home", interpreter=Path("/bin/sh"), program=limited) as server,
        ExitStack() as open_connections,
    ):
        for _ in range(80):
            open_connections.enter_context(connection_to(server))
        for _ in range(20):
            assert answers(server)
        assert server.detect(tmp_path / "fine").status_code == 200
        assert not [line for line in server.errors if "out of system resource" in line]


def answers(server: LiveServer) -> bool:
    with connection_to(server) as connection:
        try:
            connection.sendall(HEALTH)
            return answer_on(connection)[0] == 200
        except (ConnectionError, HTTPException):
            return False
