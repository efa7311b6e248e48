"""Host × Origin × token × route against real servers; every route stands in the service's own description.

Each request is written by hand, because a client would see to it that its headers are sound.
"""

import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from openscans.server.access import OPEN_PATH
from tests.live_server import LiveServer, live_server

TOKEN = "s3crét"
VIEWER = "https://viewer.example"
SETTINGS = {"OPENSCANS_OFFLINE": "1", "OPENSCANS_ALLOWED_ORIGINS": VIEWER}

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: Any

    @property
    def code(self) -> str | None:
        return self.content.get("code") if isinstance(self.content, dict) else None


def ask(server: LiveServer, method: str, path: str, headers: Headers) -> Answer:
    """What is answered to exactly these headers, over a connection of its own."""
    port = int(server.url.rsplit(":", 1)[1])
    lines = [f"{method} {path} HTTP/1.0", *(f"{name}: {value}" for name, value in headers), "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        response = HTTPResponse(connection, method=method)
        response.begin()
        body = response.read()
    is_json = response.headers.get_content_type() == "application/json"
    headers_back = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers_back, json.loads(body) if is_json else None)


@pytest.fixture(scope="module", params=[None, TOKEN], ids=["open", "with a token"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server and the token that it was started with."""
    env = SETTINGS | ({"OPENSCANS_TOKEN": request.param} if request.param else {})
    with live_server(tmp_path_factory.mktemp("home"), env) as server:
        yield server, request.param


def every_route(server: LiveServer, token: str | None) -> list[tuple[str, str]]:
    """Method and path of all that is described, and two that are not."""
    headers = [("Host", "localhost"), ("Authorization", f"Bearer {token}")]
    described = ask(server, "GET", "/openapi.json", headers).content
    routes = [
        (method.upper(), path.replace("{task}", "none").replace("{job_id}", "none"))
        for path, operations in described["paths"].items()
        for method in operations
    ]
    assert ("POST", "/api/detect-vertebrae") in routes
    return [*routes, ("GET", "/openapi.json"), ("GET", "/api/nothing")]


HOSTS: dict[str, bool] = {
    "localhost": True,
    "localhost:8000": True,
    "LOCALHOST:1": True,
    "127.0.0.1": True,
    "127.0.0.1:65535": True,
    "[::1]": True,
    "[::1]:8000": True,
    "": False,
    "evil.example": False,
    "evil.example:8000": False,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example": False,
    "evil.example@localhost": False,
    "localhost:8000:8000": False,
    "localhost:port": False,
    "0.0.0.0:8000": False,
    "192.168.1.5": False,
    "[::2]": False,
    "localhost, evil.example": False,
}

ORIGINS: dict[str, bool] = {
    "tauri://localhost": True,
    "http://tauri.localhost": True,
    "https://tauri.localhost": True,
    "http://localhost": True,
    "http://localhost:5173": True,
    "http://127.0.0.1:1420": True,
    VIEWER: True,
    "": False,
    "null": False,
    "https://evil.example": False,
    "https://localhost:5173": False,
    "http://localhost.evil.example": False,
    "http://xtauri.localhost": False,
    "https://viewerxexample": False,
    "https://viewer.example:8443": False,
    "http://localhost:5173/": False,
    "file://": False,
}

CALLERS: list[tuple[str, Headers, bool]] = [
    ("no page", (), True),
    ("an address typed by a person", (("Sec-Fetch-Site", "none"),), True),
    ("a page of the server's own", (("Sec-Fetch-Site", "same-origin"),), True),
    ("a picture in a page of another site", (("Sec-Fetch-Site", "cross-site"),), False),
    ("the application", (("Origin", "tauri://localhost"), ("Sec-Fetch-Site", "cross-site")), True),
    ("two origins", (("Origin", "tauri://localhost"), ("Origin", "https://evil.example")), False),
    *((f"origin {origin!r}", (("Origin", origin),), allowed) for origin, allowed in ORIGINS.items()),
]

TOKENS: list[tuple[Headers, bool]] = [
    ((("Authorization", f"Bearer {TOKEN}"),), True),
    ((("Authorization", f"bearer {TOKEN}"),), True),
    ((), False),
    ((("Authorization", "Bearer"),), False),
    ((("Authorization", f"Bearer {TOKEN}x"),), False),
    ((("Authorization", f"Basic {TOKEN}"),), False),
    ((("Authorization", "Bearer \u00ff\u20ac"),), False),
    ((("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")), False),
]

REFUSALS = {"forbidden_host", "forbidden_origin", "unauthorized"}


@pytest.mark.parametrize(("host", "allowed"), HOSTS.items())
def test_every_route_answers_only_to_names_of_this_machine(guarded: Any, host: str, allowed: bool) -> None:
    server, token = guarded
    for method, path in every_route(server, token):
        answer = ask(server, method, path, [("Host", host), ("Authorization", f"Bearer {token}")])
        assert (answer.status, answer.code) == (403, "forbidden_host") or (allowed and answer.code not in REFUSALS)
        assert (answer.code == "forbidden_host") is not allowed, (method, path)


@pytest.mark.parametrize(("origin", "allowed"), [caller[1:] for caller in CALLERS], ids=[name for name, *_ in CALLERS])
def test_every_route_answers_only_to_allowed_pages(guarded: Any, origin: Headers, allowed: bool) -> None:
    server, token = guarded
    for method, path in every_route(server, token):
        answer = ask(server, method, path, [("Host", "localhost"), ("Authorization", f"Bearer {token}"), *origin])
        assert (answer.code == "forbidden_origin") is not allowed, (method, path)
        assert answer.code not in REFUSALS - {"forbidden_origin"}


@pytest.mark.parametrize(("shown", "right"), TOKENS)
def test_every_route_but_health_asks_for_the_token(guarded: Any, shown: Headers, right: bool) -> None:
    server, token = guarded
    for method, path in every_route(server, token):
        answer = ask(server, method, path, [("Host", "localhost"), *shown])
        free = token is None or right or path == OPEN_PATH
        assert (answer.status, answer.code) == (401, "unauthorized") or free
        assert (answer.code == "unauthorized") is not free, (method, path)


def test_host_comes_before_origin_and_origin_before_the_token(guarded: Any) -> None:
    server, token = guarded
    evil = ("Origin", "https://evil.example")
    for method, path in every_route(server, token):
        assert ask(server, method, path, [("Host", "evil.example"), evil]).code == "forbidden_host"
        assert ask(server, method, path, [("Host", "localhost"), evil]).code == "forbidden_origin"


def test_a_request_with_no_host_or_with_two_is_refused(guarded: Any) -> None:
    server, _ = guarded
    assert ask(server, "GET", OPEN_PATH, []).code == "forbidden_host"
    for lines in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=30) as connection:
            connection.sendall(b"GET /api/health HTTP/1.1\r\n" + lines + b"\r\n")
            response = HTTPResponse(connection)
            response.begin()
            answer = json.loads(response.read())
        assert (response.status, answer["code"]) in {(403, "forbidden_host"), (422, "invalid_request")}
        assert set(answer) == {"success", "error", "detail", "code", "hint"}


@pytest.mark.parametrize(("origin", "allowed"), ORIGINS.items())
def test_only_allowed_pages_may_read_answers_and_none_sends_cookies(guarded: Any, origin: str, allowed: bool) -> None:
    server, _ = guarded
    # With a token, the answer to the second is a refusal, which an allowed page may read too.
    for path in (OPEN_PATH, "/api/jobs"):
        headers = ask(server, "GET", path, [("Host", "localhost"), ("Origin", origin)]).headers
        assert headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert "access-control-allow-credentials" not in headers


def preflight(server: LiveServer, origin: str, **more: str) -> Answer:
    headers = {"Host": "localhost", "Origin": origin, "Access-Control-Request-Method": "POST"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    return ask(server, "OPTIONS", "/api/detect-vertebrae", list(headers.items()))


def test_an_allowed_page_hears_before_it_calls_that_it_may_reach_this_machine(guarded: Any) -> None:
    answer = preflight(
        guarded[0],
        "tauri://localhost",
        Access_Control_Request_Private_Network="true",
        Access_Control_Request_Headers="authorization, content-type",
    )
    assert answer.status == 200
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert answer.headers["access-control-allow-origin"] == "tauri://localhost"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


TRACED = {
    "W3C and OpenTelemetry": "content-type,traceparent,tracestate,baggage",
    "Sentry": "baggage, content-type, sentry-trace",
    "B3": "b3,x-b3-traceid,x-b3-spanid,x-b3-parentspanid,x-b3-sampled,x-b3-flags",
    "Datadog": "x-datadog-origin,x-datadog-parent-id,x-datadog-sampling-priority,x-datadog-trace-id",
    "Application Insights": "request-id,request-context,traceparent",
    "a proxy's": "X-Request-ID, X-Correlation-ID, X-Amzn-Trace-Id",
    "an event stream's": "cache-control,last-event-id",
}


@pytest.mark.parametrize("headers", TRACED.values(), ids=TRACED)
def test_an_allowed_page_may_send_the_headers_that_its_libraries_add_and_no_other_page_may(
    guarded: Any, headers: str
) -> None:
    answer = preflight(guarded[0], "tauri://localhost", Access_Control_Request_Headers=headers)
    assert answer.status == 200
    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert {name.strip().lower() for name in headers.split(",")} <= allowed
    refused = preflight(guarded[0], "https://evil.example", Access_Control_Request_Headers=headers)
    assert (refused.status, refused.code) == (403, "forbidden_origin")


def test_other_pages_hear_nothing_of_the_kind(guarded: Any) -> None:
    answer = preflight(guarded[0], "https://evil.example", Access_Control_Request_Private_Network="true")
    assert (answer.status, answer.code) == (403, "forbidden_origin")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_preflight_for_more_than_a_page_may_do_is_refused_in_the_contracts_form(guarded: Any) -> None:
    answer = preflight(guarded[0], "tauri://localhost", Access_Control_Request_Headers="x-secret")
    assert (answer.status, answer.code) == (422, "invalid_request")
    assert "access-control-allow-origin" not in answer.headers


def test_an_address_that_was_asked_for_is_a_name_of_the_server(tmp_path: Path) -> None:
    with live_server(tmp_path, {"HOST": "127.0.0.2", "OPENSCANS_TOKEN": TOKEN}) as server:
        assert server.url.startswith("http://127.0.0.2:")
        assert server.get(OPEN_PATH).status_code == 200
        assert server.client().get(OPEN_PATH, headers={"Host": "127.0.0.3"}).status_code == 403


def test_on_every_address_the_one_that_was_reached_is_a_name_but_no_other(tmp_path: Path) -> None:
    with live_server(tmp_path, {"HOST": "0.0.0.0", "OPENSCANS_TOKEN": TOKEN}) as server, server.client() as client:
        elsewhere = server.url.replace("127.0.0.1", "127.0.0.9")
        assert client.get(elsewhere + OPEN_PATH).status_code == 200
        for host in ("evil.example", "127.0.0.8", "1.2.3.4"):
            assert client.get(elsewhere + OPEN_PATH, headers={"Host": host}).json()["code"] == "forbidden_host"


def test_a_token_that_is_no_text_does_not_stop_the_server(tmp_path: Path) -> None:
    with live_server(tmp_path, {"OPENSCANS_TOKEN": "\udcff\udcfe"}) as server, server.client() as client:
        right, wrong = (
            client.get("/api/jobs", headers={b"Authorization": b"Bearer " + end}) for end in (b"\xff\xfe", b"\xff")
        )
        assert (right.status_code, wrong.status_code) == (200, 401)
