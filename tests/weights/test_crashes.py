"""Killed at whatever step, the next server finds a home that it can go on with: nothing lost, nothing left over."""

import random
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from openscans.system import locks
from tests.live_server import ROOT, LiveServer, live_server
from tests.model_homes import CHECKPOINT, MR, files_below, last, offline, online
from tests.release_server import release_zip, training_files, write_release, write_zip
from tests.slow_release import PIECE_BYTES, SlowRelease

AUDITED = ("-m", "tests.audited_server")

ON_THE_WAY_BYTES = 64 * 1024
"""What a kill may lose: a buffer of the program's, and what the system has not handed to it."""

INSTALLED = {f"models/totalsegmentator/vertebrae_mr/{name}" for name in (*training_files(756), f"{MR}/manifest.json")}

STEPS = {
    "the last byte has come": ("os.rename .zip", "partial"),
    "verifying": (f"open {MR}.zip", "partial"),
    "extracting": ("open fold_0/checkpoint_final.pth", "partial"),
    "writing the manifest": ("open manifest.json.new", "partial"),
    "naming the manifest": ("os.rename manifest.json", "partial"),
    "putting it in place": ("os.rename .unpacking", "ready"),
    "cleaning up": ("os.remove .zip", "ready"),
}
"""What the killed server was about to do, and what the next one makes of it."""

KILLS = 20
LARGER_BYTES = 2_000_000
DOWNLOAD_S = 0.8
"""Together with the time that a process needs to load, some seconds in all."""


@pytest.fixture
def release(tmp_path: Path) -> Iterator[SlowRelease]:
    with SlowRelease.over(write_release(tmp_path / "release", 756)) as running:
        yield running


def models_below(home: Path) -> set[str]:
    return {name for name in files_below(home) if name.startswith("models/")}


def state(server: LiveServer) -> str:
    return str(server.get("/api/models/status?task=vertebrae_mr").json()["state"])


def downloaded(server: LiveServer) -> dict[str, Any]:
    """The last event of a download."""
    with server.events("POST", "/api/models/download/vertebrae_mr") as events:
        return list(events)[-1]


def assert_whole(server: LiveServer, home: Path) -> None:
    assert server.post("/api/models/verify/vertebrae_mr").json()["downloaded"]
    assert models_below(home) == INSTALLED


def killed_at(step: str, home: Path, release: SlowRelease, request: tuple[str, str]) -> None:
    """A server that kills itself at ``step`` while it answers ``request`` (method and path)."""
    env = {"OPENSCANS_WEIGHTS_URL": release.url, "AUDIT_DIE": step}
    with live_server(home, env, program=AUDITED) as server, server.client() as client:
        with pytest.raises(httpx.TransportError):
            client.request(*request)
        assert server.process.wait(10) == -9


DOWNLOAD = ("POST", "/api/models/download/vertebrae_mr")
DELETE = ("DELETE", "/api/models/vertebrae_mr")


def test_killed_while_it_downloads_a_server_leaves_its_bytes_to_the_next(release: SlowRelease, home: Path) -> None:
    release.pause_s = 0.02
    env = {"OPENSCANS_WEIGHTS_URL": release.url}
    with live_server(home, env) as server, server.events(*DOWNLOAD) as events:
        assert next(event for event in events if event.get("downloaded_mb", 0) >= 0.1)["status"] == "downloading"
        server.kill()
    part_bytes = next(home.rglob("*.part")).stat().st_size
    assert part_bytes >= 100_000 - ON_THE_WAY_BYTES
    release.pause_s = 0
    with live_server(home, env) as server:
        assert state(server) == "partial"
        assert downloaded(server)["status"] == "complete"
        assert_whole(server, home)
    assert release.asked[-1] == (release.asked[0][0], part_bytes)
    assert release.total_bytes() <= release_zip(release.folder, 756).stat().st_size + ON_THE_WAY_BYTES


