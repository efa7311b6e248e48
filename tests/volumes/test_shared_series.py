"""Odd series of other people's reports, where they lie beside the project: each has its README's right outcome."""

from pathlib import Path

import numpy as np
import pytest

from openscans import errors
from tests.corpus.scene import SHAPE, values_at
from tests.reading import read_volume
from tests.shared_data import NOT_HERE, SHARED_DATA

FAULTS = SHARED_DATA / "faults"

ONE = ("one_of_several_volumes",)

FOLDERS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "overlap_of_two_acquisitions_folder": ((23, 14, 16), ("slices_left_out",)),
    "reference_image_in_the_series": (SHAPE, ("slices_left_out",)),
    "screen_without_place_in_the_series": (SHAPE, ("slices_left_out",)),
    "series_uid_of_its_own_for_each_slice": (SHAPE, ("series_uid_missing",)),
    "study_whose_largest_series_is_angled": (SHAPE, ("series_passed_over",)),
}
"""What is sent as a folder: (slices, rows, columns) and warnings."""

FILES: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "echoes_and_phases": (SHAPE, ONE),
    "enhanced_file_of_several": (SHAPE, ONE),
    "two_stations_file": (SHAPE, ONE),
    "file_of_a_series_in_three_folders": ((36, 14, 16), ("series_elsewhere",)),
}
"""What is sent as one of its files, whichever it is."""

pytestmark = pytest.mark.skipif(not FAULTS.is_dir(), reason=NOT_HERE)


def check(path: Path, shape_zyx: tuple[int, int, int], warnings: tuple[str, ...]) -> None:
    volume = read_volume(path)
    assert volume.voxels.shape == shape_zyx
    assert tuple(warning.code for warning in volume.warnings) == warnings
    z, y, x = np.indices(shape_zyx)
    places = np.stack([x, y, z], axis=-1) @ volume.affine_lps[:3, :3].T + volume.affine_lps[:3, 3]
    off = np.abs(volume.voxels - values_at(places))
    # Later volumes of the handed series show the scene with another brightness.
    assert np.ptp(np.median(off, axis=(1, 2))) <= 2


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_read_as_its_readme_says(name: str) -> None:
    check(FAULTS / name / "data", *FOLDERS[name])


@pytest.mark.parametrize("name", FILES)
def test_any_file_stands_for_the_volume_it_belongs_to(name: str) -> None:
    files = sorted(file for file in (FAULTS / name / "data").rglob("*") if file.is_file())
    for file in files[:: max(1, len(files) // 8)]:
        check(file, *FILES[name])


def test_phases_between_each_other_s_slices_are_several_volumes() -> None:
    with pytest.raises(errors.SeveralVolumes):
        read_volume(FAULTS / "interleaved_phases_folder" / "data")


def test_one_of_two_real_enhanced_files_is_read() -> None:
    for file in sorted((FAULTS / "real_enhanced_file_of_several").glob("*.dcm")):
        volume = read_volume(file)
        assert volume.voxels.shape == (33, 64, 64)
        assert tuple(warning.code for warning in volume.warnings) == ONE
