"""What others forgive in a header: which value is taken, and which sentence says what is wrong."""

from pathlib import Path

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from openscans import errors
from openscans.volumes.headers import read_header
from openscans.volumes.values import Rescale
from tests.corpus import headers
from tests.corpus.scene import series
from tests.reading import read_volume

pytestmark = pytest.mark.filterwarnings("ignore")


def with_texts(folder: Path, **texts: str) -> Path:
    file = series(folder)[3]
    dataset = pydicom.dcmread(file)
    headers.set_text(dataset, **texts)
    dataset.save_as(file)
    return file


def test_an_instance_number_that_is_none_is_not_told(tmp_path: Path) -> None:
    volume = read_volume(with_texts(tmp_path, InstanceNumber="A1"))
    assert [instance.instance_number for instance in volume.instances] == [1, 2, 3, None, *range(5, 13)]


@pytest.mark.parametrize("named", ["the file itself", "another of its series", "its folder"])
def test_decimal_commas_are_said_to_be_that(tmp_path: Path, named: str) -> None:
    file = with_texts(tmp_path, PixelSpacing="0,8\\0,7")
    paths = {"the file itself": file, "its folder": tmp_path}
    with pytest.raises(errors.CorruptFile, match="decimal commas") as caught:
        read_volume(paths.get(named, next(one for one in tmp_path.iterdir() if one != file)))
    assert "point" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient", "NumberOfFrames"]
)
def test_a_number_that_is_needed_and_none_keeps_the_file_in_its_series(tmp_path: Path, name: str) -> None:
    header = read_header(with_texts(tmp_path, **{name: "about one"}))
    assert header.series_uid
    assert header.slices == ()
    with pytest.raises(errors.CorruptFile, match="must hold a number"):
        read_volume(tmp_path)


@pytest.mark.parametrize("text", ["", "  ", "1\0"])
def test_a_slope_of_blanks_is_not_told_and_one_that_is_padded_is(tmp_path: Path, text: str) -> None:
    file = with_texts(tmp_path, RescaleSlope=text, RescaleIntercept="7")
    [one] = read_header(file).slices
    assert one.rescale == Rescale(1.0, 7.0)


@pytest.mark.parametrize("representation", ["UN", "LO", "ST", "IS"])
def test_spacing_is_read_whatever_its_representation_says(tmp_path: Path, representation: str) -> None:
    file, value = series(tmp_path)[3], b"0.8\\0.7 "
    dataset = pydicom.dcmread(file)
    tag = Tag("PixelSpacing")
    dataset[tag] = RawDataElement(tag, representation, len(value), value, 0, False, True)
    dataset.save_as(file)
    place = read_header(file).slices[0].place
    assert place is not None
    assert (place.row_mm, place.column_mm) == (0.8, 0.7)


def test_two_slopes_are_none(tmp_path: Path) -> None:
    with pytest.raises(errors.CorruptFile, match="must hold a number"):
        read_volume(with_texts(tmp_path, RescaleSlope="1\\2"))
