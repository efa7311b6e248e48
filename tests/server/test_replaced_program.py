"""An update while the server runs: its folder moved away, or its files replaced; the answer says what to do."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live_server import ROOT, LiveServer, are_gone, children_of, live_server


def copy_program(folder: Path) -> Path:
    """The program alone, as an installation has it, and its main file."""
    shutil.copytree(ROOT / "openscans", folder / "openscans", ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("*.py"):
        shutil.copy2(file, folder)
    shutil.copy2(ROOT / "pyproject.toml", folder)
    return folder / "main.py"


def rename(folder: Path) -> None:
    folder.rename(folder.with_name("old"))


def replace(folder: Path) -> None:
    rename(folder)
    copy_program(folder)
    with (folder / "openscans" / "version.py").open("a", encoding="utf-8") as file:
        file.write("\n")


def assert_says_restart(server: LiveServer, image: Path) -> None:
    answer = server.detect(image, model="vertebrae")
    assert (answer.status_code, answer.json()["code"]) == (500, "worker_crashed")
    assert "Restart" in answer.json()["hint"]
    assert "moved or replaced" in answer.json()["error"]
    assert server.get("/api/health").status_code == 200


@pytest.mark.parametrize("update", [rename, replace])
@pytest.mark.parametrize("worker", ["none yet", "that has ended"])
def test_after_an_update_a_detection_that_needs_a_new_process_says_restart(
    tmp_path: Path, update: Callable[[Path], None], worker: str
) -> None:
    image = tmp_path / "image.nii.gz"
    image.touch()
    main = copy_program(tmp_path / "program")
    env = {"OPENSCANS_OFFLINE": "1"}
    with live_server(tmp_path / "home", env, program=(str(main),), cwd=tmp_path) as server:
        if worker == "that has ended":
            assert server.detect(image, model="vertebrae").json()["code"] != "worker_crashed"
            children = children_of(server.process.pid)
            for child in children:
                os.kill(child, signal.SIGKILL)
            assert are_gone(children, within_s=2)
            # Files that stayed are no reason to refuse a new process.
            assert server.detect(image, model="vertebrae").json()["code"] != "worker_crashed"
            for child in children_of(server.process.pid):
                os.kill(child, signal.SIGKILL)
        update(main.parent)
        assert_says_restart(server, image)
