"""Homes on disks that cannot do what others can: lock files, tell their size, make a folder's names durable."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.corpus.scene import series
from tests.live_server import ROOT, live_server
from tests.model_homes import import_over_http
from tests.release_server import ReleaseServer, training_files, write_folder

DOWNLOAD = "/api/models/download/vertebrae_mr"
OFFLINE = {"OPENSCANS_OFFLINE": "1"}

USING = """
import sys
from pathlib import Path
from openscans.errors import ModelInUse
from openscans.progress import ignore_progress
from tests.model_homes import offline
models = offline(Path(sys.argv[1]))
models.import_from("vertebrae_mr", Path(sys.argv[2]))
with models.ready("vertebrae_mr", ignore_progress, download=False):
    try:
        models.delete("vertebrae_mr")
    except ModelInUse as error:
        print(error.message)
print(models.delete("vertebrae_mr").removed)
"""
"""A process that deletes a model while it uses it, and afterwards; and what it is told."""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A results folder of TotalSegmentator's."""
    return write_folder(tmp_path / "theirs", training_files(756))


def test_without_locks_it_works_and_says_once_that_no_second_server_may(
    home: Path, server: ReleaseServer, odd_disk: Mapping[str, str]
) -> None:
    env = {**odd_disk, "ODD_LOCKS": str(errno.ENOSYS), "OPENSCANS_WEIGHTS_URL": server.url}
    with live_server(home, env) as live:
        with live.events("POST", DOWNLOAD) as events:
            assert list(events)[-1]["status"] == "complete"
        assert live.post("/api/models/verify/vertebrae_mr").json()["state"] == "ready"
        assert live.delete("/api/models/vertebrae_mr").json()["success"]
    assert (home / "logs/server.log").read_text().count("knows no locks") == 1


def test_without_locks_what_a_detection_uses_is_not_deleted_all_the_same(
    home: Path, theirs: Path, odd_disk: Mapping[str, str]
) -> None:
    env = {**os.environ, **odd_disk, "ODD_LOCKS": str(errno.ENOLCK)}
    ended = subprocess.run(
        [sys.executable, "-c", USING, str(home), str(theirs)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.splitlines() == ["A detection is using this model.", "True"], ended.stderr


def test_without_locks_a_zip_is_unpacked_all_the_same(home: Path, tmp_path: Path, odd_disk: Mapping[str, str]) -> None:
    series(tmp_path / "series")
    zipped = shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "series")
    with live_server(home, {**OFFLINE, **odd_disk, "ODD_LOCKS": str(errno.ENOLCK)}) as live:
        answer = live.detect(Path(zipped))
    assert answer.json()["code"] == "model_missing"


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS])
def test_names_that_cannot_be_made_durable_stop_nothing(
    home: Path, theirs: Path, odd_disk: Mapping[str, str], error: int
) -> None:
    with live_server(home, {**OFFLINE, **odd_disk, "ODD_FOLDER_SYNC": str(error)}) as live:
        import_over_http(live, theirs)


@pytest.mark.parametrize("room", ["unknown", str(errno.ENOSYS)])
def test_a_disk_that_tells_no_size_is_not_full(
    home: Path, theirs: Path, odd_disk: Mapping[str, str], room: str
) -> None:
    with live_server(home, {**OFFLINE, **odd_disk, "ODD_ROOM": room}) as live:
        import_over_http(live, theirs)


def test_a_disk_that_tells_a_size_and_no_room_is(home: Path, theirs: Path, odd_disk: Mapping[str, str]) -> None:
    with live_server(home, {**OFFLINE, **odd_disk, "ODD_ROOM": "none"}) as live:
        answer = live.post("/api/models/import/vertebrae_mr", {"file_path": str(theirs)})
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
