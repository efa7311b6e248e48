"""What an image of a patient can be: what scanners make is let through, beyond it a header is refused, soon."""

import time
from pathlib import Path

import numpy as np
import pytest

from openscans import volumes
from openscans.errors import InconsistentGeometry
from openscans.types import Voxel
from openscans.volumes import Extent
from openscans.volumes.stored import StoredSlices
from tests.corpus import geometry, itk, nifti

MOST_CPU_S = 0.5

SCANS = {
    "CT of a whole body": ((2200, 512, 512), (1.0, 0.9766, 0.9766)),
    "CT of a whole body in the widest field": ((1100, 1024, 1024), (2.0, 0.88, 0.88)),
    "MR of a whole body, coronal": ((60, 1400, 380), (5.0, 1.4, 1.4)),
    "lung, a slice every 2 cm": ((15, 512, 512), (20.0, 0.7, 0.7)),
    "scout, its slices 5 cm apart": ((3, 256, 256), (50.0, 1.9, 1.9)),
    "PET": ((450, 168, 168), (4.0, 4.07, 4.07)),
    "bone sample": ((800, 1200, 1200), (0.037, 0.037, 0.037)),
    "what a localiser's network sees": ((330, 90, 90), (6.0, 6.0, 6.0)),
}
"""Slices, rows, columns, and their distances in mm."""

IMPOSSIBLE = [
    (
        ((48, 48, 48), (100.0, 100.0, 100.0)),
        "The image would be 4.8 × 4.8 × 4.8 m large, and no patient is: the header gives 48 × 48 × 48 voxels of "
        "100 × 100 × 100 mm.",
        "Check the spacing",
    ),
    (
        ((32767, 3, 3), (1.0, 1.0, 1.0)),
        "The image would be 0.003 × 0.003 × 32.8 m large, and no patient is: the header gives 3 × 3 × 32767 voxels of "
        "1 × 1 × 1 mm.",
        "Check the spacing",
    ),
    (
        ((300, 512, 512), (1000.0, 700.0, 700.0)),
        "The image would be 358 × 358 × 300 m large, and no patient is: the header gives 512 × 512 × 300 voxels of "
        "700 × 700 × 1000 mm.",
        "The lengths look like micrometres",
    ),
    (
        ((300, 512, 512), (0.001, 0.0007, 0.0007)),
        "No scanner of patients makes such small voxels: the header gives 512 × 512 × 300 voxels of "
        "0.0007 × 0.0007 × 0.001 mm.",
        "The lengths look like metres",
    ),
    (
        ((1000, 300, 300), (2.9, 5.0, 5.0)),
        "The image would be 1.5 × 1.5 × 2.9 m large, and no patient is: the header gives 300 × 300 × 1000 voxels of "
        "5 × 5 × 2.9 mm.",
        "Check the spacing",
    ),
    (
        ((20, 20, 20), (21.0, 20.0, 20.0)),
        "The voxels are too large to show a vertebra: the header gives 20 × 20 × 20 voxels of 20 × 20 × 21 mm.",
        "Check the spacing",
    ),
]


def extent(shape_zyx: tuple[int, int, int], spacing_zyx_mm: tuple[float, float, float]) -> Extent:
    """Lying obliquely, as the patient's axes are not the image's."""
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turned = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turned * spacing_zyx_mm[::-1]
    return Extent(shape_zyx, affine)


@pytest.mark.parametrize("scan", SCANS)
def test_what_scanners_make_is_let_through(scan: str) -> None:
    assert extent(*SCANS[scan]).shape_zyx == SCANS[scan][0]


@pytest.mark.parametrize(("given", "sentence", "hint"), IMPOSSIBLE)
def test_what_no_body_can_be_is_refused_with_the_header_s_numbers(
    given: tuple[tuple[int, int, int], tuple[float, float, float]], sentence: str, hint: str
) -> None:
    with pytest.raises(InconsistentGeometry) as refused:
        extent(*given)
    assert str(refused.value) == sentence
    assert refused.value.hint.startswith(hint)


def test_slices_that_a_volume_would_hardly_hold_are_refused() -> None:
    origins = np.column_stack([np.zeros(300), np.arange(300.0), np.arange(300.0)])
    with pytest.raises(InconsistentGeometry, match="101 times as many voxels: its slices are sheared"):
        StoredSlices(origins, Voxel(3, 3, 300), (300, 303, 3))


def test_a_gantry_tilted_as_far_as_it_goes_over_a_whole_body_is_no_such_case() -> None:
    origins = np.column_stack([np.zeros(2000), np.arange(2000.0), np.arange(2000.0)])
    assert StoredSlices(origins, Voxel(512, 512, 2000), (2000, 2511, 512)).typical_step == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        nifti.cube_of_five_metres,
        nifti.long_line,
        nifti.sheared_line,
        nifti.sheared_far,
        nifti.metres_not_said,
        itk.micrometres_not_said,
        itk.slices_of_a_millionth,
        itk.meta_of_a_long_line,
        geometry.metres_apart,
        geometry.tilted_line,
    ],
)
def test_it_is_refused_by_its_headers_at_once(tmp_path: Path, make: object) -> None:
    path = make(tmp_path)
    since_s = time.process_time()
    with pytest.raises(InconsistentGeometry):
        volumes.open(path)
    assert time.process_time() - since_s < MOST_CPU_S
