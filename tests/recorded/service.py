"""What is asked of a server that has no models: every address, every refusal, who may call; and what a token changes.

Knows the HTTP contract; nothing of what models are.
"""

import json
import socket
from collections.abc import Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tests import bad_files
from tests.live_server import LiveServer
from tests.recorded import images, models
from tests.recorded.answers import DETECT, Recorder
from tests.recorded.program import RUN_S, TOKEN, Program, emptied

PAGE = "https://viewer.example"

BODIES: Mapping[str, bytes] = {
    "nothing": b"",
    "a list": b"[]",
    "half an object": b"{",
    "a text": b'"text"',
    "no UTF-8": b"\xff\xfe",
    "no path": b"{}",
    "empty path": b'{"file_path": ""}',
    "a number as path": b'{"file_path": 7}',
    "null as path": b'{"file_path": null}',
    "relative path": b'{"file_path": "relative/path"}',
    "NUL in the path": b'{"file_path": "/a\\u0000b"}',
    "half a character": b'{"file_path": "/\\ud800"}',
    "path too long": b'{"file_path": "/' + b"a" * 100_000 + b'"}',
    "path too long for the system": b'{"file_path": "/' + b"a" * 5000 + b'"}',
    "fast_mode": b'{"file_path": "/tmp", "fast_mode": "perhaps"}',
    "device": b'{"file_path": "/tmp", "device": "tpu"}',
    "series_uid": b'{"file_path": "/tmp", "series_uid": "1\\u0000"}',
    "long model": b'{"file_path": "/tmp", "model": "' + b"m" * 65 + b'"}',
    "many mistakes": b'{"fast_mode": "perhaps", "device": "tpu", "use_cache": 7, "model": 7}',
    "deep": b"[" * 100_000,
    "too large": b" " * 300_000,
}


def record_a_new_server(recorder: Recorder, program: Program) -> None:
    """One that never looks outwards and has no models yet, then gets them from disk."""
    with program.server("new", OPENSCANS_OFFLINE="1") as server:
        _service(recorder, server)
        _refused_requests(recorder, server)
        _refused_paths(recorder, server, program.folder / "paths")
        _pages(recorder, server)
        models.no_models(recorder, server, program.folder / "models")
        models.imports(recorder, server, program.folder / "models")
        recorder.keep("new server, ended by SIGTERM", {"exit": server.ask_to_end(), "stdout": server.output})


def _service(recorder: Recorder, server: LiveServer) -> None:
    for name, path in {"index": "/", "docs": "/docs", "health": "/api/health", "no jobs": "/api/jobs"}.items():
        recorder.ask(name, server, "GET", path)
    described = server.get("/openapi.json").json()
    recorder.keep("openapi", {key: value for key, value in described.items() if key in {"openapi", "info"}})
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            recorder.keep(f"openapi {method.upper()} {path}", _operation(operation))
    for path in (*described["paths"], "/openapi.json", "/api/nothing"):
        place = path.replace("{task}", "vertebrae").replace("{job_id}", "none")
        for method in ("PUT", "OPTIONS"):
            recorder.ask(f"method {method} {path}", server, method, place)
    for path in ("/api/health", "/api/models/all", "/api/models/status", "/api/models/cache-stats"):
        recorder.ask(f"method DELETE {path}", server, "DELETE", path)
    recorder.ask("method HEAD /api/health", server, "HEAD", "/api/health")
    recorder.ask("method GET /api/health/", server, "GET", "/api/health/")
    recorder.ask(f"method GET {DETECT}", server, "GET", DETECT)
    for method in ("GET", "DELETE"):
        recorder.ask(f"unknown job, {method}", server, method, "/api/jobs/none")


def _operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    """An operation of the description without its schemas."""
    told = {key: operation[key] for key in ("tags", "summary", "description", "operationId") if key in operation}
    parameters = operation.get("parameters", [])
    told["parameters"] = [f"{one['name']} in {one['in']}, required: {one['required']}" for one in parameters]
    told["request"] = [*operation.get("requestBody", {}).get("content", ())]
    told["responses"] = {status: _response(response) for status, response in operation["responses"].items()}
    return told


def _response(response: Mapping[str, Any]) -> list[str]:
    """Types of content, or the codes of an error."""
    codes = [
        code
        for content in response.get("content", {}).values()
        for part in content["schema"].get("allOf", ())
        for code in part.get("properties", {}).get("code", {}).get("enum", ())
    ]
    return codes or [*response.get("content", ())]


def _refused_requests(recorder: Recorder, server: LiveServer) -> None:
    as_json = {"Content-Type": "application/json"}
    for name, body in BODIES.items():
        recorder.ask(f"body: {name}", server, "POST", DETECT, content=body, headers=as_json)
    recorder.ask("body: a form", server, "POST", DETECT, data={"file_path": "/tmp"})
    recorder.ask("body: import without a path", server, "POST", "/api/models/import/vertebrae", {})
    recorder.ask("head too long", server, "GET", "/api/jobs", headers={"X-Long": "a" * 33_000})
    for name, lines in {"no host": "", "two hosts": "Host: localhost\r\nHost: localhost\r\n"}.items():
        recorder.keep(f"head: {name}", _raw(server, f"GET /api/health HTTP/1.1\r\n{lines}\r\n"))
    recorder.keep("head: no HTTP", _raw(server, "hello\r\n\r\n"))


