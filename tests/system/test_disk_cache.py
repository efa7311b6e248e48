"""What is kept on disk under a key comes back as it was, or not at all."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openscans.system.disk_cache import DIGEST_BYTES, DiskCache, let_go
from tests.live_server import ROOT

MOST, USERS, ROUNDS = 4, 4, 50
CONTENT = bytes(range(256)) * 40
KEY = "a" * 64

WRITER = """
import sys
from pathlib import Path
from openscans.system import logs
from openscans.system.disk_cache import DiskCache
logs.set_up(Path(sys.argv[1]), file_name="worker.log", debug=False)
DiskCache(Path(sys.argv[2]), ".blob", 8).put("key", b"content")
"""
"""A process of its own, since loggers that are set up stay so."""


def cache(folder: Path) -> DiskCache:
    return DiskCache(folder, ".blob", MOST)


def keep(folder: Path, key: str = KEY, content: bytes = CONTENT) -> Path:
    cache(folder).put(key, memoryview(content))
    return folder / f"{key}.blob"


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    keep(tmp_path / "not" / "made" / "yet")
    assert cache(tmp_path / "not" / "made" / "yet").get(KEY) == CONTENT


def test_what_is_mapped_is_what_was_kept(tmp_path: Path) -> None:
    keep(tmp_path)
    mapped = cache(tmp_path).map(KEY)
    assert mapped is not None
    assert bytes(mapped) == CONTENT


def test_what_was_let_go_is_there_again_when_it_is_read_even_if_the_file_was_given_up(tmp_path: Path) -> None:
    path = keep(tmp_path)
    mapped = cache(tmp_path).map(KEY)
    assert mapped is not None
    path.unlink()
    let_go(mapped)
    assert bytes(mapped) == CONTENT


def test_what_is_written_to_a_mapping_changes_no_file(tmp_path: Path) -> None:
    keep(tmp_path)
    mapped = cache(tmp_path).map(KEY)
    assert mapped is not None
    mapped[:] = bytes(len(mapped))
    assert cache(tmp_path).get(KEY) == CONTENT


@pytest.mark.parametrize("size_bytes", [0, DIGEST_BYTES, DIGEST_BYTES + 1, DIGEST_BYTES + 100])
def test_a_blob_that_was_cut_short_is_not_mapped(tmp_path: Path, size_bytes: int) -> None:
    path = keep(tmp_path)
    path.write_bytes(path.read_bytes()[:size_bytes])
    assert cache(tmp_path).map(KEY) is None


def test_what_was_never_kept_is_not_mapped(tmp_path: Path) -> None:
    assert cache(tmp_path / "none").map(KEY) is None


def test_only_the_blob_is_left_in_the_folder(tmp_path: Path) -> None:
    path = keep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_never_kept_is_not_there(tmp_path: Path) -> None:
    keep(tmp_path)
    assert cache(tmp_path).get("b" * 64) is None


@pytest.mark.parametrize("size_bytes", [0, 10, DIGEST_BYTES, DIGEST_BYTES + 100])
def test_a_blob_that_was_cut_short_is_not_used(tmp_path: Path, size_bytes: int) -> None:
    os.truncate(keep(tmp_path), size_bytes)
    assert cache(tmp_path).get(KEY) is None


def test_a_blob_with_a_flipped_bit_is_not_used(tmp_path: Path) -> None:
    path = keep(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache(tmp_path).get(KEY) is None


def test_keeping_again_replaces_what_was_damaged(tmp_path: Path) -> None:
    os.truncate(keep(tmp_path), 10)
    keep(tmp_path)
    assert cache(tmp_path).get(KEY) == CONTENT


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    keep(tmp_path / "file" / "folder")
    assert cache(tmp_path / "file" / "folder").get(KEY) is None


def test_a_blob_that_cannot_be_written_leaves_a_line_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = [sys.executable, "-c", WRITER, str(tmp_path / "logs"), str(tmp_path / "file" / "folder")]
    subprocess.run(arguments, cwd=ROOT, check=True)
    [line] = (tmp_path / "logs" / "worker.log").read_text().splitlines()
    assert "WARNING" in line
    assert "A file .blob of the cache was not kept" in line
    assert str(tmp_path) not in line


def test_the_longest_unused_are_given_up(tmp_path: Path) -> None:
    for index in range(MOST):
        os.utime(keep(tmp_path, f"{index}"), (index, index))
    cache(tmp_path).get("0")
    keep(tmp_path, "new")
    assert {path.stem for path in tmp_path.iterdir()} == {"0", "new", *map(str, range(2, MOST))}


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    blob = keep(tmp_path)
    left, older, growing = tmp_path / "1a.left.blob.new", tmp_path / "left.part", tmp_path / "1b.growing.blob.new"
    for part in (left, older, growing):
        part.touch()
    for old in (left, older, blob):
        os.utime(old, (0, 0))
    cache(tmp_path).tidy()
    assert set(tmp_path.iterdir()) == {blob, growing}


def test_what_is_another_s_in_the_folder_stays(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.touch()
    os.utime(other, (0, 0))
    for index in range(MOST + 1):
        keep(tmp_path, f"{index}")
    assert other.exists()
    assert len(list(tmp_path.glob("*.blob"))) == MOST


def test_what_one_process_keeps_another_gives_up_or_reads_whole(tmp_path: Path) -> None:
    def use(number: int) -> None:
        for index in range(ROUNDS):
            keep(tmp_path, f"{index % (MOST + 2)}", CONTENT)
            assert cache(tmp_path).get(f"{(index + number) % (MOST + 2)}") in {None, CONTENT}

    with ThreadPoolExecutor(USERS) as pool:
        list(pool.map(use, range(USERS)))
    assert len(list(tmp_path.iterdir())) <= MOST


def test_where_nothing_was_ever_kept_there_is_nothing_to_tidy(tmp_path: Path) -> None:
    cache(tmp_path / "missing").tidy()
    assert not (tmp_path / "missing").exists()
