"""Folders that hold what may not be read: the rest is read, and it is told where a slice may be missing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openscans.errors import InputNotFound
from openscans.jobs.fingerprint import take_fingerprint
from openscans.volumes import Volume
from phantom.files import DicomStyle, write_dicom_series
from tests import bad_files
from tests.reading import read_volume

ROOT = Path(__file__).resolve().parents[2]

READ = """
import json, sys
from pathlib import Path
from openscans import errors, volumes
for path in sys.argv[1:]:
    try:
        volume = volumes.open(Path(path)).read()
        print(json.dumps([len(volume.voxels), [warning.message for warning in volume.warnings]]))
    except errors.OpenScansError as error:
        print(json.dumps([error.code, error.message]))
"""


def series(folder: Path, slices: int = 12, **style: str) -> list[Path]:
    return write_dicom_series(folder, bad_files.some_voxels(slices=slices), bad_files.AFFINE, DicomStyle(**style))


def lead_nowhere(path: Path) -> None:
    """What git-annex and DataLad leave of a file that was not fetched."""
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("not-fetched")


def left_out(volume: Volume) -> list[str]:
    return [warning.message for warning in volume.warnings if warning.code == "slices_left_out"]


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_series_is_read_without_what_cannot_be_and_says_so(tmp_path: Path, named: str) -> None:
    files = series(tmp_path)
    files[-1].unlink()
    lead_nowhere(files[-1])
    volume = read_volume(tmp_path if named == "folder" else files[0])
    assert len(volume.voxels) == 11
    assert left_out(volume) == ["1 file could not be read; slices of this series may be missing."]


def test_a_file_that_goes_while_the_folder_is_read_is_one_of_them(tmp_path: Path) -> None:
    *_, last = series(tmp_path)

    def go(done: int, total: int) -> None:
        last.unlink(missing_ok=True)

    volume = read_volume(tmp_path, report=go)
    assert len(volume.voxels) == 11
    assert len(left_out(volume)) == 1


def test_what_is_unread_among_files_of_another_series_is_taken_for_one_of_those(tmp_path: Path) -> None:
    series(tmp_path / "own")
    series(tmp_path / "other", slices=6)
    lead_nowhere(tmp_path / "other" / "slice")
    assert left_out(read_volume(tmp_path)) == []


@pytest.mark.parametrize("beside", [None, bad_files.not_an_image, bad_files.series_of_stumps])
def test_where_nobody_can_tell_what_is_unread_it_may_be_a_slice(tmp_path: Path, beside: object) -> None:
    series(tmp_path / "own")
    lead_nowhere(tmp_path / "disk2" / "slice")
    if callable(beside):
        beside(tmp_path / "disk2")
    assert len(left_out(read_volume(tmp_path))) == 1


def test_a_link_to_a_folder_is_nothing_that_could_not_be_read(tmp_path: Path) -> None:
    series(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "link").symlink_to("below")
    assert left_out(read_volume(tmp_path)) == []


def test_what_was_found_without_a_slice_is_not_kept_for_the_day_when_it_can_be_read(tmp_path: Path) -> None:
    series(tmp_path)
    assert take_fingerprint(tmp_path, None) is not None
    lead_nowhere(tmp_path / "slice")
    assert take_fingerprint(tmp_path, None) is None


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[list[Path]]:
    """A series and what of it may be locked; everything is opened again at the end, or nobody could remove it."""
    paths = [*series(tmp_path), tmp_path / "below"]
    paths[-1].mkdir()
    yield paths
    for path in paths:
        path.chmod(0o700)


def read_by_a_plain_user(*paths: Path) -> list[object]:
    """What a process finds for which permissions hold; skips the test where there is no such process."""
    if sys.platform == "win32":
        pytest.skip("Windows has permissions of another kind")
    shut = paths[0].parent / "shut"
    shut.touch(mode=0)
    command = [sys.executable, "-m", "tests.plain_user", "-c"]
    tried = subprocess.run([*command, f"open({str(shut)!r})"], cwd=ROOT, capture_output=True, timeout=60)
    shut.unlink()
    if tried.returncode == 0:
        pytest.skip("permissions hold for no process that can be started here")
    said = subprocess.run(
        [*command, READ, *map(str, paths)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return [json.loads(line) for line in said.stdout.splitlines()]


def test_permissions_leave_the_rest_of_a_series(locked: list[Path], tmp_path: Path) -> None:
    for path in locked[-3:]:
        path.chmod(0)
    text = "2 files and 1 folder could not be read; slices of this series may be missing."
    beside = text.replace(" and 1 folder", "")
    folder, file, closed = read_by_a_plain_user(tmp_path, locked[0], locked[-2])
    assert folder == [10, [text]]
    assert file == [10, [beside]]
    assert closed == ["file_not_found", "The file cannot be opened."]


def test_where_nothing_may_be_read_the_error_says_so(locked: list[Path], tmp_path: Path) -> None:
    for path in locked:
        path.chmod(0)
    found = read_by_a_plain_user(tmp_path, tmp_path / "below")
    assert found[0] == ["file_not_found", "The folder holds no DICOM file that may be read."]
    assert found[1] == ["file_not_found", "The folder cannot be listed."]


def test_a_folder_of_nothing_but_links_that_lead_nowhere_is_an_error(tmp_path: Path) -> None:
    lead_nowhere(tmp_path / "slice")
    with pytest.raises(InputNotFound, match="may be read"):
        read_volume(tmp_path)
