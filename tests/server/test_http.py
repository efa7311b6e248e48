"""What every route has in common: the shape of errors, the table of statuses, tokens, origins; and the small routes."""

import inspect
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from openscans import errors
from openscans.errors import OpenScansError, Unauthorized
from openscans.server.error_responses import status_of
from tests.live_server import ROOT, LiveServer, live_server

CONTRACT = {
    401: {"unauthorized"},
    403: {"forbidden_host", "forbidden_origin", "forbidden_path"},
    404: {"file_not_found", "unknown_task", "unknown_job", "unknown_series", "not_found"},
    405: {"method_not_allowed"},
    409: {"model_in_use", "cancelled"},
    415: {"unsupported_file", "unsupported_transfer_syntax"},
    422: {
        "invalid_request",
        "no_image",
        "too_few_slices",
        "inconsistent_geometry",
        "unsupported_modality",
        "several_volumes",
        "corrupt_file",
    },
    502: {"download_failed"},
    503: {"model_missing", "busy"},
    500: {"worker_crashed", "internal_error"},
    507: {"disk_full", "out_of_memory"},
}

OURS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, OpenScansError)] + [
    Unauthorized
]

MODEL_TASKS = {"vertebrae", "total_body", "vertebrae_mr"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_OFFLINE": "1"}) as running:
        yield running


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_the_status_of_its_code(kind: type[OpenScansError]) -> None:
    assert kind.code in CONTRACT[status_of(kind)]


def test_every_code_of_the_contract_has_an_error() -> None:
    assert {code for codes in CONTRACT.values() for code in codes} == {kind.code for kind in OURS}


def assert_error(answer: httpx.Response, status: int, code: str) -> None:
    body = answer.json()
    assert answer.status_code == status
    assert set(body) == {"success", "error", "detail", "code", "hint"}
    assert (body["success"], body["code"]) == (False, code)
    assert body["error"] == body["detail"] != ""
    assert body["hint"] != ""


def test_an_address_that_is_not_there(server: LiveServer) -> None:
    assert_error(server.get("/api/nothing"), 404, "not_found")


def test_a_method_that_is_not_answered_names_those_that_are(server: LiveServer) -> None:
    answer = server.delete("/api/health")
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"file_path": ""}',
        b'{"file_path": 7}',
        b'{"file_path": null}',
        b'{"file_path": "relative/path"}',
        b'{"file_path": "/a\\u0000b"}',
        b'{"file_path": "/\\ud800"}',
        b'{"file_path": "/' + b"a" * 100_000 + b'"}',
        b'{"file_path": "/tmp", "fast_mode": "perhaps"}',
        b'{"file_path": "/tmp", "device": "tpu"}',
        b'{"file_path": "/tmp", "series_uid": "1\\u0000"}',
        b"[" * 100_000,
    ],
    ids=lambda body: body[:30].decode(errors="replace"),
)
def test_a_request_that_makes_no_sense_is_422_and_is_not_quoted(server: LiveServer, body: bytes) -> None:
    url = f"{server.url}/api/detect-vertebrae"
    answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, trust_env=False)
    assert_error(answer, 422, "invalid_request")
    assert len(answer.content) < 1000


def test_a_body_that_is_not_declared_as_json_is_told_so(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/api/detect-vertebrae", data={"file_path": "/tmp"}, trust_env=False)
    assert_error(answer, 422, "invalid_request")
    assert "Content-Type" in answer.json()["error"]


def test_a_path_that_is_too_long_for_the_system_is_not_found(server: LiveServer) -> None:
    assert_error(server.detect("/" + "a" * 5000), 404, "file_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/status?task=lungs"),
        ("GET", "/api/models/download/lungs"),
        ("POST", "/api/models/download/lungs"),
        ("DELETE", "/api/models/download/lungs"),
        ("DELETE", "/api/models/lungs"),
        ("POST", "/api/models/verify/lungs"),
    ],
)
def test_an_unknown_task_is_404_json_everywhere(server: LiveServer, method: str, path: str) -> None:
    assert_error(httpx.request(method, server.url + path, timeout=30, trust_env=False), 404, "unknown_task")


def test_importing_for_an_unknown_task_is_404(server: LiveServer, tmp_path: Path) -> None:
    assert_error(server.post("/api/models/import/lungs", {"file_path": str(tmp_path)}), 404, "unknown_task")


