"""The server as a child of an application that never reads its output, may be killed, or goes without a word."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from openscans.system.processes import wait_for_end
from tests.live_server import BUFFERED, MAIN, ROOT, LiveServer, are_gone, children_of, live_server
from tests.release_server import Fault, ReleaseServer, write_release

SCRIPTED = ("-m", "tests.scripted_server")

PARENT = """
import os, subprocess, sys
server = subprocess.Popen([sys.executable, "-m", "tests.scripted_server", *sys.argv[1:]], stdin=subprocess.PIPE)
server.wait()
"""
"""Hands its own output on to the server and waits."""

BY_PID = PARENT.replace("*sys.argv[1:]", '*sys.argv[1:], "--parent-pid", str(os.getpid())')


@contextmanager
def detecting(server: LiveServer, image: Path) -> Iterator[set[int]]:
    """The server's processes, during a detection."""
    image.touch()
    with server.detection_events(image) as events:
        next(event for event in events if event["status"] == "segmenting")
        pid = int(server.get("/api/health").json()["pid"])
        processes = {pid, *children_of(pid)}
        assert len(processes) > 1
        yield processes


@pytest.mark.parametrize(
    ("program", "flags"),
    [(("-c", BY_PID), ()), (("-c", PARENT), ("--end-with-stdin",))],
    ids=["by its id", "by standard input"],
)
@pytest.mark.parametrize("act", ["long", "hang"])
def test_a_parent_that_is_killed_during_a_detection_takes_all_along_within_two_seconds(
    tmp_path: Path, program: tuple[str, ...], flags: tuple[str, ...], act: str
) -> None:
    with live_server(tmp_path / "home", program=program, flags=flags) as server:
        with detecting(server, tmp_path / act) as processes:
            server.process.kill()
            assert are_gone(processes, within_s=2)
        with pytest.raises(httpx.ConnectError):
            server.get("/api/health")


def test_a_server_that_is_killed_during_a_detection_takes_its_worker_along(tmp_path: Path) -> None:
    with live_server(tmp_path / "home", program=SCRIPTED) as server, detecting(server, tmp_path / "hang") as processes:
        server.process.kill()
        assert are_gone(processes, within_s=2)


