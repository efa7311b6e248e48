"""A mark is found again on its slice, however the slices are numbered: by UID, frame, column and row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from openscans.segmentation import grids, vertebrae
from openscans.types import SlicePixel
from openscans.volumes import Volume
from phantom.files import DicomStyle
from tests.bad_files import edit
from tests.corpus import geometry, orientations
from tests.corpus.scene import affine_of, series
from tests.enhanced import merged
from tests.reading import read_volume

TRUE_LPS_MM = np.array([0.9, -0.7, 2.2])
"""The middle of a ball that is labelled."""

RADIUS_MM = 3.5

AXIAL = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
CORONAL = ((1, 0, 0), (0, 0, -1), (0, 1, 0))
SAGITTAL = ((0, 1, 0), (0, 0, -1), (1, 0, 0))


def numbered(directions: tuple[tuple[int, ...], ...], *, backwards: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        series(folder, affine_of(directions), DicomStyle(reversed_numbers=backwards))
        return folder

    return make


def numbered_to_and_fro(folder: Path) -> Path:
    for index, file in enumerate(series(folder)):
        edit(file, InstanceNumber=index // 2 + 1 if index % 2 == 0 else index // 2 + 7)
    return folder


def without_numbers(folder: Path) -> Path:
    for file in series(folder):
        edit(file, InstanceNumber=None)
    return folder


def enhanced(folder: Path) -> Path:
    """All frames share one instance, in an order of their own."""
    merged(series(folder), [3, 1, 0, 2, *range(11, 3, -1)])
    return folder


def two_enhanced(folder: Path) -> Path:
    uid = generate_uid()
    for number, lower in enumerate((0.0, 30.0)):
        affine = affine_of()
        affine[2, 3] += lower
        files = series(folder / str(number), affine, DicomStyle(series_uid=uid))
        for file in files:
            edit(file, StudyInstanceUID=uid)
        merged(files, range(11, -1, -1)).rename(folder / f"{number}.frames")
    return folder


SERIES: dict[str, Callable[[Path], Path]] = {
    "axial": numbered(AXIAL, backwards=False),
    "axial, backwards": numbered(AXIAL, backwards=True),
    "coronal": numbered(CORONAL, backwards=False),
    "coronal, backwards": numbered(CORONAL, backwards=True),
    "sagittal": numbered(SAGITTAL, backwards=False),
    "sagittal, backwards": numbered(SAGITTAL, backwards=True),
    "to and fro": numbered_to_and_fro,
    "without numbers": without_numbers,
    "lost slices": geometry.one_lost_slice,
    "oblique": next(case.make for case in orientations.CASES if case.name == "oblique"),
    "enhanced": enhanced,
    "two enhanced": two_enhanced,
    "tilted": next(case.make for case in geometry.CASES if case.name == "gantry tilt of −25°"),
    "tilted, lost slices": geometry.tilted_with_lost_slices,
}

MOST_OFF_MM = {name: 3.0 if name.startswith("tilted") else 1.7 for name in SERIES}
"""Half of 2.5 mm to the next slice, and half a pixel; tilted slices lie farther apart."""


def marked(volume: Volume) -> SlicePixel:
    """Where the answer says that the ball's middle lies."""
    grid = grids.model_grid(volume.affine_lps, grids.whole_box(volume.size), (0.8, 0.8, 0.8))
    z, y, x = np.indices(grid.shape_zyx)
    voxel = np.zeros((*grid.shape_zyx, 3))
    for axis, index in zip(grid.axes, (x, y, z), strict=True):
        voxel[..., axis.source] = axis.first + index * axis.step
    places = voxel @ volume.affine_lps[:3, :3].T + volume.affine_lps[:3, 3]
    labels = (np.linalg.norm(places - TRUE_LPS_MM, axis=-1) <= RADIUS_MM).astype(np.uint8)
    found = vertebrae.LabelMap(labels, np.ones(labels.shape, np.float16), grid, {1: "L3"})
    [vertebra] = vertebrae.measure(found, volume)
    assert vertebra.slice is not None
    return vertebra.slice


def place_of(mark: SlicePixel, folder: Path) -> NDArray[np.float64]:
    """What the headers of the marked instance say of the marked pixel, LPS mm."""
    [header] = [
        header
        for file in folder.rglob("*")
        if file.is_file()
        and (header := pydicom.dcmread(file, stop_before_pixels=True)).SOPInstanceUID == mark.sop_instance_uid
    ]
    if mark.frame_number is not None:
        frame = header.PerFrameFunctionalGroupsSequence[mark.frame_number - 1]
        shared = header.SharedFunctionalGroupsSequence[0]
        corner = frame.PlanePositionSequence[0].ImagePositionPatient
        directions = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        row_mm, column_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    else:
        corner, directions = header.ImagePositionPatient, header.ImageOrientationPatient
        row_mm, column_mm = header.PixelSpacing
    along_row, along_column = np.array(directions, float).reshape(2, 3)
    return np.array(corner, float) + mark.x * column_mm * along_row + mark.y * row_mm * along_column


@pytest.mark.parametrize("name", SERIES)
def test_a_mark_lies_where_the_headers_of_its_own_slice_put_it(name: str, tmp_path: Path) -> None:
    folder = SERIES[name](tmp_path)
    off_mm = np.linalg.norm(place_of(marked(read_volume(folder)), folder) - TRUE_LPS_MM)
    assert off_mm <= MOST_OFF_MM[name]


def test_slices_without_numbers_are_numbered_along_the_normal(tmp_path: Path) -> None:
    mark = marked(read_volume(without_numbers(tmp_path)))
    assert mark.instance_number == mark.index + 1


def test_the_index_counts_along_the_normal_whatever_the_numbers_say(tmp_path: Path) -> None:
    forwards = marked(read_volume(numbered(AXIAL, backwards=False)(tmp_path / "a")))
    backwards = marked(read_volume(numbered(AXIAL, backwards=True)(tmp_path / "b")))
    assert forwards.index == backwards.index
    assert forwards.instance_number == 13 - backwards.instance_number


def test_only_a_frame_of_several_has_a_number(tmp_path: Path) -> None:
    assert marked(read_volume(numbered(AXIAL, backwards=False)(tmp_path / "a"))).frame_number is None
    assert marked(read_volume(enhanced(tmp_path / "b"))).frame_number is not None
