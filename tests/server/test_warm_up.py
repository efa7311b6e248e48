"""Wanted early, the networks that are on disk are loaded when the server starts, before anybody sends an image."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live_server import LiveServer, eventually, live_server
from tests.phantom_server import phantom_server

EARLY = {"OPENSCANS_WARM_UP": "1", "OPENSCANS_OFFLINE": "1"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a home folder whose networks were never compiled: 292, 297 and 298, and none for MR."""
    home = tmp_path_factory.mktemp("installed")
    with phantom_server(home):
        return home / "models"


@pytest.fixture
def home(installed: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(installed, tmp_path / "home" / "models")
    return tmp_path / "home"


def compiled(server: LiveServer) -> int:
    """How many networks were compiled, each of which is kept on disk."""
    return len(list(server.home.rglob("*.blob")))


def is_ready(server: LiveServer) -> bool:
    return bool(server.get("/api/health").json()["worker"] == "ready")


def log_of(server: LiveServer) -> str:
    return (server.home / "logs" / "server.log").read_text()


def test_every_network_on_disk_is_loaded_without_any_detection(home: Path) -> None:
    with live_server(home, EARLY) as server:
        assert eventually(lambda: is_ready(server) and compiled(server) == 3, within_s=60)
        assert server.get("/api/jobs").json()["jobs"] == []
    assert "is not loaded" not in log_of(server)


def test_a_damaged_model_is_passed_over_and_said_in_the_log(home: Path) -> None:
    [checkpoint] = home.rglob("Dataset292_*/*/fold_0/checkpoint_final.pth")
    checkpoint.write_bytes(b"")
    with live_server(home, EARLY) as server:
        assert eventually(lambda: is_ready(server) and compiled(server) == 2, within_s=60)
    assert "vertebrae is not loaded: The model Dataset292" in log_of(server)


def test_not_wanted_early_nothing_is_loaded(home: Path) -> None:
    with live_server(home, {"OPENSCANS_OFFLINE": "1"}) as server:
        assert server.get("/api/health").json()["worker"] == "cold"
        assert compiled(server) == 0
