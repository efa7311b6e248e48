"""A file is whole or as it was before, whatever happens while it is written."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openscans.system.files import unfinished, write_whole

WRITERS, ROUNDS = 4, 50


@pytest.mark.parametrize("durable", [True, False])
def test_the_pieces_are_written_one_after_the_other_and_nothing_is_left_beside(tmp_path: Path, durable: bool) -> None:
    for content in ([b"one"], [b"", b"two", memoryview(b"!")]):
        write_whole(tmp_path / "file", content, durable=durable)
        assert (tmp_path / "file").read_bytes() == b"".join(content)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_what_fails_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is full")

    write_whole(tmp_path / "file", [b"before"], durable=True)
    with pytest.raises(OSError, match="full"):
        write_whole(tmp_path / "file", failing(), durable=True)
    assert (tmp_path / "file").read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_many_who_write_the_same_file_are_not_mixed_up(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(ROUNDS):
            write_whole(tmp_path / "file", [bytes([number])] * 1000, durable=False)
            assert len(set((tmp_path / "file").read_bytes())) == 1

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_what_a_killed_process_left_is_found_for_its_file_only(tmp_path: Path) -> None:
    left = {tmp_path / "1a2b3c4d.file.json.new", tmp_path / "file.json.new"}
    for path in (*left, tmp_path / "file.json", tmp_path / "1a2b3c4d.other.json.new"):
        path.touch()
    assert set(unfinished(tmp_path / "file.json")) == left
    assert unfinished(tmp_path / "missing" / "file.json") == []
