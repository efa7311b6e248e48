"""Real CT and MR series with something odd about each, where they lie beside the project."""

from collections.abc import Callable
from pathlib import Path

import pytest

from openscans import errors
from tests.corpus.cases import Case, Outcome, Read
from tests.shared_data import NOT_HERE, SHARED_DATA

FOLDER = SHARED_DATA / "dicom"

TILT = "gantry_tilt_corrected"
FEW = "few_slices"


def _read(size: tuple[int, int, int], spacing_mm: tuple[float, float, float], *warnings: str) -> Read:
    return Read(size, spacing_mm, warnings, scene=False)


FOUND: dict[str, tuple[str, Outcome]] = {
    "01_ge_ct_tilt_varspacing": (
        "GE head CT: tilt of 18.5°, 4 mm and then 7 mm apart",
        _read((512, 512, 28), (0.488, 0.488, 4.002), TILT, "uneven_spacing"),
    ),
    "02_philips_ct_tilt_neg18": (
        "Philips CT of a phantom: tilt of 18.5° to the other side",
        _read((512, 512, 5), (0.482, 0.482, 2.371), FEW, TILT),
    ),
    "04_philips_ct_study_dicomdir": (
        "Philips study with DICOMDIR, localizer, dose screen",
        _read((512, 512, 8), (0.451, 0.451, 5.0), FEW),
    ),
    "04_philips_ct_study_dicomdir/data/S21570/S2010/I110": (
        "One slice of that study",
        _read((512, 512, 8), (0.451, 0.451, 5.0), FEW),
    ),
    "04_philips_ct_study_dicomdir/data/DICOMDIR": (
        "The index of that study, which lists further indexes",
        _read((512, 512, 8), (0.451, 0.451, 5.0), FEW),
    ),
    "05_siemens_ct_gantrytilt_14deg": (
        "Siemens CT: tilt of 14° that no tag tells",
        _read((512, 512, 4), (0.418, 0.418, 4.851), FEW, TILT),
    ),
    "06_siemens_ct_not_a_volume": ("Siemens bolus tracking: one place", errors.TooFewSlices),
    "07_ct_variable_increment": (
        "CT: gaps of 5, 5, 10 mm",
        _read((512, 512, 4), (0.43, 0.43, 5.0), FEW, "missing_slices"),
    ),
    "09_mr_two_orientations_one_series": ("MR: two orientations in one series", errors.InconsistentGeometry),
    "11_ct_one_slice_16_transfer_syntaxes": ("GE CT: one slice in sixteen syntaxes", errors.TooFewSlices),
    "12_mr_sagittal_compressed_series": (
        "Sagittal MR, six folders in six syntaxes",
        _read((256, 256, 4), (1.0, 1.0, 1.0), FEW),
    ),
    "14_enhanced_mr_multiframe/data/siemens": (
        "Siemens enhanced MR",
        _read((256, 256, 8), (0.938, 0.938, 0.9), FEW),
    ),
    "14_enhanced_mr_multiframe/data/philips": (
        "Philips enhanced MR, sagittal",
        _read((256, 256, 8), (1.0, 1.0, 1.2), FEW),
    ),
    "15_ct_with_seg_and_sr": ("CT beside a segmentation and an SR", _read((512, 512, 3), (0.811, 0.811, 1.0), FEW)),
    "15_ct_with_seg_and_sr/data/02.dcm": ("One slice of it", _read((512, 512, 3), (0.811, 0.811, 1.0), FEW)),
    "15_ct_with_seg_and_sr/data/liver.dcm": ("Its segmentation", errors.UnsupportedModality),
    "15_ct_with_seg_and_sr/data/sr.dcm": ("Its SR", errors.NoImage),
    "16_signed_12bit_mr": ("MR mosaics in twelve bits, signed and not", errors.TooFewSlices),
    "17_ct_single_oddities": ("Single slices, each odd in its own way", errors.TooFewSlices),
    "17_ct_single_oddities/data/FreezePattern.dcm": ("A dose screen that says CT", errors.NoImage),
    "17_ct_single_oddities/data/no_meta.dcm": ("CT without preamble and meta header", errors.UnsupportedFile),
    "17_ct_single_oddities/data/GH355.dcm": ("CT without place", errors.TooFewSlices),
    "19_monochrome1_cr": ("A chest radiograph, MONOCHROME1", errors.UnsupportedModality),
}
"""By path below the real images: what it is, and what reading it gives."""


def _where(name: str) -> Callable[[Path], Path]:
    def find(_folder: Path) -> Path:
        if not FOLDER.is_dir():
            pytest.skip(NOT_HERE)
        return FOLDER / name / ("" if "/" in name else "data")

    return find


CASES = [
    Case(name.replace("/data", ""), f"{says}.", _where(name), expected, real=True)
    for name, (says, expected) in FOUND.items()
]
