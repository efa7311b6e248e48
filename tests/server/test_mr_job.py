"""The MR way, end to end: the network is downloaded, and sagittal slices give the spine's levels over HTTP.

The synthetic MR's small network stands in for the real one, as the CT's do in `test_main_job`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from openscans.volumes import Volume
from phantom import drawing, evaluate, specs, spine
from phantom.files import DicomStyle, reorient, write_dicom_series, write_nifti
from tests.live_server import LiveServer, live_server
from tests.release_server import ReleaseServer

LEVELS = spine.LEVELS[18:]
"""T12 to S1, which 756 counts to the sacrum."""

FOUND = list(LEVELS[:-1])

NEAR_MM = 3.0
"""Less than the distance from slice to slice."""


@pytest.fixture(scope="module")
def server(trained_release: ReleaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_WEIGHTS_URL": trained_release.url}) as live:
        with live.events("POST", "/api/models/download/vertebrae_mr") as events:
            assert [*events][-1]["status"] == "complete"
        yield live


@pytest.fixture(scope="module", params=[22, 23], ids=["T2", "T1"])
def scan(request: pytest.FixtureRequest) -> tuple[spine.Phantom, Volume]:
    phantom, volume, _ = evaluate.mr_scan(request.param, LEVELS, in_plane_mm=1.0)
    return phantom, volume


def write_sagittal(folder: Path, volume: Volume) -> Path:
    """The middle one of the files of a DICOM series of sagittal slices, as scanners store them."""
    whole = np.rint(volume.voxels).astype(np.int16)
    paths = write_dicom_series(folder, *reorient(whole, volume.affine_lps, "PIR"), DicomStyle(modality="MR"))
    return paths[len(paths) // 2]


def whole(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Without the crumbs of other levels that the small network sees."""
    return [one for one in answer["vertebrae"] if one["volume_ml"] > evaluate.CRUMB_ML]


def centers_mm(answer: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    return {one["label"]: np.array([one["center_mm"][axis] for axis in "xyz"], np.float64) for one in whole(answer)}


def test_a_sagittal_mr_is_taken_for_one_and_every_vertebra_lies_near_the_truth(
    server: LiveServer, scan: tuple[spine.Phantom, Volume], tmp_path: Path
) -> None:
    phantom, volume = scan
    answer = server.detect(write_sagittal(tmp_path, volume)).json()
    assert answer["image"]["modality"] == "MR"
    assert (answer["model"]["task"], answer["model"]["datasets"]) == ("vertebrae_mr", [specs.SPECS[756].folder])
    found, truth = centers_mm(answer), drawing.truth(phantom)
    assert list(found) == FOUND
    assert all(np.linalg.norm(found[name] - truth[name].center_mm) <= NEAR_MM for name in FOUND)


def test_the_slice_of_a_vertebra_is_the_sagittal_one_through_its_centre(
    server: LiveServer, scan: tuple[spine.Phantom, Volume], tmp_path: Path
) -> None:
    path = write_sagittal(tmp_path, scan[1])
    answer = server.detect(path).json()
    headers = [pydicom.dcmread(one, stop_before_pixels=True) for one in path.parent.iterdir()]
    by_uid = {header.SOPInstanceUID: header for header in headers}
    between_mm = float(headers[0].SliceThickness)
    for one in answer["vertebrae"]:
        header = by_uid[one["slice"]["sop_instance_uid"]]
        directions = np.array(header.ImageOrientationPatient, np.float64).reshape(2, 3)
        across = np.cross(*directions)
        center_mm = np.array([one["center_mm"][axis] for axis in "xyz"], np.float64)
        assert abs(across @ (center_mm - np.array(header.ImagePositionPatient, np.float64))) <= between_mm / 2 + 1e-3


def test_an_mr_of_fractions_in_nifti_gives_the_same_vertebrae(
    server: LiveServer, scan: tuple[spine.Phantom, Volume], tmp_path: Path
) -> None:
    _, volume = scan
    write_nifti(tmp_path / "mr.nii.gz", *reorient(volume.voxels, volume.affine_lps, "PIR"))
    of_fractions = server.detect(tmp_path / "mr.nii.gz", model="vertebrae_mr").json()
    of_whole_numbers = server.detect(write_sagittal(tmp_path / "dicom", volume)).json()
    found, expected = centers_mm(of_fractions), centers_mm(of_whole_numbers)
    assert list(found) == list(expected) == FOUND
    assert all(np.linalg.norm(found[name] - expected[name]) <= 0.3 for name in FOUND)
