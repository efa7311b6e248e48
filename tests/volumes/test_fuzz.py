"""Damaged files, and headers that nobody would write: each gives an image or a typed error, soon and in little room.

The long run is `python -m tests.fuzz`.
"""

import math
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.valuerep import DSfloat

from openscans import errors
from openscans.segmentation import grids
from openscans.types import Voxel
from phantom.files import write_dicom_series, write_nifti
from tests import bad_files, fuzz
from tests.reading import read_volume

LARGEST_MB = 1200.0
"""The limit that the fuzzer's child has: what it held before it read, and `fuzz.SPARE_BYTES`."""

pytestmark = pytest.mark.filterwarnings("ignore")

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ANY_FLOAT = st.floats(width=32)
USUAL_OR_ANY = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5]), ANY_FLOAT)
WRITTEN = st.floats(allow_nan=False, allow_infinity=False).map(lambda value: str(DSfloat(value, auto_format=True)))
"""What a DICOM header can say."""


def test_damaged_files_give_an_image_or_an_error() -> None:
    figures = fuzz.fuzz(files=150, seed=2)
    assert figures.faults == []
    assert sum(figures.outcomes.values()) == 150
    assert figures.memory_mb < LARGEST_MB


def check_read(path: Path) -> None:
    """A whole image that has a place on a network's grid, or a typed error, in time."""
    since_s = time.perf_counter()
    try:
        volume = read_volume(path)
    except errors.OpenScansError:
        pass
    else:
        assert volume.voxels.ndim == 3
        assert np.isfinite(volume.voxels).all()
        z, y, x = volume.voxels.shape
        grids.model_grid(volume.affine_lps, grids.whole_box(Voxel(x, y, z)), (1.5, 1.5, 1.5))
    assert time.perf_counter() - since_s < fuzz.LONGEST_S


@FEW
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "dim": st.lists(st.integers(-(2**15), 2**15 - 1) | st.integers(0, 8), min_size=8, max_size=8),
            "pixdim": st.lists(USUAL_OR_ANY, min_size=8, max_size=8),
            "datatype": st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 2304, 99]),
            "vox_offset": USUAL_OR_ANY | st.sampled_from([352.0, 348.0]),
            "scl_slope": USUAL_OR_ANY,
            "scl_inter": USUAL_OR_ANY,
            "qform_code": st.integers(-1, 5),
            "sform_code": st.integers(-1, 5),
            "quatern_b": USUAL_OR_ANY,
            "srow_x": st.lists(USUAL_OR_ANY, min_size=4, max_size=4),
            "srow_y": st.lists(USUAL_OR_ANY, min_size=4, max_size=4),
            "srow_z": st.lists(USUAL_OR_ANY, min_size=4, max_size=4),
            "xyzt_units": st.integers(0, 31),
            "qoffset_x": USUAL_OR_ANY,
        },
    )
)
@example(fields={"vox_offset": -math.inf})
def test_any_nifti_header_gives_an_image_or_an_error(
    tmp_path: Path, fields: dict[str, float | list[int] | list[float]]
) -> None:
    path = tmp_path / "image.nii"
    write_nifti(path, bad_files.some_voxels(), bad_files.AFFINE)
    whole = path.read_bytes()
    header = np.frombuffer(whole[:348], nib.nifti1.header_dtype).copy()
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.tobytes() + whole[348:])
    check_read(path)


@FEW
@given(
    which=st.integers(0, 5),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "ImagePositionPatient": st.lists(WRITTEN, min_size=1, max_size=4),
            "ImageOrientationPatient": st.lists(WRITTEN, min_size=5, max_size=7),
            "PixelSpacing": st.lists(WRITTEN, min_size=1, max_size=3),
            "RescaleSlope": WRITTEN,
            "RescaleIntercept": WRITTEN,
            "Rows": st.integers(0, 2**16 - 1),
            "Columns": st.integers(0, 2**16 - 1),
            "BitsAllocated": st.integers(0, 65),
            "BitsStored": st.integers(0, 65),
            "HighBit": st.integers(0, 65),
            "PixelRepresentation": st.integers(0, 3),
            "SamplesPerPixel": st.integers(0, 4),
            "NumberOfFrames": st.integers(-(2**31), 2**31 - 1),
        },
    ),
)
def test_any_dicom_header_gives_an_image_or_an_error(tmp_path: Path, which: int, fields: dict[str, object]) -> None:
    files = write_dicom_series(tmp_path, bad_files.some_voxels(slices=5), bad_files.AFFINE)
    # One file that differs from the others, or all of them alike.
    for file in files if which == len(files) else files[which : which + 1]:
        bad_files.edit(file, **fields)
    check_read(tmp_path)