@pytest.mark.parametrize(("step", "found"), STEPS.values(), ids=STEPS.keys())
def test_killed_at_a_step_of_the_installation_nothing_is_lost(
    release: SlowRelease, home: Path, step: str, found: str
) -> None:
    killed_at(step, home, release, DOWNLOAD)
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": release.url}) as server:
        assert state(server) == found
        assert not [name for name in models_below(home) if ".unpacking" in name]
        assert downloaded(server)["status"] == "complete"
        assert_whole(server, home)
    assert release.total_bytes() == release_zip(release.folder, 756).stat().st_size


def test_killed_between_the_old_and_the_new_model_the_new_one_is_put_in_place(release: SlowRelease, home: Path) -> None:
    models = offline(home)
    models.import_from("vertebrae_mr", release_zip(release.folder, 756))
    (Path(models.status("vertebrae_mr").cache_path) / CHECKPOINT).write_bytes(b"damaged")
    killed_at("os.rename .unpacking", home, release, DOWNLOAD)
    assert any(".old/" in name for name in models_below(home))
    with live_server(home, {"OPENSCANS_OFFLINE": "1"}) as server:
        assert_whole(server, home)


@pytest.mark.parametrize(("step", "found"), [("os.rename .old", "ready"), ("os.remove plans.json", "absent")])
def test_killed_while_it_deletes_the_model_is_there_or_gone(
    release: SlowRelease, home: Path, step: str, found: str
) -> None:
    offline(home).import_from("vertebrae_mr", release_zip(release.folder, 756))
    killed_at(step, home, release, DELETE)
    with live_server(home, {"OPENSCANS_OFFLINE": "1"}) as server:
        assert state(server) == found
        assert models_below(home) == (INSTALLED if found == "ready" else set())


def test_what_a_crash_left_torn_is_fetched_anew(release: SlowRelease, home: Path) -> None:
    zip_path = home / "models/totalsegmentator/vertebrae_mr" / f"{MR}.zip"
    zip_path.parent.mkdir(parents=True)
    zip_path.write_bytes(release_zip(release.folder, 756).read_bytes()[:1000])
    assert last(online(home, release.url).download("vertebrae_mr")).status == "complete"
    assert models_below(home) == INSTALLED


def test_what_another_living_process_is_busy_with_is_not_tidied_up(home: Path) -> None:
    place = home / "models/totalsegmentator/vertebrae_mr" / f"{MR}.unpacking"
    place.mkdir(parents=True)
    models = offline(home)
    with locks.hold_lock(home / f"models/totalsegmentator/locks/{MR}.lock", shared=False):
        models.tidy()
        assert place.exists()
    models.tidy()
    assert not place.exists()


def started(home: Path, release: SlowRelease) -> "subprocess.Popen[str]":
    program = [sys.executable, "-m", "tests.downloading_process", str(home), release.url, "vertebrae_mr"]
    return subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def let_go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def test_killed_at_random_instants_no_byte_is_fetched_twice(release: SlowRelease, home: Path) -> None:
    """The same instants every time; a download that was completed among them is deleted and begun anew."""
    write_zip(release_zip(release.folder, 756), training_files(756, checkpoint_bytes=LARGER_BYTES))
    whole_bytes = release_zip(release.folder, 756).stat().st_size
    release.pause_s = DOWNLOAD_S * PIECE_BYTES / whole_bytes
    moments = random.Random(20)
    models, completed = offline(home), 0
    waiting = deque(started(home, release) for _ in range(2))
    for kill in range(KILLS):
        process = waiting.popleft()
        let_go(process)
        # Loading takes longer than a download: the next ones load meanwhile.
        waiting += [started(home, release)] if kill + 2 < KILLS else []
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, DOWNLOAD_S))
        process.kill()
        assert process.wait() in {0, -9}
        assert models.status("vertebrae_mr").state in {"absent", "partial", "ready"}
        if models.status("vertebrae_mr").downloaded:
            models.verify("vertebrae_mr")
            assert models.status("vertebrae_mr").downloaded
            models.delete("vertebrae_mr")
            completed += 1
    release.pause_s = 0
    final = started(home, release)
    let_go(final)
    assert final.wait(20) == 0
    assert models_below(home) == INSTALLED
    assert release.total_bytes() <= (completed + 1) * whole_bytes + KILLS * ON_THE_WAY_BYTES
    assert completed < KILLS / 2
