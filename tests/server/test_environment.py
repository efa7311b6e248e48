"""An environment that other programs have made: their variables, a home that is not named, folders that are gone."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.live_server import MAIN, ROOT, LiveServer, live_server

REMOVED = "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
"""Remove the folder that one works in and become another program."""


def warnings_of(server: LiveServer) -> list[str]:
    lines = (server.home / "logs/server.log").read_text().splitlines()
    return [line.partition("openscans.main: ")[2] for line in lines if "WARNING" in line]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOST", "x86_64-conda-linux-gnu"),
        ("DEBUG", "*"),
        ("DEBUG", "release"),
        ("WEB_CONCURRENCY", "auto"),
        ("UVICORN_PORT", "auto"),
    ],
)
def test_what_other_programs_mean_by_a_name_is_passed_over_with_a_line(tmp_path: Path, name: str, value: str) -> None:
    with live_server(tmp_path, {name: value}) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.get("/api/health").status_code == 200
        (line,) = warnings_of(server)
    assert line.startswith(f"{name} is passed over")
    assert value not in line


def test_a_port_that_is_none_is_passed_over_for_one_that_is_ours(tmp_path: Path) -> None:
    with live_server(tmp_path, {"PORT": "tcp://10.0.0.1:80", "OPENSCANS_PORT": "0"}) as server:
        assert server.get("/api/health").status_code == 200


def test_a_setting_that_is_written_wrong_is_said_with_the_nearest(tmp_path: Path) -> None:
    with live_server(tmp_path, {"OPENSCANS_THREAD": "4"}) as server:
        (line,) = warnings_of(server)
    assert line.endswith("the nearest that is one is OPENSCANS_THREADS.")


@pytest.mark.parametrize("name", ["OPENSCANS_HOST", "OPENSCANS_PORT", "OPENSCANS_DEBUG"])
def test_what_is_ours_and_wrong_is_one_line_and_exit_code_2(tmp_path: Path, name: str) -> None:
    ended = run({name: "*", "OPENSCANS_HOME": str(tmp_path)})
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"{name} ")


@pytest.mark.parametrize("value", ["292", f"292={'x' * 64}", f"999={'0' * 64}"])
def test_digests_that_would_guard_nothing_end_the_start(tmp_path: Path, value: str) -> None:
    ended = run({"OPENSCANS_DIGESTS": value, "OPENSCANS_HOME": str(tmp_path)})
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("OPENSCANS_DIGESTS ")


def run(env: Mapping[str, str | None]) -> subprocess.CompletedProcess[str]:
    """main.py in this environment, until it ends by itself; None takes a variable away."""
    whole = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
    return subprocess.run(
        [sys.executable, *MAIN], cwd=ROOT, env={"PORT": "0", **whole}, capture_output=True, text=True, timeout=20
    )


def worker_answers(server: LiveServer, folder: Path) -> bool:
    """Whether the worker process can be started; it says of a text that it is no image."""
    text = folder / "text"
    text.write_text("no image")
    return bool(server.detect(text).json()["code"] == "unsupported_file")


# A home that is not named


@pytest.mark.skipif(sys.platform == "win32", reason="Windows' users have no entry that can be asked")
@pytest.mark.parametrize("home", [None, ""])
def test_without_home_the_folder_that_the_system_knows_is_used(home: str | None) -> None:
    told = "import os, pwd, config; print(config.Settings.from_env({}).home, pwd.getpwuid(os.getuid()).pw_dir)"
    inherited = {name: value for name, value in os.environ.items() if name != "HOME"}
    env = inherited | ({} if home is None else {"HOME": home})
    ended = subprocess.run([sys.executable, "-c", told], cwd=ROOT, env=env, capture_output=True, text=True, timeout=20)
    used, known = ended.stdout.split()
    assert Path(used) == Path(known) / ".openscans"


def test_where_nobody_knows_the_user_a_sentence_says_so(odd_disk: Mapping[str, str]) -> None:
    ended = run({**odd_disk, "ODD_USER": "1", "HOME": None, "OPENSCANS_HOME": None})
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("OPENSCANS_HOME needs a whole path")


def test_where_nobody_knows_the_user_a_whole_path_is_enough(tmp_path: Path, odd_disk: Mapping[str, str]) -> None:
    with live_server(tmp_path / "home", {**odd_disk, "ODD_USER": "1", "HOME": ""}) as server:
        status = server.get("/api/models/status?task=vertebrae").json()
        assert status["path"] == str(tmp_path / "home/models/totalsegmentator")
        assert worker_answers(server, tmp_path)


# Folders that are gone


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no folder that somebody works in")
def test_it_works_where_its_folder_was_removed_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    with live_server(tmp_path / "home", program=("-c", REMOVED, *MAIN), cwd=tmp_path / "gone") as server:
        assert worker_answers(server, tmp_path)
        assert server.get("/api/models/status").status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no folder that somebody works in")
def test_it_works_where_its_folder_was_removed_while_it_ran(tmp_path: Path) -> None:
    folder = tmp_path / "soon-gone"
    folder.mkdir()
    with live_server(tmp_path / "home", {"OPENSCANS_KEEP_WARM_S": "0"}, cwd=folder) as server:
        folder.rmdir()
        assert worker_answers(server, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no folder that somebody works in")
def test_a_home_that_begins_where_nothing_is_any_more_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", REMOVED, *MAIN],
        cwd=tmp_path / "gone",
        env={**os.environ, "PORT": "0", "OPENSCANS_HOME": "here"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("OPENSCANS_HOME needs a whole path")


def test_it_works_without_a_folder_for_temporary_files(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with live_server(tmp_path / "home", {"TMPDIR": nowhere, "TEMP": nowhere, "TMP": nowhere}) as server:
        assert worker_answers(server, tmp_path)
