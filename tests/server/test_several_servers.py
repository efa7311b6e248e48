"""Several servers on one machine: who has the port, and what they share on disk."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.live_server import ROOT, LiveServer, live_server
from tests.server.test_process import run_main

SCRIPTED = ("-m", "tests.scripted_server")


def started_on(port: int, home: Path, host: str = "127.0.0.1") -> subprocess.CompletedProcess[str]:
    token = {"OPENSCANS_TOKEN": "s3cret"}
    return run_main("--port", str(port), "--host", host, OPENSCANS_HOME=str(home), **token)


@pytest.mark.parametrize("token", [{}, {"OPENSCANS_TOKEN": "another"}])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_that_another_backend_has_is_exit_code_4_and_its_address(
    tmp_path: Path, token: dict[str, str], host: str
) -> None:
    with live_server(tmp_path / "first", token) as first:
        ended = started_on(int(first.url.rsplit(":", 1)[1]), tmp_path / "second", host)
    assert ended.returncode == 4
    assert len(ended.stderr.splitlines()) == 1
    assert first.url.rsplit(":", 1)[1] in ended.stderr.split("http://")[1]


@contextmanager
def other_program(answer: bytes) -> Iterator[int]:
    """A web server of another kind, and its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Silence."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b'HTTP/1.0 200 OK\r\n\r\n{"status": "healthy"}',
        b"HTTP/1.0 200 OK\r\n\r\n[1]",
        b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 1_000_000,
    ],
    ids=["nothing", "no HTTP", "no JSON", "another's health", "another's JSON", "very much"],
)
def test_a_port_that_another_program_has_is_exit_code_3_and_its_name(tmp_path: Path, answer: bytes) -> None:
    with other_program(answer) as port:
        ended = started_on(port, tmp_path)
    assert ended.returncode == 3
    assert len(ended.stderr.splitlines()) == 1
    assert str(port) in ended.stderr
    if sys.platform == "linux":
        assert f"(process {os.getpid()})" in ended.stderr


def test_a_program_that_never_answers_does_not_hold_the_start_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_s = time.monotonic()
        assert started_on(silent.getsockname()[1], tmp_path).returncode == 3
        assert time.monotonic() - began_s < 6


@pytest.mark.parametrize("host", ["no-such-host.invalid", "1.2.3.4", "a" * 70 + ".example", ".."])
def test_an_address_that_is_not_this_machines_is_one_line_and_exit_code_3(tmp_path: Path, host: str) -> None:
    ended = started_on(8000, tmp_path, host)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (3, 1)


def detects(server: LiveServer, image: Path) -> bool:
    return server.detect(image).status_code == 200


def test_two_servers_on_one_home_serve_and_end_without_each_other(tmp_path: Path) -> None:
    (tmp_path / "fine").touch()
    home = tmp_path / "home"
    with live_server(home, program=SCRIPTED) as first, live_server(home, program=SCRIPTED) as second:
        with ThreadPoolExecutor(2) as callers:
            assert all(callers.map(detects, (first, second), [tmp_path / "fine"] * 2))
        first.kill()
        assert detects(second, tmp_path / "fine")
        with live_server(home, program=SCRIPTED) as third:
            assert detects(third, tmp_path / "fine")
        assert detects(second, tmp_path / "fine")
    assert {path.name for path in (home / "logs").glob("server*.log*")} == {"server.log", "server-2.log"}


WRITER = """
import logging, sys
from pathlib import Path
from openscans.system import logs
sys.stderr = None
logs.set_up(Path(sys.argv[1]), file_name="server.log", debug=False)
print("ready", flush=True)
sys.stdin.readline()
for number in range(6000):
    logging.getLogger("openscans").info("line %s-%d %s", sys.argv[2], number, "x" * 500)
"""
"""Three megabytes, so that each log is rotated."""


def test_two_processes_that_log_into_one_folder_lose_no_line_when_files_are_rotated(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=30)
    written = "\n".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.log*"))
    found = {word for word in written.split() if word[:2] in {"a-", "b-"}}
    assert found == {f"{name}-{number}" for name in "ab" for number in range(6000)}
    assert len(list(tmp_path.glob("*.log.1"))) == 2
