"""What the server shares with the program that started it: the pipes of its output, which stay as they were."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.live_server import BUFFERED, ROOT, LiveServer, eventually

SCRIPTED = ("-m", "tests.scripted_server")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows' pipes have no such property")


@contextmanager
def server_with(home: Path, stdout: IO[str], stderr: int, listening: IO[str]) -> Iterator[LiveServer]:
    env = {**os.environ, **BUFFERED, "PORT": "0", "OPENSCANS_HOME": str(home), "DEBUG": "1"}
    with subprocess.Popen(
        [sys.executable, *SCRIPTED],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
    ) as process:
        line = next(line for line in iter(listening.readline, "") if line.startswith("LISTENING"))
        server = LiveServer(process, home, url=line.split()[1])
        try:
            yield server
        finally:
            server.kill()


def read(output: IO[str], lines: list[str]) -> None:
    # It may be closed meanwhile.
    with suppress(ValueError):
        lines.extend(output)


def test_output_that_is_shared_stays_as_blocking_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "fine").touch()
    ends = [os.pipe(), os.pipe()]
    with (
        os.fdopen(ends[0][0], "r") as listening,
        os.fdopen(ends[1][0], "r"),
        os.fdopen(ends[0][1], "w") as stdout,
        os.fdopen(ends[1][1], "w") as stderr,
        server_with(tmp_path / "home", stdout, stderr.fileno(), listening) as server,
    ):
        # Of the worker process too.
        assert server.detect(tmp_path / "fine").status_code == 200
        assert [os.get_blocking(end.fileno()) for end in (listening, stdout, stderr)] == [True] * 3


def test_one_who_shares_the_output_writes_whole_lines_to_it_whatever_the_server_does(tmp_path: Path) -> None:
    """Beside a server that fills the pipe: a pipe that were set not to wait would refuse the other's line."""
    (tmp_path / "fine").touch()
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "r") as output,
        os.fdopen(writing, "w") as shared,
        server_with(tmp_path / "home", shared, shared.fileno(), output) as server,
    ):
        assert server.detect(tmp_path / "fine").status_code == 200
        lines: list[str] = []
        threading.Thread(target=read, args=(output, lines), daemon=True).start()
        beside = [sys.executable, "-c", "print('x' * 1_000_000)"]
        assert subprocess.run(beside, stdout=shared, stderr=subprocess.DEVNULL, timeout=10).returncode == 0
        assert eventually(lambda: any("x" * 1_000_000 in line for line in lines))


def test_what_libraries_write_past_python_never_stops_it(tmp_path: Path) -> None:
    program = (
        "import ctypes, sys\nfrom openscans.system import outputs\noutputs.never_wait_for_readers()\n"
        "for _ in range(100): ctypes.CDLL(None).write(1, b'x' * 10000, 10000)\n"
        "sys.stderr.write('done\\n')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "done\n"
        assert process.wait(10) == 0
