"""Which series of a folder is read, which one a file stands for, and how far is looked for the rest of it."""

import random
import shutil
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from openscans import errors, volumes
from openscans.types import WarningCode
from phantom.files import DicomStyle
from tests.bad_files import edit
from tests.corpus import folders, geometry, headers, mixtures, pixels
from tests.corpus.cases import Case, Read
from tests.corpus.scene import SHAPE, series
from tests.live_server import live_server
from tests.reading import read_volume

SCANNED = [case for theme in (folders, geometry, headers, mixtures, pixels) for case in theme.CASES]
"""The corpus' cases of DICOM that are made here."""

UNREADABLE = [case for case in SCANNED if not isinstance(case.expected, Read)]

READABLE = [case for case in SCANNED if case.expected == Read() and case not in mixtures.CASES]
"""As folders, too."""

MIXTURES = 24


def of_size(folder: Path, slices: int, **style: str) -> str:
    """A series of so many slices; its UID."""
    uid = generate_uid()
    series(folder, style=DicomStyle(series_uid=uid, suffix=f".{slices}", **style), shape=(slices, *SHAPE[1:]))
    return uid


def codes(volume: volumes.Volume) -> list[WarningCode]:
    return [warning.code for warning in volume.warnings]


def test_a_series_uid_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    ct, mr = of_size(tmp_path, 12), of_size(tmp_path, 11, modality="MR")
    with pytest.raises(errors.UnknownSeries) as caught:
        read_volume(tmp_path, series_uid="1.2.3")
    assert caught.value.hint == f"It holds {ct} (CT, 12 slices), {mr} (MR, 11 slices)."


def test_of_many_series_only_some_are_told(tmp_path: Path) -> None:
    for slices in range(1, 14):
        of_size(tmp_path, slices)
    with pytest.raises(errors.UnknownSeries) as caught:
        read_volume(tmp_path, series_uid="1.2.3")
    assert caught.value.hint.endswith("(CT, 4 slices), and 3 more.")


def test_a_file_and_another_series_uid_contradict_each_other(tmp_path: Path) -> None:
    of_size(tmp_path, 12)
    other = of_size(tmp_path, 11)
    with pytest.raises(errors.InvalidRequest, match="another series"):
        read_volume(tmp_path / "slice00000.12", series_uid=other)


def test_a_file_and_its_own_series_uid_agree(tmp_path: Path) -> None:
    own = of_size(tmp_path, 12)
    of_size(tmp_path, 14)
    assert len(read_volume(tmp_path / "slice00000.12", series_uid=own).voxels) == 12


def test_slices_with_series_uids_of_their_own_are_found_by_any_of_them(tmp_path: Path) -> None:
    of_size(tmp_path / "other", 20)
    files, uid = series(tmp_path / "apart"), generate_uid()
    for file in files:
        edit(file, SeriesInstanceUID=uid if file == files[3] else generate_uid())
    volume = read_volume(tmp_path, series_uid=uid)
    assert volume.voxels.shape == SHAPE
    assert volume.series_uid.uid == ""


def test_slices_of_two_devices_are_not_put_together(tmp_path: Path) -> None:
    for number, file in enumerate(series(tmp_path)):
        edit(file, SeriesInstanceUID=generate_uid(), StationName="CT1" if number < 10 else "CT2")
    assert len(read_volume(tmp_path).voxels) == 10


@pytest.mark.parametrize("between", [3, 4])
def test_folders_beside_are_looked_into_until_four_in_a_row_hold_nothing(tmp_path: Path, between: int) -> None:
    uid = generate_uid()
    for file in series(tmp_path / "all", style=DicomStyle(series_uid=uid)):
        part = tmp_path / ("a" if file.name < "slice00006" else "z")
        part.mkdir(exist_ok=True)
        file.rename(part / file.name)
    (tmp_path / "all").rmdir()
    for number in range(between):
        of_size(tmp_path / f"m{number}", 3)
    volume = read_volume(tmp_path / "a" / "slice00000.dcm")
    assert len(volume.voxels) == (12 if between == 3 else 6)
    assert (WarningCode.SERIES_ELSEWHERE in codes(volume)) == (between == 3)


def test_a_folder_that_is_named_is_all_that_is_read(tmp_path: Path) -> None:
    mixtures.file_on_a_cd(tmp_path)
    assert codes(read_volume(tmp_path / "DICOM00001")) == []


def test_where_roots_are_set_nothing_beside_the_file_s_folder_is_looked_at(tmp_path: Path) -> None:
    """Two slices are no volume; with those of the folder beside, they would be."""
    files = series(tmp_path / "cd" / "a", style=DicomStyle(series_uid=generate_uid()))
    (tmp_path / "cd" / "b").mkdir()
    for file in files[2:]:
        file.rename(file.parent.parent / "b" / file.name)
    offline = {"OPENSCANS_OFFLINE": "1"}
    roots = {"OPENSCANS_ALLOWED_ROOTS": str(tmp_path / "cd" / "a")}
    asked = []
    for number, env in enumerate((offline, offline | roots)):
        with live_server(tmp_path / str(number), env) as server:
            asked.append(server.detect(files[0]).json()["code"])
    assert asked == ["model_missing", "too_few_slices"]


def test_a_series_whose_pixels_are_damaged_gives_way_to_the_next(tmp_path: Path) -> None:
    of_size(tmp_path, 11)
    of_size(tmp_path, 14)
    damaged = tmp_path / "slice00005.14"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    volume = read_volume(tmp_path)
    assert len(volume.voxels) == 11
    assert codes(volume) == [WarningCode.SERIES_PASSED_OVER]


def test_a_series_of_the_other_modality_does_not_take_its_place(tmp_path: Path) -> None:
    """The network was chosen before pixels were read."""
    of_size(tmp_path, 11, modality="MR")
    of_size(tmp_path, 14)
    damaged = tmp_path / "slice00005.14"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(errors.CorruptFile):
        read_volume(tmp_path)


def test_an_answer_about_files_beside_the_folder_is_not_kept(tmp_path: Path) -> None:
    from openscans.jobs.result_cache import FLEETING

    assert WarningCode.SERIES_ELSEWHERE in FLEETING


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(MIXTURES))
def test_one_readable_series_among_unreadable_ones_is_read(tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)
    good, bad = chosen.choice(READABLE), chosen.sample(UNREADABLE, 4)
    for number, case in enumerate((good, *bad)):
        made(case, tmp_path / f"{chosen.random()}-{number}")
    assert read_volume(tmp_path).voxels.shape == SHAPE, [case.name for case in (good, *bad)]


def made(case: Case, folder: Path) -> None:
    folder.mkdir()
    case.make(folder)
    for file in folder.rglob("DICOMDIR"):
        shutil.copy(file, folder.parent / f"index of {folder.name}")
