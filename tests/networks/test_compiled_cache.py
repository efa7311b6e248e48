"""What is kept on disk under a key comes back as it was, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openscans.networks import compiled_cache

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 40
KEY = "a" * 64

WRITER = """
import sys
from pathlib import Path
from openscans.system import logs
from openscans.networks import compiled_cache
logs.set_up(Path(sys.argv[1]), file_name="worker.log", debug=False)
compiled_cache.put(Path(sys.argv[2]), "key", memoryview(b"content"))
"""
"""A process of its own, since loggers that are set up stay so."""


def keep(folder: Path, key: str = KEY, content: bytes = CONTENT) -> Path:
    compiled_cache.put(folder, key, memoryview(content))
    return folder / f"{key}{compiled_cache.SUFFIX}"


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    keep(tmp_path / "not" / "made" / "yet")
    assert compiled_cache.get(tmp_path / "not" / "made" / "yet", KEY) == CONTENT


def test_only_the_blob_is_left_in_the_folder(tmp_path: Path) -> None:
    path = keep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_never_kept_is_not_there(tmp_path: Path) -> None:
    keep(tmp_path)
    assert compiled_cache.get(tmp_path, "b" * 64) is None


@pytest.mark.parametrize("size_bytes", [0, 10, compiled_cache.DIGEST_BYTES, compiled_cache.DIGEST_BYTES + 100])
def test_a_blob_that_was_cut_short_is_not_used(tmp_path: Path, size_bytes: int) -> None:
    os.truncate(keep(tmp_path), size_bytes)
    assert compiled_cache.get(tmp_path, KEY) is None


def test_a_blob_with_a_flipped_bit_is_not_used(tmp_path: Path) -> None:
    path = keep(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert compiled_cache.get(tmp_path, KEY) is None


def test_keeping_again_replaces_what_was_damaged(tmp_path: Path) -> None:
    os.truncate(keep(tmp_path), 10)
    keep(tmp_path)
    assert compiled_cache.get(tmp_path, KEY) == CONTENT


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    keep(tmp_path / "file" / "folder")
    assert compiled_cache.get(tmp_path / "file" / "folder", KEY) is None


def test_a_blob_that_cannot_be_written_leaves_a_line_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = [sys.executable, "-c", WRITER, str(tmp_path / "logs"), str(tmp_path / "file" / "folder")]
    subprocess.run(arguments, cwd=ROOT, check=True)
    [line] = (tmp_path / "logs" / "worker.log").read_text().splitlines()
    assert "WARNING" in line
    assert "A compiled network was not kept" in line
    assert str(tmp_path) not in line


def test_the_longest_unused_are_given_up(tmp_path: Path) -> None:
    for index in range(compiled_cache.MOST_BLOBS):
        os.utime(keep(tmp_path, f"{index}"), (index, index))
    compiled_cache.get(tmp_path, "0")
    keep(tmp_path, "new")
    assert {path.stem for path in tmp_path.iterdir()} == {"0", "new", *map(str, range(2, compiled_cache.MOST_BLOBS))}


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    blob = keep(tmp_path)
    left, growing = tmp_path / "left.part", tmp_path / "growing.part"
    for part in (left, growing):
        part.touch()
    for old in (left, blob):
        os.utime(old, (0, 0))
    compiled_cache.tidy(tmp_path)
    assert set(tmp_path.iterdir()) == {blob, growing}


def test_where_nothing_was_ever_kept_there_is_nothing_to_tidy(tmp_path: Path) -> None:
    compiled_cache.tidy(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_a_key_changes_with_every_fact() -> None:
    keys = [compiled_cache.key_of(*facts) for facts in [("f32",), ("bf16",), ("f32", "bf16"), ("bf16", "f32"), ()]]
    assert len(set(keys)) == len(keys)
    assert compiled_cache.key_of("f32") == keys[0]


def test_a_digest_changes_with_every_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    digests = [compiled_cache.digest_of(files) for files in [[one], [other], [one, other], [other, one]]]
    assert len(set(digests)) == len(digests)
    one.write_bytes(b"3")
    assert compiled_cache.digest_of([one]) not in digests
