"""Indexes: what they list, where that lies, and what is told of what is gone."""

import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.fileset import FileSet as PydicomFileSet

from openscans import volumes
from openscans.errors import CorruptFile, InputNotFound, OpenScansError, UnknownSeries
from openscans.volumes import dicomdir
from openscans.volumes.dicomdir import FileSet, is_dicomdir
from phantom.files import DicomStyle
from tests.bad_files import edit
from tests.corpus import folders, indexes
from tests.corpus.scene import SHAPE, series
from tests.reading import read_volume

pytestmark = pytest.mark.filterwarnings("ignore")

LARGE, SMALL = "1.2.826.0.1.3680043.8.498.11", "1.2.826.0.1.3680043.8.498.12"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The index of a CD with two series."""
    disk = PydicomFileSet()
    for number, (uid, slices) in enumerate([(SMALL, 5), (LARGE, SHAPE[0])]):
        style = DicomStyle(series_uid=uid, suffix="")
        for file in series(tmp_path / uid, style=style, shape=(slices, *SHAPE[1:])):
            edit(file, StudyInstanceUID="1.2.3", StudyDate="20200102", StudyTime="030405", StudyID="1")
            edit(file, SeriesNumber=number, AccessionNumber="A1")
            disk.add(file)
    disk.write(tmp_path / "cd")
    return tmp_path / "cd/DICOMDIR"


def images_of(index: Path, series_uid: str) -> list[Path]:
    files = [path for path in index.parent.rglob("IM*") if path.is_file()]
    return [path for path in files if pydicom.dcmread(path).SeriesInstanceUID == series_uid]


def codes(volume: volumes.Volume) -> set[str]:
    return {warning.code.value for warning in volume.warnings}


def test_the_largest_series_is_read_or_the_one_that_is_named(study: Path) -> None:
    assert read_volume(study).series_uid.uid == LARGE
    assert read_volume(study, series_uid=SMALL).series_uid.uid == SMALL


def test_a_series_that_is_not_listed_is_an_error(study: Path) -> None:
    with pytest.raises(UnknownSeries):
        read_volume(study, series_uid="1.2.3.4")


def test_files_that_are_gone_are_told_of_their_own_series_alone(study: Path) -> None:
    # The last, so that no gap tells it.
    max(images_of(study, LARGE)).unlink()
    assert "missing_slices" in codes(read_volume(study))
    assert "missing_slices" not in codes(read_volume(study, series_uid=SMALL))


def test_the_other_series_is_read_where_one_is_gone(study: Path) -> None:
    for file in images_of(study, LARGE):
        file.unlink()
    assert read_volume(study).series_uid.uid == SMALL


def test_an_index_alone_says_how_many_files_it_lists(tmp_path: Path) -> None:
    with pytest.raises(InputNotFound, match="None of the 12 files") as caught:
        read_volume(indexes.index_alone(tmp_path))
    assert "whole CD" in caught.value.hint


def test_an_index_is_told_by_its_content(study: Path) -> None:
    named = study.rename(study.with_name("index.dcm"))
    assert is_dicomdir(named)
    assert read_volume(named).series_uid.uid == LARGE
    [image, *_] = images_of(named, SMALL)
    shutil.copy(image, named.with_name("DICOMDIR"))
    assert not is_dicomdir(named.with_name("DICOMDIR"))


def test_a_file_that_is_listed_twice_is_read_once(study: Path) -> None:
    dataset = pydicom.dcmread(study)
    dataset.DirectoryRecordSequence = [*dataset.DirectoryRecordSequence, *dataset.DirectoryRecordSequence]
    dataset.save_as(study)
    assert read_volume(study).image_size.z == SHAPE[0]


def test_a_record_that_is_out_of_use_lists_nothing(study: Path) -> None:
    dataset = pydicom.dcmread(study)
    next(one for one in dataset.DirectoryRecordSequence if one.DirectoryRecordType == "IMAGE").RecordInUseFlag = 0
    dataset.save_as(study)
    assert FileSet.listed_by(study).listed == SHAPE[0] + 5 - 1


@pytest.mark.parametrize(
    "file_id", [["..", "IM1"], ["", "etc", "passwd"], "/etc/passwd", ["C:", "IM1"], ["a/../../b"], ["."]]
)
def test_an_index_that_leads_out_of_its_folder_is_refused(study: Path, file_id: str | list[str]) -> None:
    indexes.list_alone(study, file_id)
    with pytest.raises(CorruptFile, match="outside"):
        read_volume(study)


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    index = folders.index_of_a_file_set(tmp_path)
    [images] = index.parent.glob("PT*")
    images.rename(tmp_path / "elsewhere")
    images.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputNotFound):
        read_volume(index)


def test_an_image_is_unchanged_until_a_listed_file_is_not(study: Path) -> None:
    image = volumes.open(study)
    (study.parent / "letter").write_text("Dear", encoding="utf-8")
    assert image.is_unchanged()
    images_of(study, SMALL)[0].unlink()
    assert not image.is_unchanged()


def test_an_index_larger_than_any_is_not_read(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicomdir, "LARGEST_INDEX_BYTES", 1000)
    with pytest.raises(CorruptFile, match="larger"):
        read_volume(study)


def test_whatever_an_index_is_cut_to_there_is_an_image_or_an_error(tmp_path: Path) -> None:
    index = folders.index_of_a_file_set(tmp_path)
    whole = index.read_bytes()
    for length in range(200, len(whole), 211):
        index.write_bytes(whole[:length])
        with pytest.raises(OpenScansError):
            read_volume(index)
