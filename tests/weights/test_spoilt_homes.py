"""A home in which something else lies than what was put there: told as damage, and never an error of the server."""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from phantom.files import write_nifti
from tests.live_server import LiveServer, live_server
from tests.model_homes import MR, offline
from tests.phantom_server import lumbar_scan, phantom_server
from tests.release_server import DATASETS, ReleaseServer, training_files, write_folder, write_release

OFFLINE = {"OPENSCANS_OFFLINE": "1"}
MODELS = "models/totalsegmentator"
MANIFEST = f"{MODELS}/vertebrae_mr/{MR}/manifest.json"

SEED, ROUNDS = 20_261_127, 150

VALUES = (
    None,
    True,
    -1,
    10**40,
    1.5,
    float("inf"),
    "",
    "x",
    "/etc/passwd",
    "../x",
    "\0",
    "\udc80",
    "\ud800",
    [],
    [[]],
    {},
)


@pytest.fixture
def whole(home: Path, tmp_path: Path) -> Path:
    """A home with one model."""
    offline(home).import_from("vertebrae_mr", write_folder(tmp_path / "theirs", training_files(756, 1000)))
    return home


def status_of(server: LiveServer) -> dict[str, object]:
    answer = server.get("/api/models/status?task=vertebrae_mr")
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def rewrite(path: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    """The manifest at ``path`` after ``change`` of its files."""
    keys = json.loads(path.read_text())
    keys["signature"] = {"by": "a newer version"}
    change(keys["files"])
    path.write_text(json.dumps(keys))


def add_digest(files: dict[str, dict[str, object]]) -> None:
    for kept in files.values():
        kept["blake3"] = "00"


def leave_out_plans(files: dict[str, dict[str, object]]) -> None:
    del files[f"{DATASETS[756].training}/plans.json"]


def test_a_manifest_with_newer_keys_is_read(whole: Path) -> None:
    rewrite(whole / MANIFEST, add_digest)
    with live_server(whole, OFFLINE) as server:
        assert status_of(server)["state"] == "ready"


def test_a_manifest_without_a_required_file_is_damage_that_is_named(whole: Path, tmp_path: Path) -> None:
    rewrite(whole / MANIFEST, leave_out_plans)
    image = tmp_path / "image.nii"
    image.write_bytes(b"\0" * 400)
    with live_server(whole, OFFLINE) as server:
        status = status_of(server)
        assert status["state"] == "damaged"
        assert f"{MR}/{DATASETS[756].training}/plans.json is missing" in str(status["warnings"])
        refused = server.detect(image, model="vertebrae_mr")
        assert (refused.status_code, refused.json()["code"]) == (503, "model_missing")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in its folders, and rarely links")
def test_whatever_lies_in_a_home_its_status_is_told(whole: Path, tmp_path: Path) -> None:
    template, chance = tmp_path / "template", random.Random(SEED)
    shutil.copytree(whole, template)
    with live_server(whole, OFFLINE) as server, server.client(timeout_s=20) as client:
        for round_ in range(ROUNDS):
            remove(whole / "models")
            shutil.copytree(template / "models", whole / "models")
            done = [spoil(whole / MODELS, chance) for _ in range(chance.randint(1, 3))]
            for address in ("status", "cache-stats"):
                answer = client.get(f"/api/models/{address}")
                assert answer.status_code == 200, (round_, done, answer.text, server.errors[-12:])
        assert client.get("/api/health").status_code == 200


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in its folders, and rarely links")
def test_whatever_lies_in_a_home_a_server_starts_over_it(whole: Path) -> None:
    chance = random.Random(SEED)
    for _ in range(12):
        spoil(whole / MODELS, chance)
    with live_server(whole, OFFLINE) as server:
        status_of(server)
    assert not [line for line in server.errors if line.startswith("Traceback")]


def test_what_a_crash_left_and_nobody_may_tidy_up_keeps_no_server_from_starting(whole: Path) -> None:
    (whole / MODELS / f"vertebrae_mr/{MR}.unpacking").mkdir()
    lock = whole / MODELS / f"locks/{MR}.lock"
    remove(lock)
    lock.mkdir()
    with live_server(whole, OFFLINE) as server:
        assert status_of(server)["state"] == "ready"
    assert "cannot be tidied up" in (whole / "logs/server.log").read_text()


NO_PIPES = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in its folders")


@NO_PIPES
def test_a_pipe_in_the_place_of_an_empty_file_is_damage(home: Path, tmp_path: Path) -> None:
    """A pipe's size is told as nothing, as an empty file's is."""
    files = {**training_files(756, 1000), f"{MR}/{DATASETS[756].training}/notes.txt": b""}
    offline(home).import_from("vertebrae_mr", write_folder(tmp_path / "theirs", files))
    place = home / MODELS / "vertebrae_mr" / MR / DATASETS[756].training / "notes.txt"
    remove(place)
    put_pipe(place)
    with live_server(home, OFFLINE) as server:
        assert status_of(server)["state"] == "damaged"


@NO_PIPES
@pytest.mark.parametrize("end", [".zip", ".zip.part", ".zip.part.json"])
def test_a_pipe_in_the_place_of_what_a_download_keeps_gives_way_to_it(home: Path, tmp_path: Path, end: str) -> None:
    place = home / MODELS / "vertebrae_mr" / f"{MR}{end}"
    place.parent.mkdir(parents=True)
    put_pipe(place)
    with (
        ReleaseServer.over(write_release(tmp_path / "release", 756)) as release,
        live_server(home, {"OPENSCANS_WEIGHTS_URL": release.url}) as server,
        server.events("POST", "/api/models/download/vertebrae_mr") as events,
    ):
        assert list(events)[-1]["status"] == "complete"


@NO_PIPES
def test_pipes_in_the_place_of_all_that_was_kept_cost_no_answer(home: Path, tmp_path: Path) -> None:
    """Answers, compiled networks, how long patches take."""
    image = tmp_path / "image.nii"
    write_nifti(image, *lumbar_scan())
    with phantom_server(home) as server:
        assert server.detect(image, fast_mode=True).json()["success"]
    kept = [path for path in (home / "cache").rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} >= {".json", ".blob"}
    for path in kept:
        remove(path)
        put_pipe(path)
    with live_server(home, OFFLINE) as server:
        found = server.detect(image, fast_mode=True).json()
    assert (found["success"], found["cached"]) == (True, False)


@NO_PIPES
@pytest.mark.parametrize("name", ["server.log", "server.lock", "worker.log"])
def test_a_pipe_in_the_place_of_a_log_leaves_the_log_beside_it(home: Path, tmp_path: Path, name: str) -> None:
    (home / "logs").mkdir(parents=True)
    put_pipe(home / "logs" / name)
    text = tmp_path / "text"
    text.write_text("no image")
    with live_server(home, OFFLINE) as server:
        assert server.detect(text).json()["code"] == "unsupported_file"
    assert [path for path in (home / "logs").glob("*.log") if path.is_file()]


def spoil(root: Path, chance: random.Random) -> str:
    """Put something else in the place of something, or change what is written there; what was done."""
    found = sorted(root.rglob("*"))
    beside = [
        place.with_name(place.name + end) for place in found for end in (".zip", ".zip.part", ".zip.part.json", ".old")
    ]
    place = chance.choice([root, *found, *beside, root / f"locks/{MR}.lock"])
    if place.name == "manifest.json" and place.is_file() and chance.random() < 0.8:
        place.write_text(nonsense(place.read_text(), chance))
        return f"nonsense in {place}"
    remove(place)
    if not place.parent.is_dir():
        return "nothing"
    put = chance.choice([put_folder, put_file, put_link, put_loop, put_pipe])
    put(place)
    return f"{put.__name__} at {place}"


def nonsense(text: str, chance: random.Random) -> str:
    try:
        keys = json.loads(text)
        holder = chance.choice([keys, keys["files"], *keys["files"].values()])
        holder[chance.choice([*holder, *map(str, VALUES)])] = chance.choice(VALUES)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return chance.choice(["", "[" * 100_000, "[]", "null", "{}", "\ufeff{}", text[:-20]])
    return json.dumps(keys)


def remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif os.path.lexists(place):
        place.unlink()


def put_folder(place: Path) -> None:
    (place / "below").mkdir(parents=True)


def put_file(place: Path) -> None:
    place.write_text("{}")


def put_link(place: Path) -> None:
    place.symlink_to("/nowhere")


def put_loop(place: Path) -> None:
    place.symlink_to(place.name)


def put_pipe(place: Path) -> None:
    os.mkfifo(place)
