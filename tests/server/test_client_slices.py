"""Where a series had to be resampled, the answer still counts the slices that the client has on its screen."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from phantom import drawing, grid
from phantom.files import write_dicom_series
from tests.live_server import LiveServer
from tests.phantom_server import LUMBAR, lumbar_scan, phantom_server

SPACING_MM = 3.0

TILT = 0.2
"""Millimetres to the back for each one towards the head: 11 degrees."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with phantom_server(tmp_path_factory.mktemp("home")) as live:
        yield live


def lost_slices(folder: Path) -> list[Path]:
    files = write_dicom_series(folder, *lumbar_scan(spacing_mm=SPACING_MM))
    for file in files[5:60:6]:
        file.unlink()
    return [file for file in files if file.exists()]


def tilted_gantry(folder: Path) -> list[Path]:
    shape, affine = grid.axial(LUMBAR, (SPACING_MM,) * 3)
    affine[:3, 2] += affine[2, 2] * np.array([0, TILT, 0])
    affine[:3, 3] -= affine[:3, 2] * [0, 1, 0] * shape[0] / 2
    return write_dicom_series(folder, drawing.render(LUMBAR, shape, affine)[0], affine)


def xyz(point: dict[str, float]) -> np.ndarray:
    return np.array([point["x"], point["y"], point["z"]])


def place_of(header: pydicom.Dataset, x: float, y: float) -> np.ndarray:
    row_mm, column_mm = header.PixelSpacing
    along_row, along_column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    return np.array(header.ImagePositionPatient, float) + x * column_mm * along_row + y * row_mm * along_column


def answered(server: LiveServer, files: list[Path]) -> dict[str, Any]:
    answer = server.detect(files[0], fast_mode=True)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize(
    ("make", "warning"), [(lost_slices, "missing_slices"), (tilted_gantry, "gantry_tilt_corrected")]
)
def test_centres_bounds_and_slices_are_told_on_the_stored_slices(
    make: Any, warning: str, server: LiveServer, tmp_path: Path
) -> None:
    files = make(tmp_path)
    headers = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, files)}
    answer = answered(server, files)
    assert warning in {told["code"] for told in answer["warnings"]}
    assert answer["image"]["size"]["z"] == len(files)
    assert len(answer["vertebrae"]) >= 4
    for vertebra in answer["vertebrae"]:
        instance, center = headers[vertebra["slice"]["sop_instance_uid"]], xyz(vertebra["center"])
        assert instance.SOPInstanceUID == pydicom.dcmread(files[round(center[2])]).SOPInstanceUID
        # Between two slices that are left lie up to 6 mm; on the slice it is the same place.
        off_mm = place_of(instance, center[0], center[1]) - xyz(vertebra["center_mm"])
        assert np.abs(off_mm[:2]).max() <= SPACING_MM * TILT
        assert abs(off_mm[2]) <= SPACING_MM
        assert (xyz(vertebra["bounds"]["min"]) <= center).all()
        assert (center <= xyz(vertebra["bounds"]["max"])).all()
