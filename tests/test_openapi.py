"""The service's own description against the running service: every route, with requests that it describes and worse."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
        timeout=120,
    )


@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "with a token"])
def test_every_answer_is_one_that_is_described(tmp_path: Path, token: str | None) -> None:
    env = {"OPENSCANS_OFFLINE": "1"} | ({"OPENSCANS_TOKEN": token} if token else {})
    header = ("-H", f"Authorization: Bearer {token}") if token else ()
    with live_server(tmp_path / "home", env, program=SCRIPTED) as server:
        attacked = attack(server, tmp_path, *header)
    assert attacked.returncode == 0, attacked.stdout
