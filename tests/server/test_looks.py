"""The server while it looks at images that take long, to see whether their answers are known; over plain sockets."""

import asyncio
import json
import os
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from anyio import CapacityLimiter
from fastapi import Request
from starlette.types import Message

from openscans.errors import Cancelled
from openscans.jobs.fingerprint import LARGEST_WHOLE_BYTES
from openscans.progress import Report
from openscans.server.disconnects import in_thread
from tests.live_server import LiveServer, eventually, live_server

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


def write_file(path: Path) -> Path:
    path.write_bytes(b"no image")
    return path


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


def test_what_needs_a_thread_is_served_while_images_are_looked_at(server: LiveServer, vast: Path) -> None:
    with callers(server, vast):
        time.sleep(0.5)
        assert slowest_s(server, "/api/models/status", times=10) < SOON_S


def test_images_that_nobody_wants_any_more_are_looked_at_no_longer(server: LiveServer, vast: Path) -> None:
    with callers(server, vast):
        time.sleep(0.5)
    assert eventually(lambda: {job["status"] for job in server.get("/api/jobs").json()["jobs"]} == {"cancelled"})


def test_a_look_is_a_job_that_is_seen_and_cancelled(server: LiveServer, vast: Path) -> None:
    with server.detection_events(vast) as events:
        first = next(events)
        assert first["status"] == "reading"
        assert server.get("/api/jobs").json()["jobs"][0]["status"] == "reading"
        server.delete(f"/api/jobs/{first['job_id']}")
        assert [*events][-1]["status"] == "cancelled"


def test_other_images_are_looked_at_meanwhile(server: LiveServer, vast: Path) -> None:
    with server.detection_events(vast) as events:
        next(events)
        began_s = time.monotonic()
        assert server.detect(write_file(vast.with_name("note.txt"))).json()["code"] == "unsupported_file"
        assert time.monotonic() - began_s < SOON_S


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells which threads want a core")
def test_however_many_images_are_looked_at_few_threads_want_a_core(server: LiveServer, vast: Path) -> None:
    with callers(server, vast):
        assert eventually(lambda: len(looking(server)) == CALLERS)
        worker = max(psutil.Process(server.process.pid).children(), key=lambda child: child.memory_info().rss)
        assert eventually(lambda: worker.num_threads() > CALLERS)
        found = []
        for _ in range(20):
            time.sleep(0.05)
            found.append(running_threads(worker.pid))
    assert 0 < statistics.mean(found) < CALLERS / 4, found


def running_threads(pid: int) -> int:
    """How many threads of the process run, or would if there were a core for them."""
    stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return sum(stat.rpartition(")")[2].split()[0] == "R" for stat in stats)


def looking(server: LiveServer) -> list[str]:
    return [job["job_id"] for job in server.get("/api/jobs").json()["jobs"] if job["status"] == "reading"]


def test_who_leaves_before_a_thread_is_free_is_not_waited_for() -> None:
    """Where a disk hangs, the threads stay held; those who wait for one and leave must not add up."""
    held, looked = threading.Event(), []

    async def look(answer: str, left: asyncio.Event, limiter: CapacityLimiter) -> str:
        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        def work(_report: Report) -> str:
            looked.append(answer)
            held.wait(10)
            return answer

        return await in_thread(work, Request({"type": "http"}, receive), limiter)

    async def scene() -> None:
        limiter, leaves, stays = CapacityLimiter(1), asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(look("first", leaves, limiter))
        while not looked:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(look("second", leaves, limiter))
        third = asyncio.create_task(look("third", stays, limiter))
        await asyncio.sleep(0.1)
        leaves.set()
        with pytest.raises(Cancelled):
            await asyncio.wait_for(second, 5)
        # The thread of the first is still held, though its client has gone.
        assert (first.done(), limiter.borrowed_tokens) == (False, 1)
        held.set()
        assert await asyncio.wait_for(third, 5) == "third"

    asyncio.run(scene())
    assert looked == ["first", "third"]
