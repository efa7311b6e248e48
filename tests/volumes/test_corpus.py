"""Every image of the corpus through the reader: its geometry, warnings and values, or its error."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from openscans import errors
from openscans.types import Point
from openscans.volumes import Volume
from tests.corpus import CASES
from tests.corpus.cases import Case, Read
from tests.corpus.page import PAGE, text
from tests.corpus.scene import values_at
from tests.reading import read_volume

MOST_OFF = 1.01
"""Stored values are rounded, and so are interpolated ones."""

pytestmark = pytest.mark.filterwarnings("ignore")

READ = [case for case in CASES if isinstance(case.expected, Read)]
REFUSED = [case for case in CASES if not isinstance(case.expected, Read)]
SHOWING_THE_SCENE = [case for case in READ if case.expected.scene]


def cases(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases], indirect=True)


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def path(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.make(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def volume(path: Path) -> Volume:
    return read_volume(path)


def test_names_are_unique_and_cases_are_many() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 45


@cases(READ)
def test_an_image_has_the_size_spacing_and_warnings_of_the_table(case: Case, volume: Volume) -> None:
    size, spacing = volume.image_size, volume.image_spacing_mm
    assert (size.x, size.y, size.z) == case.expected.size
    assert (spacing.x, spacing.y, spacing.z) == pytest.approx(case.expected.spacing_mm, abs=1e-3)
    assert sorted(warning.code for warning in volume.warnings) == sorted(case.expected.warnings)
    assert len(volume.instances) in (0, size.z)


@cases(SHOWING_THE_SCENE)
def test_every_voxel_shows_what_lies_at_its_place(case: Case, volume: Volume) -> None:
    z, y, x = np.nonzero(inside_the_image(volume))
    expected = values_at(np.stack([x, y, z], axis=-1) @ volume.affine_lps[:3, :3].T + volume.affine_lps[:3, 3])
    assert len(z) >= 0.8 * np.prod(case.expected.size)
    assert np.abs(volume.voxels[z, y, x] - expected).max() <= MOST_OFF


@cases(READ)
def test_a_position_in_the_image_is_where_its_own_headers_put_it(case: Case, volume: Volume) -> None:
    seen = inside_the_image(volume)
    for z, y, x in np.random.default_rng(3).integers(0, seen.shape, (30, 3)):
        if not seen[z, y, x]:
            continue
        position = volume.image_point(Point(float(x), float(y), float(z)))
        place = by_the_headers(volume, position)
        if place is not None:
            np.testing.assert_allclose((volume.affine_lps @ (x, y, z, 1))[:3], place, atol=0.02)


@cases(REFUSED)
def test_an_image_that_is_refused_says_why(case: Case, path: Path) -> None:
    with pytest.raises(errors.OpenScansError) as caught:
        read_volume(path)
    assert type(caught.value) is case.expected


def inside_the_image(volume: Volume) -> np.ndarray:
    """(z, y, x) bool: the voxels that lie on or between stored slices, not in what was added around sheared ones."""
    inside = np.ones(volume.voxels.shape, bool)
    if volume.stored is None:
        return inside
    size = volume.image_size
    rows, columns = np.indices(inside.shape[1:])
    for z in range(len(inside)):
        index = volume.image_point(Point(0.0, 0.0, float(z))).z
        for at in {int(index + 1e-6), min(int(np.ceil(index - 1e-6)), size.z - 1)}:
            x, y, _ = volume.stored.origins_xyz[at]
            inside[z] &= (rows > y - 1e-6) & (rows < y + size.y - 1 + 1e-6)
            inside[z] &= (columns > x - 1e-6) & (columns < x + size.x - 1 + 1e-6)
    return inside


def by_the_headers(volume: Volume, position: Point) -> np.ndarray | None:
    """Where the DICOM headers of the slices around ``position`` put it, in mm; None for what has no such headers."""
    if not volume.instances:
        return None
    below = min(int(position.z), volume.image_size.z - 2)
    places = []
    for instance in volume.instances[below : below + 2]:
        header = pydicom.dcmread(instance.file, stop_before_pixels=True, force=True)
        if "ImagePositionPatient" not in header:
            return None
        row_mm, column_mm = numbers_of(header, "PixelSpacing")
        along_row, along_column = numbers_of(header, "ImageOrientationPatient").reshape(2, 3)
        corner = numbers_of(header, "ImagePositionPatient")
        places.append(corner + position.x * column_mm * along_row + position.y * row_mm * along_column)
    return places[0] + (position.z - below) * (places[1] - places[0])


def numbers_of(header: pydicom.Dataset, name: str) -> np.ndarray:
    value = header[name].value
    return np.array(value.split("\\") if isinstance(value, str) else value, float)


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == text()


def test_the_readme_leads_to_the_page() -> None:
    assert f"]({PAGE.name})" in (PAGE.parent / "README.md").read_text(encoding="utf-8")
