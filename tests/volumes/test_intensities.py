"""Values that are no Hounsfield units are named, each by what is wrong with it; a true CT is never called so."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from openscans.types import WarningCode
from openscans.volumes import Volume, look_at_intensities
from openscans.volumes.intensities import NOTHING_TOLD, Told
from phantom.files import DicomStyle
from tests.bad_files import edit
from tests.corpus import CASES
from tests.corpus.cases import Case, Read
from tests.corpus.scene import series
from tests.reading import read_volume
from tests.shared_data import NOT_HERE, SHARED_DATA

Hounsfield = NDArray[np.int16]

AIR_HU, FAT_HU, TISSUE_HU, LUNG_HU, BONE_HU, METAL_HU = -1000.0, -100.0, 45.0, -850.0, 400.0, 12_000.0

AIR_BELOW_HU = -500.0

pytestmark = pytest.mark.filterwarnings("ignore")


def ct(*, noise_hu: float = 25.0, air: bool = True, tissue_hu: float = TISSUE_HU, **others: float) -> Hounsfield:
    """A body of fat and soft tissue with lungs and bones, as (z, y, x); ``others`` are shares of further values."""
    random = np.random.default_rng(4)
    z, y, x = np.indices((24, 96, 96))
    across = np.hypot((y - 48) / 40, (x - 48) / 44)
    values = np.where(across < 1, FAT_HU, AIR_HU if air else FAT_HU)
    values[across < 0.9] = tissue_hu
    values[(np.hypot(y - 48, x - 26) < 12) & (z > 8)] = LUNG_HU if air else tissue_hu
    values[np.hypot(y - 70, x - 48) < 9] = BONE_HU
    for number, share in enumerate(others.values()):
        where = random.random(values.shape) < share
        values[where] = METAL_HU + 1000 * number
    values += random.normal(0, noise_hu, values.shape)
    return np.rint(np.clip(values, -1024, 30_710)).astype(np.int16)


def said(voxels: NDArray[np.generic], told: Told = NOTHING_TOLD, *, is_mr: bool = False) -> str:
    """The sentence about ``voxels``, empty where there is none."""
    warnings = look_at_intensities(voxels, told, is_mr=is_mr).warnings
    assert all(warning.code is WarningCode.VALUES_NOT_HU for warning in warnings)
    return " ".join(warning.message for warning in warnings)


TRUE = {
    "an abdomen": ct(),
    "a lung kernel": ct(noise_hu=180.0),
    "contrast": ct(tissue_hu=160.0),
    "metal": ct(metal=0.004),
    "legs without air": ct(air=False),
    "little noise": ct(noise_hu=4.0),
    "cut at the scanner's 12 bits": np.minimum(ct(metal=0.004), 3071),
    "a cylinder of water": np.where(ct(air=True) > -500, 0, -1000).astype(np.int16)
    + np.random.default_rng(1).normal(0, 8, (24, 96, 96)).astype(np.int16),
    "padded": np.pad(ct(), ((0, 0), (30, 30), (30, 30)), constant_values=-2000),
}

WRONG = {
    "windowed to 8 bits": (np.clip((ct() + 160) / 400 * 255, 0, 255).astype(np.int16), "windowed to 0…255"),
    "windowed to soft tissue": (np.clip(ct(), -160, 240), "windowed to -160…240"),
    "windowed to lungs": (np.clip(ct(), -1350, 150), "windowed to -1024…150"),
    "shifted": ((ct() + 1024).astype(np.int16), "shifted by +1024"),
    "shifted, with contrast": ((ct(tissue_hu=80.0) + 1024).astype(np.int16), "shifted by +1024"),
    "shifted, with padding": (np.pad((ct() + 1024).astype(np.int16), 20, constant_values=-2000), "shifted by +1024"),
    "shifted, with sheared edges": (
        np.pad((ct() + 1024), 9, constant_values=-1024).astype(np.int16),
        "shifted by +1024",
    ),
    "scaled to 0…1": (((ct() + 1024) / 4096).astype(np.float32), "normalised"),
    "standardised": (((ct() - 50.0) / 400).astype(np.float32), "normalised"),
    "sign lost": (ct().astype(np.uint16).astype(np.int32), "sign of negative values was lost"),
    "nearly constant": (np.full((12, 20, 20), 7, np.int16) + np.arange(20, dtype=np.int16), "closer together"),
}


@pytest.mark.parametrize("name", TRUE)
def test_a_true_ct_is_not_called_wrong(name: str) -> None:
    assert said(TRUE[name]) == ""


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    voxels, words = WRONG[name]
    assert words in said(voxels)


@pytest.mark.parametrize("name", TRUE)
def test_of_a_true_ct_what_is_under_minus_500_is_air(name: str) -> None:
    assert look_at_intensities(TRUE[name], NOTHING_TOLD, is_mr=False).air_below == AIR_BELOW_HU


@pytest.mark.parametrize(
    ("name", "air_below"),
    [
        ("shifted", AIR_BELOW_HU + 1024),
        ("shifted, with contrast", AIR_BELOW_HU + 1024),
        ("shifted, with padding", AIR_BELOW_HU + 1024),
        ("shifted, with sheared edges", AIR_BELOW_HU + 1024),
        ("windowed to 8 bits", 1),
        ("windowed to soft tissue", -159),
        ("windowed to lungs", AIR_BELOW_HU),
        ("scaled to 0…1", AIR_BELOW_HU),
        ("standardised", AIR_BELOW_HU),
        ("sign lost", AIR_BELOW_HU),
        ("nearly constant", AIR_BELOW_HU),
    ],
)
def test_what_is_air_is_told_where_that_is_sure(name: str, air_below: float) -> None:
    """Where it is not, -500 stays, and no value of such images lies under it."""
    assert look_at_intensities(WRONG[name][0], NOTHING_TOLD, is_mr=False).air_below == air_below


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (Told(bits_stored=8), "8 bits"),
        (Told(rescaled=False), "how values are rescaled"),
        (Told(unit="US"), "unspecified (US)"),
        (Told(unit="Z_EFF"), "Z_EFF"),
        (Told(unit="DOE^JANE"), "another unit"),
    ],
)
def test_what_headers_lack_is_named_where_no_air_speaks_for_hounsfield_units(told: Told, sentence: str) -> None:
    assert sentence in said((ct(air=False) + 1024).astype(np.int16), told)


@pytest.mark.parametrize("told", [Told(bits_stored=12, rescaled=False), Told(bits_stored=16, unit="US")])
def test_air_at_its_place_outweighs_what_headers_lack(told: Told) -> None:
    assert said(ct(), told) == ""


def test_an_mr_of_few_greys_is_named() -> None:
    greys = np.random.default_rng(2).integers(0, 40, (12, 30, 30)).astype(np.int16)
    assert "only 40 different values" in said(greys, is_mr=True)


def test_an_mr_of_many_greys_is_not() -> None:
    greys = np.random.default_rng(2).integers(0, 255, (12, 30, 30)).astype(np.int16)
    assert said(greys, is_mr=True) == ""


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [({"RescaleType": "US"}, "unspecified"), ({"RescaleSlope": None, "RescaleIntercept": None}, "rescaled")],
)
def test_the_headers_of_a_series_are_heard(tmp_path: Path, attributes: dict[str, object], sentence: str) -> None:
    for file in series(tmp_path, style=DicomStyle(series_uid=generate_uid())):
        edit(file, **attributes)
    assert sentence in of_volume(read_volume(tmp_path))


def of_volume(volume: Volume) -> str:
    return said(volume.voxels, volume.told, is_mr=volume.modality == "MR")


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if isinstance(case.expected, Read) and not case.real],
    ids=lambda case: case.name,
)
def test_no_image_of_the_corpus_is_called_wrong(case: Case, tmp_path: Path) -> None:
    assert of_volume(read_volume(case.make(tmp_path))) == ""


FAULTS = {
    "eight_bit_ct/data": "8 bits",
    "rescale_missing_everywhere/data": "how values are rescaled",
    "sign_lost/data": "sign of negative values",
    "unit_nifti/data/u.nii.gz": "normalised",
    "offset_nifti/data/image.nii.gz": "shifted by +1024",
    "real_windowed_ct/CT_pitch.nii.gz": "windowed to 0…255",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_handed_fault_is_named(name: str, shared_data: Path) -> None:
    assert FAULTS[name] in of_volume(read_volume(shared_data / "faults" / name))


REAL = (
    "ct_abdomen_small/ct.nii.gz",
    "mr_abdomen_small/mr.nii.gz",
    "ct_dicom_series",
    "dicom/01_ge_ct_tilt_varspacing",
    "dicom/02_philips_ct_tilt_neg18",
    "dicom/04_philips_ct_study_dicomdir",
    "dicom/05_siemens_ct_gantrytilt_14deg",
    "dicom/07_ct_variable_increment",
    "dicom/12_mr_sagittal_compressed_series",
    "dicom/14_enhanced_mr_multiframe",
    "dicom/15_ct_with_seg_and_sr",
)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=NOT_HERE)
@pytest.mark.parametrize("name", REAL)
def test_no_real_scan_is_called_wrong(name: str) -> None:
    assert of_volume(read_volume(SHARED_DATA / name)) == ""
