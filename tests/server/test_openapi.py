"""The service's own description against the running service: every route, with requests that it describes and worse."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from openscans import errors
from openscans.types import DownloadStatus, JobStatus, ModelState, WarningCode, WorkerState
from tests.live_server import ROOT, LiveServer, live_server

SCRIPTED = ("-m", "tests.scripted_server")
SCHEMATHESIS = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
TOKEN = "s3cret"

CONFIG = ROOT / "tests" / "schemathesis.toml"


def attack(server: LiveServer, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Let schemathesis send its requests, the same in every run, and check each answer in every way it knows."""
    image = folder / "fine"
    image.touch()
    return subprocess.run(
        [str(SCHEMATHESIS), f"--config-file={CONFIG}", "run", f"{server.url}/openapi.json", "--no-color", *options],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks",
            "OPENSCANS_TEST_IMAGE": str(image),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_answer_is_one_that_is_described(tmp_path: Path) -> None:
    with live_server(tmp_path / "home", {"OPENSCANS_OFFLINE": "1"}, program=SCRIPTED) as server:
        attacked = attack(server, tmp_path)
    assert attacked.returncode == 0, attacked.stdout


def test_with_a_token_every_answer_is_one_that_is_described_and_none_comes_without_it(tmp_path: Path) -> None:
    env = {"OPENSCANS_OFFLINE": "1", "OPENSCANS_TOKEN": TOKEN}
    with live_server(tmp_path / "home", env, program=SCRIPTED) as server:
        attacked = attack(server, tmp_path, "-H", f"Authorization: Bearer {TOKEN}", "--phases=coverage")
    assert attacked.returncode == 0, attacked.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_the_description_refers_to_nothing_that_is_not_in_it(server: LiveServer) -> None:
    document = server.get("/openapi.json").json()
    named = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert named <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def test_every_field_and_parameter_is_described_and_typed(server: LiveServer) -> None:
    document = server.get("/openapi.json").json()
    told = {
        f"{name}.{key}": shape
        for name, component in document["components"]["schemas"].items()
        for key, shape in component.get("properties", {}).items()
    }
    told |= {
        f"{method} {path} {parameter['name']}": parameter["schema"] | parameter
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for parameter in operation.get("parameters", ())
    }
    assert {where for where, shape in told.items() if not shape.get("description", "").endswith(".")} == set()
    assert {where for where, shape in told.items() if not is_typed(shape)} == set()
    assert all(component.get("description") for component in document["components"]["schemas"].values())


def is_typed(shape: dict[str, Any]) -> bool:
    """Whether a client can tell from ``shape`` alone what it will get, down to the last part of it."""
    if "$ref" in shape or "const" in shape:
        return True
    if "anyOf" in shape:
        return all(is_typed(choice) for choice in shape["anyOf"])
    parts = {"array": "items", "object": "additionalProperties"}.get(shape.get("type", "object"))
    return parts is None or (isinstance(shape.get(parts), dict) and is_typed(shape[parts]))


def test_what_has_a_fixed_list_of_words_names_them(server: LiveServer) -> None:
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["WarningCode"]["enum"] == [code.value for code in WarningCode]
    for name, field, words in (
        ("JobAnswer", "status", get_args(JobStatus)),
        ("DownloadEvent", "status", get_args(DownloadStatus)),
        ("ModelStatus", "state", get_args(ModelState)),
        ("HealthAnswer", "worker", get_args(WorkerState)),
        ("ErrorAnswer", "code", sorted({kind.code for kind in errors.kinds_of(errors.OpenScansError)})),
    ):
        assert schemas[name]["properties"][field]["enum"] == [*words]


def test_every_operation_describes_its_errors_in_the_contracts_form(server: LiveServer) -> None:
    document = server.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            errors = {status: answer for status, answer in operation["responses"].items() if not status.startswith("2")}
            assert {"403", "422", "500", "503"} <= set(errors), path
            for answer in errors.values():
                assert "#/components/schemas/ErrorAnswer" in json.dumps(answer["content"]["application/json"])
    assert "HTTPValidationError" not in json.dumps(document)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/health", "GET, HEAD"),
        ("/api/models/download/vertebrae", "DELETE, GET, HEAD, POST"),
        ("/api/jobs/none", "DELETE, GET, HEAD"),
        ("/api/models/status", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_answered_names_all_that_are(server: LiveServer, path: str, allowed: str) -> None:
    with server.client() as client:
        for method in ("PUT", "OPTIONS"):
            answer = client.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        if path == "/api/models/status":
            assert client.delete(path).status_code == 405
