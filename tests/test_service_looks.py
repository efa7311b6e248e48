"""The server while it looks at images that take long, to see whether their answers are known; over plain sockets."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from identity import LARGEST_WHOLE_BYTES
from tests.live_server import LiveServer, live_server

CALLERS = 45
"""More than the pool that all routes share has threads."""

SOON_S = 2.0
"""A viewer waits no longer for health. It takes milliseconds, but all cores are busy with digests meanwhile."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with live_server(tmp_path / "home", {"OPENSCANS_OFFLINE": "1"}) as running:
        yield running


@pytest.fixture
def vast(tmp_path: Path) -> Path:
    """An image whose whole content is digested, which takes seconds. It takes no room on the disk."""
    path = tmp_path / "vast.nii"
    path.touch()
    os.truncate(path, LARGEST_WHOLE_BYTES)
    return path


@contextmanager
def callers(server: LiveServer, image: Path) -> Iterator[None]:
    """That many want a detection in ``image``, and leave at the end of the block."""
    body = json.dumps({"file_path": str(image)}).encode()
    head = b"POST /api/detect-vertebrae HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    with ExitStack() as connections:
        for _ in range(CALLERS):
            connection = connections.enter_context(socket.create_connection(address))
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        yield


def slowest_s(server: LiveServer, path: str, *, times: int) -> float:
    seconds = []
    with server.client() as client:
        for _ in range(times):
            began_s = time.monotonic()
            assert client.get(path).status_code == 200
            seconds.append(time.monotonic() - began_s)
            time.sleep(0.1)
    return max(seconds)


def test_health_answers_while_images_are_looked_at_that_nobody_wants_any_more(server: LiveServer, vast: Path) -> None:
    with callers(server, vast):
        # Their requests have arrived.
        time.sleep(0.5)
    assert slowest_s(server, "/api/health", times=20) < SOON_S
