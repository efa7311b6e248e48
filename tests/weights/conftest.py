"""What tests of the models share: a server that has a model to download, a home, and the models of both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from model_manager import Models
from tests.model_homes import online
from tests.release_server import ReleaseServer, write_release


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReleaseServer]:
    with ReleaseServer.over(write_release(tmp_path / "release")) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def models(home: Path, server: ReleaseServer) -> Models:
    return online(home, server.url)
