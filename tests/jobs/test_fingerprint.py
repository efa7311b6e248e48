"""Which image lies at a path, as its files tell it."""

import os
from pathlib import Path

import pytest

from openscans.errors import Cancelled
from openscans.jobs import fingerprint
from openscans.jobs.fingerprint import FingerprintCache, take_fingerprint
from openscans.system import regular_files


@pytest.fixture
def series(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / f"{number}.dcm").write_bytes(bytes(128) + b"DICM" + bytes([number]) * 400)
    return tmp_path


def test_a_file_that_is_named_is_another_question_than_its_folder(series: Path) -> None:
    digests = {found.digest for name in (".", "0.dcm", "1.dcm") if (found := take_fingerprint(series / name, None))}
    assert len(digests) == 3


def test_a_file_whose_spelling_the_folder_does_not_list_has_no_identity(series: Path) -> None:
    assert take_fingerprint(series / "0.dcm", None) is not None
    assert take_fingerprint(series / "0.DCM", None) is None


def test_an_image_that_is_written_meanwhile_is_not_still_the_same(series: Path) -> None:
    found = take_fingerprint(series, None)
    assert found is not None
    assert found.is_still()
    os.utime(series / "3.dcm", ns=(0, 0))
    assert not found.is_still()


def test_a_file_that_comes_meanwhile_changes_it_too(series: Path) -> None:
    found = take_fingerprint(series, None)
    assert found is not None
    (series / "new.dcm").write_bytes(b"")
    assert not found.is_still()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose beginning was read, in a world where a change of three seconds ago is long past."""
    read: list[str] = []

    def read_head(path: str, size_bytes: int) -> bytes:
        read.append(path)
        return regular_files.read_head(path, size_bytes)

    monkeypatch.setattr(fingerprint, "read_head", read_head)
    monkeypatch.setattr(fingerprint, "SETTLED_NS", -(10**9))
    return read


@pytest.mark.skipif(os.name != "posix", reason="this system does not time changes")
def test_files_that_nobody_touched_are_not_opened_again(series: Path, opened: list[str]) -> None:
    cache = FingerprintCache()
    first = take_fingerprint(series, None, cache=cache)
    del opened[:]
    assert take_fingerprint(series, None, cache=cache) == first
    assert opened == []


def test_a_file_that_was_written_with_its_size_and_time_kept_is_noticed(series: Path, opened: list[str]) -> None:
    cache = FingerprintCache()
    first = take_fingerprint(series, None, cache=cache)
    file = series / "3.dcm"
    before = file.stat()
    changed = bytearray(file.read_bytes())
    changed[0] ^= 1
    file.write_bytes(changed)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    found = take_fingerprint(series, None, cache=cache)
    assert found is not None
    assert first is not None
    assert found.digest != first.digest


def test_files_that_were_written_a_moment_ago_are_opened_again(series: Path, opened: list[str]) -> None:
    fingerprint.SETTLED_NS = 60 * 10**9
    cache = FingerprintCache()
    take_fingerprint(series, None, cache=cache)
    del opened[:]
    take_fingerprint(series, None, cache=cache)
    assert len(opened) == len(list(series.iterdir()))


def test_of_too_many_files_no_more_are_listed_than_tell_it(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "MOST_FILES", 3)
    assert take_fingerprint(series, None) is None
    assert len(fingerprint.Listing.of(series, deep=True).stats) == 4


def test_digesting_a_large_file_can_be_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    path.write_bytes(bytes(3 * fingerprint.PIECE_BYTES))
    heard = []

    def report(done: int, total: int) -> None:
        heard.append(done)
        if len(heard) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        take_fingerprint(path, None, report)


def test_what_comes_into_a_folder_beside_changes_what_a_file_stands_for(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.dcm").write_bytes(b"a slice")
    named = tmp_path / "a" / "0.dcm"
    first = take_fingerprint(named, None, look_beside=True)
    alone = take_fingerprint(named, None)
    os.utime(tmp_path / "b", (1, 1))
    second = take_fingerprint(named, None, look_beside=True)
    assert first is not None
    assert second is not None
    assert first.digest != second.digest
    assert not first.is_still()
    assert take_fingerprint(named, None) == alone
