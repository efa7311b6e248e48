"""What every readable case of the corpus shows: values that grow evenly through the patient, so that all are known.

A voxel's value tells where it lies; linear interpolation keeps that, however a volume was resampled.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phantom.files import PLAIN_STYLE, DicomStyle, write_dicom_series
from tests.bad_files import edit

Affine = NDArray[np.float64]
Positions = NDArray[np.float64]

PER_MM = np.array([7.0, -11.0, 13.0])
"""Growth towards the patient's left, back and head: no two directions alike."""

AT_ORIGIN = 500.0
"""Keeps every value of the corpus between 0 and 1023: signed, unsigned, and in twelve bits."""

SHAPE = (12, 14, 16)
"""Slices, rows, columns: no two alike, and enough slices for no warning."""

SPACING_MM = (0.7, 0.8, 2.5)
"""Between columns, rows, slices."""


def values_at(positions_lps: Positions) -> NDArray[np.float64]:
    """Values at ``positions_lps``, (…, 3)."""
    return AT_ORIGIN + positions_lps @ PER_MM


def affine_of(
    directions: tuple[tuple[float, ...], ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    shape: tuple[int, int, int] = SHAPE,
) -> Affine:
    """LPS ``directions`` of growing column, row and slice; the image's middle lies at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.transpose(directions) * spacing_mm
    affine[:3, 3] = affine[:3, :3] @ (-(np.array(shape[::-1]) - 1) / 2)
    return affine


def image(affine_lps: Affine, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float64]:
    """(z, y, x)"""
    z, y, x = np.indices(shape)
    return values_at(np.stack([x, y, z], axis=-1) @ affine_lps[:3, :3].T + affine_lps[:3, 3])


def series(
    folder: Path,
    affine_lps: Affine | None = None,
    style: DicomStyle = PLAIN_STYLE,
    *,
    shape: tuple[int, int, int] = SHAPE,
) -> list[Path]:
    """One file per slice that shows the scene, in the order of the affine's slices."""
    affine = affine_of(shape=shape) if affine_lps is None else affine_lps
    return write_dicom_series(folder, np.rint(image(affine, shape)).astype(np.int16), affine, style)


def edited(folder: Path, style: DicomStyle = PLAIN_STYLE, **attributes: object) -> Path:
    """A plain series whose every file has ``attributes``; returns the folder."""
    for file in series(folder, style=style):
        edit(file, **attributes)
    return folder


def at_heights(folder: Path, heights_mm: list[float], affine_lps: Affine | None = None) -> list[Path]:
    """A series with a slice at each of ``heights_mm`` along the slices' direction."""
    base = affine_of(spacing_mm=(0.7, 0.8, 1.0)) if affine_lps is None else affine_lps
    style = DicomStyle(series_uid="1.2.826.0.1.3680043.8.498.1")
    files = []
    for number, height_mm in enumerate(heights_mm):
        affine = base.copy()
        affine[:3, 3] += affine[:3, 2] * (height_mm - heights_mm[-1] / 2 + 5.5)
        [file] = series(folder / "one", affine, style, shape=(1, *SHAPE[1:]))
        edit(file, StudyInstanceUID="1.2.826.0.1.3680043.8.498.2", InstanceNumber=number + 1)
        files.append(file.rename(folder / f"slice{number:03d}.dcm"))
    (folder / "one").rmdir()
    return files