@contextmanager
def piped_server(home: Path, *flags: str, **env: str) -> Iterator[LiveServer]:
    """A server all of whose streams are pipes, of which nothing but the first line is read."""
    with subprocess.Popen(
        [sys.executable, *SCRIPTED, *flags],
        cwd=ROOT,
        env={**os.environ, **BUFFERED, "PORT": "0", "OPENSCANS_HOME": str(home), **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        server = LiveServer(process, home, url=process.stdout.readline().split()[1])
        try:
            yield server
        finally:
            server.kill()


def test_it_ends_with_standard_input_where_that_was_asked_for_but_not_with_what_is_written_there(
    tmp_path: Path,
) -> None:
    with piped_server(tmp_path, "--end-with-stdin") as server:
        assert server.process.stdin is not None
        server.process.stdin.write("anything\n" * 100)
        server.process.stdin.flush()
        assert server.get("/api/health").status_code == 200
        server.process.stdin.close()
        assert server.process.wait(2) == 0


def test_the_end_of_standard_input_means_nothing_where_it_was_not_asked_for(tmp_path: Path) -> None:
    with piped_server(tmp_path) as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1)
        assert server.get("/api/health").status_code == 200


def test_a_process_that_began_later_is_not_the_parent_whose_id_it_has(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        began_s = time.monotonic()
        wait_for_end(stranger.pid)
        assert time.monotonic() - began_s < 1
        stranger.kill()


def fill(server: LiveServer) -> None:
    """Make it write far more than the 64 kB that a pipe holds."""
    with server.client(timeout_s=5) as client:
        for _ in range(1000):
            assert client.get("/api/nothing").status_code == 404


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_with_full_pipes_it_detects_and_ends_as_if_they_were_read(tmp_path: Path, sign: signal.Signals) -> None:
    (tmp_path / "fine").touch()
    codes = []
    with live_server(tmp_path / "read", {"DEBUG": "1"}, program=SCRIPTED) as read:
        read.process.send_signal(sign)
        codes.append(read.process.wait(3))
    with piped_server(tmp_path / "unread", DEBUG="1") as server:
        fill(server)
        assert server.detect(tmp_path / "fine").status_code == 200
        server.process.send_signal(sign)
        codes.append(server.process.wait(3))
    assert codes[0] == codes[1]


def test_pipes_that_are_closed_while_it_runs_break_nothing(tmp_path: Path) -> None:
    (tmp_path / "fine").touch()
    with piped_server(tmp_path / "home", "--end-with-stdin", DEBUG="1") as server:
        assert server.process.stdout is not None
        assert server.process.stderr is not None
        server.process.stdout.close()
        server.process.stderr.close()
        assert server.detect(tmp_path / "fine").status_code == 200
        fill(server)
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(2) == 0


def with_hang_up(handler: str, *program: str) -> tuple[str, ...]:
    """``program``, started with SIGHUP ignored (SIG_IGN) or not (SIG_DFL), whatever these tests were started with."""
    set_it = f"import os, signal, sys; signal.signal(signal.SIGHUP, signal.{handler})"
    return "-c", f"{set_it}; os.execv(sys.executable, [sys.executable, *{program}])"


def test_a_closed_console_ends_it_in_order(tmp_path: Path) -> None:
    (tmp_path / "long").touch()
    with live_server(tmp_path / "home", program=with_hang_up("SIG_DFL", *SCRIPTED)) as server:
        with server.detection_events(tmp_path / "long") as events:
            next(event for event in events if event["status"] == "segmenting")
            processes = children_of(server.process.pid)
            server.process.send_signal(signal.SIGHUP)
            assert list(events)[-1]["status"] == "cancelled"
        assert server.process.wait(3) == 0
        assert are_gone(processes, within_s=0.5)


def test_started_to_stay_it_stays_when_the_console_is_closed(tmp_path: Path) -> None:
    # What nohup does.
    with live_server(tmp_path, program=with_hang_up("SIG_IGN", *MAIN)) as server:
        server.process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_ending_during_a_detection_leaves_no_file_but_the_logs(tmp_path: Path, sign: signal.Signals) -> None:
    (tmp_path / "tmp").mkdir()
    env = {"TMPDIR": str(tmp_path / "tmp")}
    with (
        live_server(tmp_path / "home", env, program=SCRIPTED) as server,
        detecting(server, tmp_path / "long") as processes,
    ):
        server.process.send_signal(sign)
        server.process.wait(3)
        assert are_gone(processes, within_s=0.5)
    assert list((tmp_path / "tmp").rglob("*")) == []
    left = {path.suffix for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert left <= {".log", ".lock"}


@pytest.mark.parametrize("by", ["parent", "signal"])
def test_a_download_that_hangs_does_not_keep_it(tmp_path: Path, by: str) -> None:
    with (
        ReleaseServer.over(write_release(tmp_path / "release", 756)) as release,
        subprocess.Popen(["sleep", "60"]) as owner,
    ):
        release.always = Fault(stall_after=1000)
        env = {"OPENSCANS_WEIGHTS_URL": release.url}
        flags = ("--parent-pid", str(owner.pid))
        with live_server(tmp_path / "home", env, program=MAIN, flags=flags) as server:
            with server.events("GET", "/api/models/download/vertebrae_mr") as events:
                next(events)
                assert release.stalled.wait(10)
                if by == "parent":
                    owner.kill()
                else:
                    server.process.send_signal(signal.SIGINT)
                assert list(events)[-1]["status"] == "cancelled"
            server.process.wait(2 if by == "parent" else 3)
        owner.kill()


@pytest.mark.parametrize("by", ["parent", "signal"])
def test_a_part_that_cannot_be_ended_does_not_keep_it(tmp_path: Path, by: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as owner:
        flags = ("--parent-pid", str(owner.pid))
        with (
            live_server(tmp_path / "home", program=("-m", "tests.stuck_server"), flags=flags) as server,
            detecting(server, tmp_path / "hang") as processes,
        ):
            if by == "parent":
                owner.kill()
            else:
                server.process.send_signal(signal.SIGTERM)
            server.process.wait(2 if by == "parent" else 3)
            assert are_gone(processes, within_s=0.5)
        owner.kill()
