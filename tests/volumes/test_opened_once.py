"""A detection looks at each file's header once, and opens it a second time for its pixels."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from phantom.files import DicomStyle, write_dicom_series
from tests import bad_files
from tests.corpus.pixels import interleaved

ROOT = Path(__file__).resolve().parents[2]

SLICES = 12


def counted(act: str, path: Path, results: Path, series_uid: str = "") -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.counted_opens", act, str(path), series_uid, str(results)]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=120)
    return json.loads(said.stdout)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_dicom_series(tmp_path / "series", bad_files.some_voxels(slices=SLICES), bad_files.AFFINE)


@pytest.mark.parametrize("act", ["read", "detect"])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_each_header_is_parsed_once_and_each_file_opened_twice(
    files: list[Path], tmp_path: Path, act: str, named: str
) -> None:
    found = counted(act, files[0].parent if named == "folder" else files[5], tmp_path / "results")
    assert found["parsed"] == SLICES
    assert found["opened"] == {file.name: 2 for file in files}


def test_files_that_are_not_of_the_chosen_series_are_parsed_once_too(files: list[Path], tmp_path: Path) -> None:
    other = generate_uid()
    style = DicomStyle(series_uid=other, suffix=".other")
    beside = write_dicom_series(files[0].parent, bad_files.some_voxels(slices=4), bad_files.AFFINE, style)
    found = counted("detect", files[0].parent, tmp_path / "results", other)
    assert found["parsed"] == SLICES + 4
    assert found["opened"] == {file.name: 1 for file in files} | {file.name: 2 for file in beside}


def test_files_without_preamble_are_opened_no_more_often(files: list[Path], tmp_path: Path) -> None:
    for file in files:
        file.write_bytes(file.read_bytes()[132:])
    found = counted("read", files[0], tmp_path / "results")
    assert found["parsed"] == SLICES
    assert set(found["opened"].values()) == {2}


def test_files_whose_frames_lie_between_each_other_s_are_opened_no_more_often(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    found = counted("read", interleaved(3)(folder), tmp_path / "results")
    assert found["opened"] == {f"frames{number}.dcm": 2 for number in range(3)}
