"""The real server, started as a process of its own on a free port with a home of its own, for as long as a test needs.

Its output is read all the time, as a full pipe would otherwise stop a program that is written less carefully.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
MAIN = (str(ROOT / "main.py"),)
PYTHON = Path(sys.executable)

BUFFERED = {"PYTHONUNBUFFERED": ""}
"""Streams as users have them, who do not set this as some test machines do."""

START_S = 30.0
"""The server is up in a second; a machine that runs other tests beside may need much longer."""

END_S = 10.0


@dataclass
class LiveServer:
    """A running server: its process, its address and what it has written so far."""

    process: subprocess.Popen[str]
    home: Path
    url: str = ""
    output: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        home: Path,
        env: Mapping[str, str] | None = None,
        *,
        program: Sequence[str] = MAIN,
        flags: Sequence[str] = (),
        interpreter: Path = PYTHON,
        cwd: Path = ROOT,
    ) -> Self:
        """Start ``interpreter program flags`` in ``cwd`` and wait until it says where it listens."""
        settings = {"PORT": "0", "OPENSCANS_HOME": str(home), "OMP_NUM_THREADS": "1", **BUFFERED, **(env or {})}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENSCANS_")}
        process = subprocess.Popen(
            [str(interpreter), *program, *flags],
            # An executable must not depend on the folder that it is started in.
            cwd=cwd if program else home.parent,
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        server = cls(process, home)
        server._drain()
        return server

    def _drain(self) -> None:
        listening = threading.Event()

        def read(stream: IO[str], lines: list[str]) -> None:
            for line in stream:
                lines.append(line.rstrip("\n"))
                listening.set()

        assert self.process.stdout is not None
        assert self.process.stderr is not None
        for stream, lines in ((self.process.stdout, self.output), (self.process.stderr, self.errors)):
            threading.Thread(target=read, args=(stream, lines), daemon=True).start()
        deadline_s = time.monotonic() + START_S
        while not self.output:
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                raise AssertionError(f"The server did not start: {self.errors}")
            listening.wait(0.05)
            listening.clear()
        word, self.url = self.output[0].split()
        assert word == "LISTENING"

    def client(self, *, timeout_s: float = 30.0) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, trust_env=False)

    def post(self, path: str, body: object = None, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=120, trust_env=False, **options)

    def delete(self, path: str) -> httpx.Response:
        return httpx.delete(self.url + path, timeout=30, trust_env=False)

    def detect(self, path: Path | str, **options: object) -> httpx.Response:
        return self.post("/api/detect-vertebrae", {"file_path": str(path), **options})

    @contextmanager
    def events(self, method: str, path: str, body: object = None) -> Iterator[Iterator[dict[str, Any]]]:
        """The events of a stream, one after another as they come; leaving the block leaves the stream."""
        with (
            self.client(timeout_s=60) as client,
            client.stream(method, path, json=body, headers={"Accept": "text/event-stream"}) as response,
        ):
            assert response.headers["content-type"].startswith("text/event-stream"), response.read()
            yield parsed(response.iter_lines())

    def detection_events(self, path: Path | str, **options: object) -> Any:
        return self.events("POST", "/api/detect-vertebrae", {"file_path": str(path), **options})

    def ask_to_end(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(END_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(END_S)


def parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The objects of an event stream's ``data`` lines."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


@contextmanager
def live_server(
    home: Path,
    env: Mapping[str, str] | None = None,
    *,
    program: Sequence[str] = MAIN,
    flags: Sequence[str] = (),
    interpreter: Path = PYTHON,
    cwd: Path = ROOT,
) -> Iterator[LiveServer]:
    """A server for the length of a block; it is killed at the end if it has not ended by itself."""
    server = LiveServer.start(home, env, program=program, flags=flags, interpreter=interpreter, cwd=cwd)
    try:
        yield server
    finally:
        server.kill()


def eventually(condition: Callable[[], bool], *, within_s: float = 5.0, every_s: float = 0.02) -> bool:
    """Whether ``condition`` comes true in time, for what another process does and nothing here can wait for."""
    end_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(every_s)
    return True


def is_running(pid: int) -> bool:
    """Whether the process is there and has not ended (one that nobody has asked after yet has)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children_of(pid: int) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(pid).children()}
    except psutil.NoSuchProcess:
        return set()


def are_gone(processes: set[int], within_s: float) -> bool:
    return eventually(lambda: not any(is_running(process) for process in processes), within_s=within_s)
