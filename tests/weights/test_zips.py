"""A zip that is not what it should be installs nothing and leaves nothing; what is not of a model stays out."""

import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_manager import Models
from openscans.errors import UnusableImport
from openscans.weights.archive import MOST_BYTES, MOST_ENTRIES
from tests.model_homes import CHECKPOINT, MR, files_below, last, offline
from tests.release_server import DATASETS, ReleaseServer, release_zip, training_files, write_release, write_zip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReleaseServer]:
    with ReleaseServer.over(write_release(tmp_path / "release", 756)) as running:
        yield running


def zip_with(path: Path, name: str, mode: int = stat.S_IFREG | 0o644) -> Path:
    write_zip(path, training_files(756))
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, b"/etc/passwd")
    return path


TRICKS = {
    "leaves its folder": ("../evil", stat.S_IFREG),
    "leaves from inside": (f"{MR}/../../evil", stat.S_IFREG),
    "absolute": ("/tmp/evil", stat.S_IFREG),
    "backslashes": (f"{MR}\\..\\..\\evil", stat.S_IFREG),
    "drive": ("C:evil", stat.S_IFREG),
    "symlink": (f"{MR}/link", stat.S_IFLNK),
    "device": (f"{MR}/device", stat.S_IFCHR),
    "pipe": (f"{MR}/pipe", stat.S_IFIFO),
    "same name": (CHECKPOINT.upper(), stat.S_IFREG),
}


@pytest.mark.parametrize(("name", "mode"), TRICKS.values(), ids=TRICKS.keys())
def test_a_zip_with_a_trick_installs_nothing(home: Path, tmp_path: Path, name: str, mode: int) -> None:
    bad = zip_with(tmp_path / "bad.zip", name, mode)
    with pytest.raises(UnusableImport):
        offline(home).import_from("vertebrae_mr", bad)
    assert files_below(tmp_path) == {"bad.zip"}


@pytest.mark.parametrize("lacking", ["plans.json", "dataset.json", "checkpoint_final.pth"])
def test_a_zip_without_a_needed_file_installs_nothing(home: Path, tmp_path: Path, lacking: str) -> None:
    files = {name: content for name, content in training_files(756).items() if not name.endswith(f"/{lacking}")}
    with pytest.raises(UnusableImport, match=lacking):
        offline(home).import_from("vertebrae_mr", write_zip(tmp_path / "bad.zip", files))
    assert files_below(tmp_path) == {"bad.zip"}


def with_a_changed_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_its_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def with_files_before_its_start(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # The directory's offset, in the last 22 bytes; every file's place is counted from it.
    content[-6:-2] = (int.from_bytes(content[-6:-2], "little") + 5000).to_bytes(4, "little")
    path.write_bytes(content)


def with_a_changed_byte_in_lzma(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in training_files(756).items():
            archive.writestr(name, content)
    with_a_changed_byte(path)


def with_a_bomb(path: Path) -> None:
    """Says that its checkpoint unpacks to more than any model has."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", b"")
        archive.filelist[3].file_size = MOST_BYTES + 1


def with_a_hidden_bomb(path: Path) -> None:
    """Says that its checkpoint is small; it would unpack to a thousand times that."""
    files = training_files(756)
    files[CHECKPOINT] = bytes(20_000_000)
    write_zip(path, files)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", b"")
        archive.filelist[3].file_size = 20_000


def with_more_files_than_any_model(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(MOST_ENTRIES):
            archive.writestr(f"{MR}/{number}", b"")


def with_a_trick(path: Path) -> None:
    zip_with(path, "../evil")


def without_plans(path: Path) -> None:
    write_zip(path, {name: content for name, content in training_files(756).items() if "plans.json" not in name})


SPOILERS = [
    with_a_bomb,
    with_a_hidden_bomb,
    with_more_files_than_any_model,
    with_a_trick,
    without_plans,
    with_a_changed_byte,
    without_its_end,
    with_files_before_its_start,
    with_a_changed_byte_in_lzma,
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_damaged_download_is_thrown_away_and_fetched_anew(
    models: Models, server: ReleaseServer, home: Path, spoil: Callable[[Path], None]
) -> None:
    path = release_zip(server.folder, 756)
    spoil(path)
    failed = last(models.download("vertebrae_mr"))
    assert (failed.status, failed.code) == ("error", "download_failed")
    assert failed.error is not None
    assert "unusable" in failed.error
    assert files_below(home) == set()
    write_zip(path, training_files(756))
    assert last(models.download("vertebrae_mr")).status == "complete"


def test_a_page_instead_of_a_zip_is_refused(models: Models, server: ReleaseServer, home: Path) -> None:
    release_zip(server.folder, 756).write_bytes(b"<html>Log in to the hospital's network</html>")
    assert last(models.download("vertebrae_mr")).code == "download_failed"
    assert files_below(home) == set()


def test_junk_and_other_trainings_are_left_out(home: Path, tmp_path: Path) -> None:
    training = f"{MR}/{DATASETS[756].training}"
    junk = [f"__MACOSX/{training}/._plans.json", f"{training}/.DS_Store", f"{training}/._dataset.json"]
    other = f"{MR}/other__nnUNetResEncUNetLPlans_8__3d_fullres/plans.json"
    files = training_files(756) | dict.fromkeys([*junk, other], b"x")
    models = offline(home)
    models.import_from("vertebrae_mr", write_zip(tmp_path / "mr.zip", files))
    task_folder = Path(models.status("vertebrae_mr").cache_path)
    assert files_below(task_folder) == {*training_files(756), f"{MR}/manifest.json"}
