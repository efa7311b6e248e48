"""What is found in a folder and below it, and where looking for it ends."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openscans import volumes
from openscans.errors import FolderTooLarge, InputNotFound
from openscans.jobs.fingerprint import take_fingerprint
from openscans.system import folder_walk
from openscans.system.folder_walk import FolderWalk
from tests.live_server import LiveServer, live_server

SOON_S = 20.0
"""A worker's start on a machine that runs other tests beside, and a listing of 50,000 names."""


def paths(walk: FolderWalk) -> list[str]:
    return [Path(entry.path).relative_to(walk.top).as_posix() for entry in walk]


def nested(top: Path, depth: int) -> Path:
    folder = top.joinpath(*["f"] * depth)
    folder.mkdir(parents=True)
    (folder / "file").touch()
    return top


def test_files_come_folder_by_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "a/deep/x", "z", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert paths(FolderWalk(tmp_path)) == ["c", "z", "a/deep/x", "b/10", "b/2"]
    assert paths(FolderWalk(tmp_path, deep=False)) == ["c", "z"]


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "twice").symlink_to("a")
    assert paths(FolderWalk(tmp_path)) == ["twice", "a/file", "a/round"]


def test_a_folder_may_be_as_deep_as_the_limit_and_no_deeper(tmp_path: Path) -> None:
    assert len(paths(FolderWalk(nested(tmp_path / "in", folder_walk.DEEPEST)))) == 1
    with pytest.raises(FolderTooLarge, match="32 folders deep") as caught:
        paths(FolderWalk(nested(tmp_path / "beyond", folder_walk.DEEPEST + 1)))
    assert (caught.value.code, caught.value.hint) == ("invalid_request", "Name the series' folder.")


@pytest.mark.parametrize("kind", ["files", "folders"])
def test_files_and_folders_are_counted_as_far_as_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(folder_walk, "MOST_NAMES", 10)
    (tmp_path / "below").mkdir()
    for number in range(9):
        path = tmp_path / "below" / str(number)
        path.mkdir() if kind == "folders" else path.touch()
    assert len(paths(FolderWalk(tmp_path))) == (0 if kind == "folders" else 9)
    (tmp_path / "one more").touch()
    with pytest.raises(FolderTooLarge, match="more than 10 files and folders"):
        paths(FolderWalk(tmp_path))


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no other disk is mounted below a folder that is known")
def test_another_disk_below_the_folder_is_not_entered() -> None:
    walk = FolderWalk(Path("/dev"))
    assert not [path for path in paths(walk) if path.startswith("shm/")]
    assert Path("/dev/shm") in walk.mounts


def test_every_reader_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_walk, "MOST_NAMES", 3)
    for number in range(4):
        (tmp_path / f"{number}.dcm").write_bytes(bytes(128) + b"DICM")
    assert take_fingerprint(tmp_path, None) is None
    with pytest.raises(FolderTooLarge):
        volumes.open(tmp_path)


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no other disk is mounted below a folder that is known")
def test_where_only_other_disks_lie_below_the_hint_says_so() -> None:
    with pytest.raises(InputNotFound, match="no DICOM file") as caught:
        volumes.open(Path("/dev"))
    assert "other disks" in caught.value.hint


@pytest.fixture(scope="module", params=["anywhere", "below /"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The real server with the real readers; with allowed folders it looks through a folder for links itself."""
    env = {"OPENSCANS_OFFLINE": "1", "OPENSCANS_ALLOWED_ROOTS": "" if request.param == "anywhere" else "/"}
    with live_server(tmp_path_factory.mktemp("home"), env) as server:
        yield server


@pytest.mark.parametrize("options", [{}, {"use_cache": False, "series_uid": "1.2.3"}], ids=["cached", "anew"])
def test_a_whole_disk_is_refused_soon(server: LiveServer, options: dict[str, object]) -> None:
    since_s = time.monotonic()
    answer = server.detect("/", **options)
    assert time.monotonic() - since_s < SOON_S
    # A small container's disk has fewer names than the limit, and perhaps no image.
    assert answer.json()["code"] in {"invalid_request", "file_not_found", "no_image"}
    assert answer.status_code in {404, 422}
    if answer.json()["code"] == "invalid_request":
        assert answer.json()["hint"] == "Name the series' folder."