def test_health_has_the_keys_of_the_contract(server: LiveServer) -> None:
    body = server.get("/api/health").json()
    again = server.get("/api/health").json()
    assert body["status"] == "healthy"
    assert body["message"] == "OpenScans AI Backend is running"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert body["version"] == project["version"]
    assert body["device"] in {"cpu", "cuda", "mps"}
    assert isinstance(body["cuda_available"], bool)
    assert body["python_version"].startswith("3.")
    assert body["pid"] == server.process.pid
    assert body["uptime_s"] >= 0
    assert (body["worker"], body["jobs"]) == ("cold", {"running": 0, "queued": 0})
    assert body["engine"] == []
    assert body["instance_id"] == again["instance_id"] != ""


def test_status_lists_every_task_or_gives_one_flat(server: LiveServer) -> None:
    every = server.get("/api/models/status").json()
    assert set(every) >= MODEL_TASKS
    assert server.get("/api/models/all").json() == every
    assert server.get("/api/models/status?task=vertebrae").json() == every["vertebrae"]
    keys = {
        "downloaded",
        "size_mb",
        "path",
        "task",
        "name",
        "description",
        "state",
        "cache_path",
        "structures",
        "needs",
    }
    assert keys <= set(every["vertebrae"])
    assert (every["vertebrae"]["downloaded"], every["vertebrae"]["state"]) == (False, "absent")
    assert every["vertebrae"]["needs"] == ["total_body"]


def test_cache_stats_of_an_empty_home(server: LiveServer) -> None:
    body = server.get("/api/models/cache-stats").json()
    assert {"cache_directory", "total_size_mb", "file_count", "models"} <= set(body)
    assert (body["total_size_mb"], body["file_count"]) == (0, 0)


def test_deleting_what_is_not_there_is_no_success_and_no_error(server: LiveServer) -> None:
    answer = server.delete("/api/models/vertebrae")
    assert answer.status_code == 200
    assert answer.json()["success"] is False
    assert answer.json()["freed_space_mb"] == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_download_that_fails_ends_its_stream_with_one_error_event(server: LiveServer, method: str) -> None:
    with server.events(method, "/api/models/download/vertebrae_mr") as stream:
        events = list(stream)
    assert [event["status"] in {"complete", "error", "cancelled"} for event in events].count(True) == 1
    assert (events[-1]["status"], events[-1]["code"]) == ("error", "model_missing")
    assert events[-1]["error"] != ""
    assert events[-1]["hint"] != ""


def test_a_detection_whose_model_cannot_be_had_says_so(server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    assert_error(server.detect(tmp_path / "image", model="vertebrae"), 503, "model_missing")


def test_cancelling_a_download_that_does_not_run_is_no_success_and_no_error(server: LiveServer) -> None:
    answer = server.delete("/api/models/download/vertebrae")
    assert (answer.status_code, answer.json()["success"]) == (200, False)


def test_the_root_and_docs_name_every_address(server: LiveServer) -> None:
    addresses = server.get("/").json()["addresses"]
    assert {"GET /api/health", "POST /api/detect-vertebrae", "DELETE /api/jobs/{job_id}"} <= set(addresses)
    assert all(addresses.values())
    page = server.get("/docs").text
    assert all(address in page for address in addresses)
    assert "<script" not in page


def test_with_a_token_every_route_but_health_needs_it(tmp_path: Path) -> None:
    with live_server(tmp_path, {"OPENSCANS_TOKEN": "s3cret"}) as server:
        assert server.get("/api/health").status_code == 200
        for path in ("/", "/docs", "/openapi.json", "/api/jobs", "/api/models/status", "/api/nothing"):
            assert_error(server.get(path), 401, "unauthorized")
        for token, status in (("s3cret", 200), ("S3cret", 401), ("s3cret2", 401)):
            headers = {"Authorization": f"Bearer {token}"}
            assert httpx.get(f"{server.url}/api/jobs", headers=headers, trust_env=False).status_code == status


def test_the_description_of_the_api_is_whole(server: LiveServer) -> None:
    described = json.loads(server.get("/openapi.json").text)
    identifiers = [
        operation["operationId"] for operations in described["paths"].values() for operation in operations.values()
    ]
    assert len(identifiers) == len(set(identifiers))
