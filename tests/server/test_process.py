"""The server as a process: how it starts, what it may not load, how it ends, and what its streams may do to it."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openscans.version import version
from tests import pipelines
from tests.live_server import BUFFERED, MAIN, ROOT, LiveServer, are_gone, children_of, eventually, live_server

SCRIPTED = ("-m", "tests.scripted_server")

HEAVY = {"torch", "openvino", "SimpleITK", "numpy", "pydicom", "nibabel", "scipy", "cc3d", "imagecodecs", "nnunetv2"}


def run_main(*flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *MAIN, *flags], cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=20
    )


def worker_of(server: LiveServer, image: Path) -> int:
    return int(server.detect(image).json()["vertebrae"][0]["center"]["z"])


def test_health_answers_within_two_seconds_of_the_start(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with live_server(tmp_path) as server:
        assert server.get("/api/health").json()["status"] == "healthy"
        assert time.monotonic() - began_s < 2


def test_the_server_process_loads_no_heavy_library(tmp_path: Path) -> None:
    with live_server(tmp_path, program=("-X", "importtime", *MAIN)) as server:
        server.get("/api/health")
        server.get("/api/models/status")
        server.post("/api/detect-vertebrae", {"file_path": "/nowhere"})
        imported = {line.split("|")[-1].strip() for line in server.errors if line.startswith("import time:")}
    assert "fastapi" in imported
    assert {name.split(".")[0] for name in imported} & HEAVY == set()


def test_the_version_is_told_without_starting_anything(tmp_path: Path) -> None:
    ended = run_main("--version", OPENSCANS_HOME=str(tmp_path / "home"))
    assert (ended.returncode, ended.stdout.strip()) == (0, version())
    assert not (tmp_path / "home").exists()


def test_starting_and_asking_for_health_writes_only_a_log(tmp_path: Path) -> None:
    with live_server(tmp_path / "home") as server:
        server.get("/api/health")
    assert {path.name for path in (tmp_path / "home").rglob("*") if path.is_file()} <= {"server.log", "server.lock"}


def test_the_first_line_on_stdout_is_where_it_listens_and_the_only_one(tmp_path: Path) -> None:
    with live_server(tmp_path) as server:
        assert server.get("/api/health").status_code == 200
        assert server.output == [f"LISTENING {server.url}"]
        assert server.url.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = run_main("--port", str(port), OPENSCANS_HOME=str(tmp_path))
    assert ended.returncode == 3
    assert len(ended.stderr.splitlines()) == 1
    assert str(port) in ended.stderr
    assert ended.stdout == ""


def test_a_wrong_setting_is_one_line_that_names_it_and_exit_code_2(tmp_path: Path) -> None:
    ended = run_main(OPENSCANS_HOME=str(tmp_path), OPENSCANS_QUEUE="many")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "OPENSCANS_QUEUE" in ended.stderr


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_is_gone_soon_and_its_worker_and_port_too(tmp_path: Path, sign: signal.Signals) -> None:
    image = tmp_path / "fine"
    image.touch()
    with live_server(tmp_path, program=SCRIPTED) as server:
        worker = worker_of(server, image)
        children = children_of(server.process.pid)
        assert worker in children
        began_s = time.monotonic()
        server.process.send_signal(sign)
        server.process.wait(10)
        assert time.monotonic() - began_s < 3
        assert are_gone(children, within_s=0.5)
        port = int(server.url.rsplit(":", 1)[1])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("act", ["long", "hang"])
def test_ending_gives_an_open_stream_its_last_event(tmp_path: Path, act: str) -> None:
    image = tmp_path / act
    image.touch()
    with live_server(tmp_path, program=SCRIPTED) as server, server.detection_events(image) as events:
        for event in events:
            if event["status"] == "segmenting":
                break
        children = children_of(server.process.pid)
        began_s = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        rest = list(events)
        server.process.wait(10)
        assert time.monotonic() - began_s < 3
    assert rest[-1]["status"] == "cancelled"
    assert are_gone(children, within_s=0.5)


def test_killed_it_takes_its_worker_along(tmp_path: Path) -> None:
    image = tmp_path / "fine"
    image.touch()
    with live_server(tmp_path, program=SCRIPTED) as server:
        worker = worker_of(server, image)
        server.kill()
        assert are_gone({worker}, within_s=2)


def test_it_ends_within_two_seconds_of_its_parent(tmp_path: Path) -> None:
    with (
        subprocess.Popen(["sleep", "60"]) as parent,
        live_server(tmp_path, flags=("--parent-pid", str(parent.pid))) as server,
    ):
        assert server.get("/api/health").status_code == 200
        parent.kill()
        assert server.process.wait(2) == 0


def test_it_ends_at_once_when_its_parent_is_gone_already(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert run_main("--parent-pid", str(gone.pid), PORT="0", OPENSCANS_HOME=str(tmp_path)).returncode == 0


def test_output_that_nobody_reads_never_stops_it(tmp_path: Path) -> None:
    env = {**os.environ, **BUFFERED, "PORT": "0", "OPENSCANS_HOME": str(tmp_path), "DEBUG": "1"}
    with subprocess.Popen(
        [sys.executable, *MAIN], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        server = LiveServer(process, tmp_path, url=process.stdout.readline().split()[1])
        try:
            with server.client(timeout_s=5) as client:
                # A pipe holds 64 kB, and each request is a line of 100 bytes or more in the verbose log.
                for _ in range(1000):
                    assert client.get("/api/health").status_code == 200
        finally:
            server.kill()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", ">/dev/full 2>/dev/full"])
def test_it_serves_without_any_of_its_streams(tmp_path: Path, closed: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, **BUFFERED, "PORT": str(port), "OPENSCANS_HOME": str(tmp_path), "DEBUG": "1"}
    with subprocess.Popen(["sh", "-c", f"exec {sys.executable} {MAIN[0]} {closed}"], cwd=ROOT, env=env) as process:
        server = LiveServer(process, tmp_path, url=f"http://127.0.0.1:{port}")
        try:
            assert eventually(lambda: listens(server), within_s=10)
            assert server.get("/api/health").status_code == 200
            assert server.get("/nowhere").status_code == 404
        finally:
            server.kill()


def listens(server: LiveServer) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))).close()
    except ConnectionRefusedError:
        return False
    return True


def test_nothing_of_a_patient_stands_in_the_logs(tmp_path: Path) -> None:
    folder = tmp_path / pipelines.PATIENT
    folder.mkdir()
    for name in ("fine", "bug", "bad", "die"):
        (folder / name).touch()
    home = tmp_path / "home"
    with live_server(home, {"DEBUG": "1"}, program=SCRIPTED) as server:
        assert [server.detect(folder / name).status_code for name in ("fine", "bug", "bad", "die")] == [
            200,
            500,
            422,
            500,
        ]
        server.detect(folder / "missing")
        server.post("/api/detect-vertebrae", {"file_path": [str(folder)]})
        server.ask_to_end()
    written = "\n".join([*(path.read_text() for path in home.rglob("*.log*")), *server.errors])
    assert "have_a_bug" in written
    assert pipelines.PATIENT not in written
