"""Folders that are lent: seen by nobody else, gone when they are given back, and after whatever ended their process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openscans.errors import OpenScansError
from openscans.system.private_folders import PrivateFolders, make_private

BORROWER = """
import sys
from pathlib import Path
from openscans.system.private_folders import PrivateFolders, make_private
with PrivateFolders(Path(sys.argv[1])).lend() as folder:
    make_private(folder)
    (folder / "image").write_bytes(b"image")
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def borrower(top: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A process that holds a lent folder with a file in it, and that folder."""
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", BORROWER, str(top)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def files_below(top: Path) -> list[Path]:
    return [path for path in top.rglob("*") if path.is_file() and path.suffix != ".lock"]


def fail_in(folder: Path) -> None:
    make_private(folder)
    raise ZeroDivisionError


def test_a_folder_is_gone_with_all_in_it_when_it_is_given_back(tmp_path: Path) -> None:
    folders = PrivateFolders(tmp_path / "private")
    with folders.lend() as folder:
        make_private(folder / "deep")
        (folder / "deep/image").write_bytes(b"image")
    assert not folder.exists()


def test_a_folder_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), PrivateFolders(tmp_path).lend() as folder:
        fail_in(folder)
    assert not folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_may_look_into_one(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with PrivateFolders(tmp_path / "private").lend() as folder:
            make_private(folder)
            for path in (folder, folder.parent, folder.parent.parent):
                assert path.stat().st_mode & 0o077 == 0
    finally:
        os.umask(old)


def test_two_at_a_time_lie_apart(tmp_path: Path) -> None:
    folders = PrivateFolders(tmp_path)
    with folders.lend() as one, folders.lend() as other, PrivateFolders(tmp_path).lend() as another:
        assert len({one, other, another}) == 3
        assert one.parent == other.parent != another.parent


def test_what_a_killed_process_left_goes_when_another_starts(tmp_path: Path) -> None:
    with borrower(tmp_path) as (process, folder):
        process.kill()
        process.wait()
        assert (folder / "image").exists()
        PrivateFolders(tmp_path).remove_left_over()
        assert files_below(tmp_path) == []


def test_what_lies_for_a_day_where_there_are_no_locks_goes_when_a_process_starts(tmp_path: Path) -> None:
    for name in ("unlocked-old", "unlocked-new"):
        make_private(tmp_path / name)
        (tmp_path / name / "image").write_bytes(b"image")
    os.utime(tmp_path / "unlocked-old", (1, 1))
    PrivateFolders(tmp_path).remove_left_over()
    assert [folder.name for folder in tmp_path.iterdir()] == ["unlocked-new"]


def test_what_a_living_process_has_stays_when_another_starts(tmp_path: Path) -> None:
    with borrower(tmp_path) as (_, folder):
        PrivateFolders(tmp_path).remove_left_over()
        with PrivateFolders(tmp_path).lend() as own:
            make_private(own)
            assert (folder / "image").exists()
        assert (folder / "image").exists()


def test_closing_removes_what_is_still_lent(tmp_path: Path) -> None:
    folders = PrivateFolders(tmp_path)
    with folders.lend() as folder:
        make_private(folder)
        folders.close()
        assert not folder.exists()
    with folders.lend() as folder:
        make_private(folder)


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    folders = PrivateFolders(tmp_path / "private")
    folders.remove_left_over()
    folders.close()
    assert not (tmp_path / "private").exists()


def test_where_no_folder_can_be_made_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("a file", encoding="utf-8")
    with pytest.raises(OpenScansError, match="unpacked"), PrivateFolders(tmp_path / "private").lend():
        pass
