"""Homes that are closed, stale, read-only, made of links, or with names that are no text; and folders of others."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from openscans.system.files import LINKED_FROM_BYTES
from phantom.files import write_nifti
from tests.live_server import MAIN, ROOT, live_server
from tests.model_homes import CHECKPOINT, MR, files_below, import_over_http, told_state
from tests.phantom_server import lumbar_scan, phantom_server
from tests.release_server import DATASETS, ReleaseServer, training_files, write_folder, write_release, write_zip

OFFLINE = {"OPENSCANS_OFFLINE": "1"}
MODELS = "models/totalsegmentator"

PLAIN = ("-m", "tests.plain_user", *MAIN)
"""The server as somebody for whom permissions hold."""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A results folder of TotalSegmentator's."""
    return write_folder(tmp_path / "theirs", training_files(756, checkpoint_bytes=LINKED_FROM_BYTES + 1))


def run(home: Path, program: tuple[str, ...] = MAIN, **env: str) -> subprocess.CompletedProcess[str]:
    """A server that ends by itself."""
    return subprocess.run(
        [sys.executable, *program, "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "OPENSCANS_HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=20,
    )


# Homes that are closed, gone or read-only


def ends_with_a_sentence(ended: subprocess.CompletedProcess[str]) -> bool:
    lines = ended.stderr.splitlines()
    return (ended.returncode, ended.stdout, len(lines)) == (2, "", 1) and "OPENSCANS_HOME" in lines[0]


@pytest.mark.parametrize("below", ["", "home"])
def test_a_home_that_is_a_file_is_a_sentence(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    assert ends_with_a_sentence(run(tmp_path / "file" / below))


def test_a_home_that_is_stale_is_a_sentence(home: Path, odd_disk: Mapping[str, str]) -> None:
    home.with_name("home.stale").touch()
    ended = run(home, **odd_disk, ODD_STALE=str(home))
    assert ends_with_a_sentence(ended)
    assert "Stale file handle" in ended.stderr


def test_a_home_that_gets_stale_and_comes_back_costs_no_500(
    home: Path, theirs: Path, odd_disk: Mapping[str, str]
) -> None:
    sign = home.with_name("home.stale")
    with live_server(home, {**OFFLINE, **odd_disk, "ODD_STALE": str(home)}) as live:
        import_over_http(live, theirs)
        sign.touch()
        assert told_state(live) == "absent"
        assert live.get("/api/models/cache-stats").status_code == 200
        assert live.get("/api/health").status_code == 200
        refused = live.delete("/api/models/vertebrae_mr")
        assert (refused.status_code, refused.json()["hint"]) != (200, "")
        sign.unlink()
        assert told_state(live) == "ready"


@contextmanager
def closed(folder: Path, mode: int) -> Iterator[None]:
    """``folder`` with these permissions; skips the test where they hold for no process that can be started."""
    shut = folder.parent / "shut"
    shut.touch(mode=0)
    tried = [sys.executable, "-m", "tests.plain_user", "-c", f"open({str(shut)!r})"]
    if subprocess.run(tried, cwd=ROOT, capture_output=True, timeout=60).returncode == 0:
        pytest.skip("permissions hold for no process that can be started here")
    folder.chmod(mode)
    try:
        yield
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("mode", [0o000, 0o600])
def test_a_home_that_may_not_be_read_is_a_sentence(home: Path, mode: int) -> None:
    home.mkdir()
    with closed(home, mode):
        assert ends_with_a_sentence(run(home, PLAIN))


@pytest.mark.parametrize("closed_folder", ["models", f"{MODELS}/vertebrae_mr", f"{MODELS}/vertebrae_mr/{MR}"])
def test_models_that_may_not_be_read_are_not_ready_and_no_500(home: Path, theirs: Path, closed_folder: str) -> None:
    with live_server(home, OFFLINE, program=PLAIN) as live:
        import_over_http(live, theirs)
        with closed(home / closed_folder, 0):
            assert told_state(live) in {"absent", "damaged"}
            assert live.get("/api/models/cache-stats").status_code == 200
        assert live.get("/api/health").status_code == 200


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """``folder`` as a file system that takes nothing."""
    mount = shutil.which("mount")
    bind = [["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,bind,ro", str(folder)]]
    if mount is None or any(subprocess.run(line, capture_output=True).returncode for line in bind):
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
        pytest.skip("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_home_that_is_read_only_serves_what_it_holds(home: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.nii"
    write_nifti(image, *lumbar_scan())
    with phantom_server(home) as live:
        assert live.detect(image, fast_mode=True).json()["success"]
    with read_only(home), live_server(home, OFFLINE) as live:
        assert "OPENSCANS_HOME cannot be written" in "\n".join(live.errors)
        assert live.get("/api/models/status?task=total_body").json()["state"] == "ready"
        answers = [live.detect(image, fast_mode=True, use_cache=cached).json() for cached in (True, False)]
        assert [answer.get("cached") for answer in answers] == [True, False]
        assert "Read-only file system" in live.delete("/api/models/vertebrae").json()["error"]


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    """A study of one image."""
    write_nifti(tmp_path / "image.nii", *lumbar_scan())
    return write_zip(tmp_path / "study.zip", {"image.nii": (tmp_path / "image.nii").read_bytes()})


def is_told_to_let_it_write(answer: httpx.Response) -> bool:
    told = answer.json()
    return (answer.status_code, told["code"]) == (507, "disk_full") and "OPENSCANS_HOME" in told["hint"]


def test_on_a_home_that_is_read_only_a_zip_is_refused_with_what_to_do(home: Path, zipped: Path) -> None:
    home.mkdir()
    with read_only(home), live_server(home, OFFLINE) as live:
        refused = live.detect(zipped)
        assert is_told_to_let_it_write(refused)
        assert "Read-only file system" in refused.json()["error"]
        assert is_told_to_let_it_write(live.post("/api/models/import/vertebrae_mr", {"file_path": str(zipped)}))


def test_on_a_home_that_others_alone_may_write_a_zip_is_refused_with_what_to_do(home: Path, zipped: Path) -> None:
    home.mkdir()
    with closed(home, 0o555), live_server(home, OFFLINE, program=PLAIN) as live:
        refused = live.detect(zipped)
        assert is_told_to_let_it_write(refused)
        assert "Permission denied" in refused.json()["error"]
        assert is_told_to_let_it_write(live.post("/api/models/import/vertebrae_mr", {"file_path": str(zipped)}))


def test_where_a_model_s_folder_may_not_be_written_every_change_of_it_says_what_to_do(
    home: Path, theirs: Path, tmp_path: Path
) -> None:
    zip_path = write_zip(tmp_path / "weights.zip", training_files(756))
    place = home / MODELS / "vertebrae_mr"
    with (
        ReleaseServer.over(write_release(tmp_path / "release", 756)) as release,
        live_server(home, {"OPENSCANS_WEIGHTS_URL": release.url}, program=PLAIN) as live,
    ):
        import_over_http(live, theirs)
        with closed(place, 0o555):
            for path in (theirs, zip_path):
                assert is_told_to_let_it_write(live.post("/api/models/import/vertebrae_mr", {"file_path": str(path)}))
            assert is_told_to_let_it_write(live.delete("/api/models/vertebrae_mr"))
            assert told_state(live) == "ready"
        live.delete("/api/models/vertebrae_mr")
        place.mkdir(exist_ok=True)
        with closed(place, 0o555), live.events("POST", "/api/models/download/vertebrae_mr") as events:
            assert list(events)[-1]["code"] == "disk_full"


# Links


def test_a_linked_dataset_is_used_and_deleting_it_leaves_what_it_leads_to(home: Path, theirs: Path) -> None:
    place, elsewhere = home / MODELS / "vertebrae_mr" / MR, home.with_name("elsewhere")
    with live_server(home, OFFLINE) as live:
        import_over_http(live, theirs)
        place.rename(elsewhere)
        place.symlink_to(elsewhere)
        assert told_state(live) == "ready"
        before = files_below(elsewhere)
        deleted = live.delete("/api/models/vertebrae_mr").json()
        assert (deleted["success"], deleted["freed_space_mb"]) == (True, 0)
        assert (told_state(live), os.path.lexists(place)) == ("absent", False)
    assert files_below(elsewhere) == before


def test_a_link_that_leads_nowhere_is_replaced_and_deleted(home: Path, theirs: Path) -> None:
    place = home / MODELS / "vertebrae_mr" / MR
    place.parent.mkdir(parents=True)
    with live_server(home, OFFLINE) as live:
        place.symlink_to(home / "nowhere")
        assert told_state(live) == "damaged"
        import_over_http(live, theirs)
        assert live.delete("/api/models/vertebrae_mr").json()["success"]
        place.parent.mkdir(parents=True)
        place.symlink_to(home / "nowhere")
        assert live.delete("/api/models/vertebrae_mr").json()["success"]
        assert not os.path.lexists(place)


def test_a_linked_folder_of_a_task_stays_when_its_models_are_deleted(home: Path, theirs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "large disk"
    elsewhere.mkdir()
    (home / MODELS).mkdir(parents=True)
    (home / MODELS / "vertebrae_mr").symlink_to(elsewhere)
    with live_server(home, OFFLINE) as live:
        import_over_http(live, theirs)
        deleted = live.delete("/api/models/vertebrae_mr")
        assert deleted.json().get("success"), deleted.text
        assert told_state(live) == "absent"
    assert list(elsewhere.iterdir()) == []


def linked_files(theirs: Path, store: Path) -> Path:
    """Every file as a link into a store, by relative paths, as git-annex and others lay them out."""
    store.mkdir()
    for number, file in enumerate(path for path in theirs.rglob("*") if path.is_file()):
        file.rename(store / str(number))
        file.symlink_to(os.path.relpath(store / str(number), file.parent))
    return theirs


def linked_fold(theirs: Path, store: Path) -> Path:
    fold = (theirs / CHECKPOINT).parent
    fold.rename(store)
    fold.symlink_to(store)
    return theirs


def linked_dataset(theirs: Path, store: Path) -> Path:
    (theirs / MR).rename(store)
    (theirs / MR).symlink_to(store)
    return theirs


@pytest.mark.skipif(sys.platform == "win32", reason="who makes links on Windows needs a right of its own")
@pytest.mark.parametrize("link", [linked_files, linked_fold, linked_dataset])
def test_what_is_importable_through_links_is_imported_and_stays(
    home: Path, theirs: Path, tmp_path: Path, link: Callable[[Path, Path], Path]
) -> None:
    store = tmp_path / "store"
    link(theirs, store)
    with live_server(home, {**OFFLINE, "TOTALSEG_WEIGHTS_PATH": str(theirs)}) as live:
        importable = live.get("/api/models/status?task=vertebrae_mr").json()["importable"]
        import_over_http(live, Path(importable))
        folder = home / MODELS / "vertebrae_mr"
        assert not [path for path in folder.rglob("*") if path.is_symlink()]
        assert (folder / CHECKPOINT).stat().st_size > LINKED_FROM_BYTES
        assert live.delete("/api/models/vertebrae_mr").json()["success"]
    assert (theirs / CHECKPOINT).stat().st_size > LINKED_FROM_BYTES


def test_a_linked_dataset_is_imported_by_the_link_s_name(home: Path, theirs: Path, tmp_path: Path) -> None:
    linked_dataset(theirs, tmp_path / "store")
    (tmp_path / "mine").symlink_to(theirs / MR)
    with live_server(home, OFFLINE) as live:
        import_over_http(live, theirs / MR)


# Names, and folders of others


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_a_home_whose_name_is_no_text_works(tmp_path: Path, theirs: Path) -> None:
    home = Path(os.fsdecode(os.fsencode(tmp_path) + b"/h\xf6me"))
    env = {**OFFLINE, "HOME": str(home), "TOTALSEG_WEIGHTS_PATH": str(home / "weights")}
    write_folder(home / "weights", training_files(756))
    with live_server(home, env) as live:
        status = live.get("/api/models/status?task=vertebrae_mr").json()
        assert status["cache_path"].endswith(f"/h\\udcf6me/{MODELS}/vertebrae_mr")
        assert status["importable"] is None
        import_over_http(live, theirs)
        assert live.get("/api/models/cache-stats").status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_a_file_whose_name_is_no_text_is_named_where_it_is_damaged(home: Path, theirs: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(theirs / MR / DATASETS[756].training) + b"/not\xe9s.txt"))
    odd.write_text("a note")
    with live_server(home, OFFLINE) as live:
        import_over_http(live, theirs)
        (home / MODELS / "vertebrae_mr" / odd.relative_to(theirs)).unlink()
        status = live.get("/api/models/status?task=vertebrae_mr")
        assert (status.status_code, status.json()["state"]) == (200, "damaged")
        assert "not\\udce9s.txt" in status.json()["warnings"][-1]["message"]


@pytest.mark.parametrize("shut", [".", MR, CHECKPOINT])
def test_weights_of_another_user_are_not_importable_and_no_500(home: Path, theirs: Path, shut: str) -> None:
    with (
        live_server(home, {**OFFLINE, "TOTALSEG_WEIGHTS_PATH": str(theirs)}, program=PLAIN) as live,
        closed(theirs / shut, 0),
    ):
        status = live.get("/api/models/status?task=vertebrae_mr")
        assert (status.status_code, status.json()["importable"]) == (200, None)
        refused = live.post("/api/models/import/vertebrae_mr", {"file_path": str(theirs)})
        assert refused.json()["code"] in {"file_not_found", "corrupt_file"}
    assert files_below(home / "models") == set()


def test_a_zip_of_another_user_is_not_found(home: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "mr.zip", training_files(756))
    with live_server(home, OFFLINE, program=PLAIN) as live, closed(path, 0):
        refused = live.post("/api/models/import/vertebrae_mr", {"file_path": str(path)})
    assert (refused.status_code, refused.json()["code"]) == (404, "file_not_found")
