"""The small scans that the recording sends: four vertebrae of the phantom in every form, and air in stranger ones.

An image is the same in every run but for its UIDs, which `uids` gives names.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

from phantom import drawing, grid, spine
from phantom.files import PLAIN_STYLE, DicomStyle, reorient, write_dicom_series, write_nifti
from phantom.grid import Affine

LUMBAR = spine.describe(0, spine.LEVELS[-4:])

SPACING_MM = (1.9, 2.1, 2.0)
"""No two alike. Coarser ones make the small networks see vertebrae where there are none."""

TILT_DEG = 12.0
TURN_DEG = (11, -7, 9)

SHUFFLED = DicomStyle(shuffle_seed=3, suffix="", reversed_numbers=True, signed=False)

SMALL_SERIES = "1.2.826.0.1.3680043.8.498.78"

Scan = tuple[NDArray[np.int16], Affine]


def axial_scan() -> Scan:
    shape, affine = grid.axial(LUMBAR, SPACING_MM)
    return drawing.render(LUMBAR, shape, affine, seed=0)[0], affine


def tilted_scan() -> Scan:
    """Slices turned against the table's way, as a gantry tilts them."""
    shape, affine = grid.axial(LUMBAR, SPACING_MM)
    cosine, sine = np.cos(np.radians(TILT_DEG)), np.sin(np.radians(TILT_DEG))
    affine[2, 3] += sine * SPACING_MM[1] * shape[1] / 2
    affine[:3, 1] = 0, SPACING_MM[1] * cosine, -SPACING_MM[1] * sine
    return drawing.render(LUMBAR, shape, affine, seed=1)[0], affine


def oblique_scan() -> Scan:
    shape, affine = grid.turned(LUMBAR, SPACING_MM, TURN_DEG)
    return drawing.render(LUMBAR, shape, affine, seed=2)[0], affine


def axial(folder: Path) -> Path:
    write_dicom_series(folder, *axial_scan())
    return folder


def one_file(folder: Path) -> Path:
    """Of a series whose files' names and numbers say nothing of their order."""
    return write_dicom_series(folder, *axial_scan(), SHUFFLED)[40]


def sagittal(folder: Path) -> Path:
    write_dicom_series(folder, *reorient(*axial_scan(), "PIR"))
    return folder


def tilted(folder: Path) -> Path:
    write_dicom_series(folder, *tilted_scan())
    return folder


def lost_slice(folder: Path) -> Path:
    write_dicom_series(folder, *axial_scan())[50].unlink()
    return folder


def nifti(folder: Path) -> Path:
    path = folder / "scan.nii"
    write_nifti(path, *reorient(*axial_scan(), "RAS"))
    return path


def whole_spine(folder: Path) -> Path:
    """Which takes many patches, so that much can be asked while they are computed."""
    phantom = spine.describe(0)
    shape, affine = grid.axial(phantom, SPACING_MM)
    path = folder / "scan.nii"
    write_nifti(path, drawing.render(phantom, shape, affine, seed=3)[0], affine)
    return path


def oblique_nifti(folder: Path) -> Path:
    path = folder / "oblique.nii.gz"
    write_nifti(path, *oblique_scan())
    return path


def cut_nifti(folder: Path) -> Path:
    """It ends within L3."""
    voxels, affine = axial_scan()
    path = folder / "cut.nii"
    write_nifti(path, voxels[:92], affine)
    return path


SCANS: Mapping[str, Callable[[Path], Path]] = {
    "axial series": axial,
    "sagittal series": sagittal,
    "oblique NIfTI, gz": oblique_nifti,
}
"""Those for which all of the full-size grid is computed."""

FAST_SCANS: Mapping[str, Callable[[Path], Path]] = {
    "one shuffled file": one_file,
    "tilted series": tilted,
    "series with a lost slice": lost_slice,
    "NIfTI": nifti,
    "cut NIfTI": cut_nifti,
}
"""Those that are read in ways of their own, which fast mode shows as well."""


def air(slices: int = 12) -> Scan:
    """Nothing is computed of it, so that what is said of the image itself costs no time."""
    return np.full((slices, 14, 16), -1000, np.int16), np.diag([0.7, 0.8, 2.5, 1.0])


def air_series(folder: Path, style: DicomStyle = PLAIN_STYLE, slices: int = 12) -> list[Path]:
    return write_dicom_series(folder, *air(slices), style)


def few_slices(folder: Path) -> Path:
    air_series(folder, slices=5)
    return folder


def uneven(folder: Path) -> Path:
    """Each gap is wider than the one below."""
    for z, file in enumerate(air_series(folder)):
        _edit(file, ImagePositionPatient=[0, 0, round(z + 0.09 * z * z, 2)])
    return folder


def file_of_a_phase(folder: Path) -> Path:
    """Two scans under one series, told apart by their AcquisitionNumber."""
    style = DicomStyle(series_uid="1.2.826.0.1.3680043.8.498.77")
    for number, name in enumerate("ab", 1):
        for file in air_series(folder / name, style):
            _edit(file, AcquisitionNumber=number)
            file.rename(folder / f"{name}-{file.name}")
    return folder / "b-slice00003.dcm"


def two_series(folder: Path) -> Path:
    """The larger one is read if nobody says which is meant."""
    air_series(folder / "small", DicomStyle(series_uid=SMALL_SERIES), slices=8)
    air_series(folder / "large", DicomStyle(series_uid=f"{SMALL_SERIES}.1"))
    return folder


def mr_series(folder: Path) -> Path:
    write_dicom_series(folder, air()[0] + 1000, air()[1], DicomStyle(modality="MR"))
    return folder


def air_nifti(folder: Path) -> Path:
    path = folder / "air.nii.gz"
    write_nifti(path, *air())
    return path


AIR: Mapping[str, Callable[[Path], Path]] = {
    "air, few slices": few_slices,
    "air, uneven slices": uneven,
    "air, file of a phase": file_of_a_phase,
    "air, NIfTI": air_nifti,
}


def uids(folder: Path) -> dict[str, str]:
    """A name for every UID in the DICOM files below ``folder``: an instance's number, a series' folder."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in {"", ".dcm"}:
            tags = ["SOPInstanceUID", "SeriesInstanceUID", "InstanceNumber"]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
            found[str(header.SOPInstanceUID)] = f"<instance {header.InstanceNumber}>"
            found[str(header.SeriesInstanceUID)] = f"<series in {path.parent.name}>"
    return found


def _edit(file: Path, **attributes: object) -> None:
    dataset = pydicom.dcmread(file)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(file)