def _raw(server: LiveServer, request: str) -> dict[str, object]:
    """The answer to what no client would send."""
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=RUN_S) as connection:
        connection.sendall(request.encode())
        response = HTTPResponse(connection)
        response.begin()
        return {"status": response.status, "connection": response.getheader("connection"), "body": _json(response)}


def _json(response: HTTPResponse) -> object:
    return json.loads(response.read())


def _refused_paths(recorder: Recorder, server: LiveServer, folder: Path) -> None:
    folder.mkdir()
    recorder.detect("path: missing", server, folder / "missing")
    recorder.detect("path: device", server, "/dev/null")
    recorder.detect("path: share", server, "//machine/share/scan.nii")
    recorder.detect("path: pipe", server, bad_files.pipe(folder))
    recorder.detect("path: unknown model", server, folder, model="lungs")
    accepts_events = {"Accept": "text/event-stream"}
    wanted = {"file_path": str(folder / "missing")}
    recorder.ask("path: missing, events wanted", server, "POST", DETECT, wanted, headers=accepts_events)


def _pages(recorder: Recorder, server: LiveServer) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    viewer = {"Origin": "tauri://localhost"}
    recorder.ask("page: preflight", server, "OPTIONS", DETECT, headers={**viewer, **asked})
    private = {"Access-Control-Request-Private-Network": "true"}
    named = {"Access-Control-Request-Headers": "authorization, content-type"}
    recorder.ask("page: whole preflight", server, "OPTIONS", DETECT, headers={**viewer, **asked, **private, **named})
    secret = {"Access-Control-Request-Headers": "x-secret"}
    recorder.ask("page: preflight for more", server, "OPTIONS", DETECT, headers={**viewer, **asked, **secret})
    recorder.ask("page: another's preflight", server, "OPTIONS", DETECT, headers={"Origin": PAGE, **asked})
    for origin in ("tauri://localhost", "http://localhost:5173", PAGE, "null"):
        recorder.ask(f"page: {origin}", server, "GET", "/api/jobs", headers={"Origin": origin})
    recorder.ask("page: cross-site", server, "GET", "/api/jobs", headers={"Sec-Fetch-Site": "cross-site"})
    for host in ("evil.example", "localhost:1"):
        recorder.ask(f"host: {host}", server, "GET", "/api/jobs", headers={"Host": host})


def record_a_guarded_server(recorder: Recorder, program: Program) -> None:
    """One with a token, allowed folders and pages, and no downloads by itself."""
    allowed, other = emptied(program.folder / "allowed"), emptied(program.folder / "other")
    outside = images.air_nifti(other)
    link = allowed / "links" / "link.nii.gz"
    link.parent.mkdir()
    link.symlink_to(outside)
    settings = {
        "OPENSCANS_TOKEN": TOKEN,
        "OPENSCANS_ALLOWED_ROOTS": str(allowed),
        "OPENSCANS_ALLOWED_ORIGINS": PAGE,
        "OPENSCANS_AUTO_DOWNLOAD": "0",
    }
    with program.server("guarded", **settings) as server:
        for path in ("/api/health", "/", "/docs", "/openapi.json", "/api/nothing", "/api/jobs"):
            recorder.ask(f"guarded: no token, {path}", server, "GET", path)
        for shown in ("Bearer", "Bearer wrong", f"Basic {TOKEN}"):
            recorder.ask(f"guarded: {shown}", server, "GET", "/api/jobs", headers={"Authorization": shown})
        right = {"Authorization": f"Bearer {TOKEN}"}
        recorder.ask("guarded: right token", server, "GET", "/api/jobs", headers=right)
        recorder.ask("guarded: allowed page, no token", server, "GET", "/api/jobs", headers={"Origin": PAGE})
        described = recorder.request(server, "GET", "/openapi.json", headers=right).json()
        recorder.keep("guarded: openapi GET /api/jobs", _secured(described, "/api/jobs"))
        recorder.keep("guarded: openapi GET /api/health", _secured(described, "/api/health"))
        for name, path in {
            "outside": outside,
            "outside, missing": other / "missing",
            "link to the outside": link,
            "folder of a link to the outside": link.parent,
            "inside, missing": allowed / "missing",
            "inside": images.air_nifti(allowed),
            "inside, MR": images.mr_series(allowed / "mr"),
        }.items():
            recorder.ask(f"guarded: {name}", server, "POST", DETECT, {"file_path": str(path)}, headers=right)
        imported = {"file_path": str(other)}
        place = "/api/models/import/vertebrae"
        recorder.ask("guarded: import from outside", server, "POST", place, imported, headers=right)


def _secured(described: Mapping[str, Any], path: str) -> dict[str, Any]:
    operation = described["paths"][path]["get"]
    return {"security": operation.get("security"), "responses": _operation(operation)["responses"]}
