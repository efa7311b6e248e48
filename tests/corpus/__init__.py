"""The images this service may meet, each with what reading it must give: one table, which DICOM.md shows too."""

from tests.corpus import (
    archives,
    folders,
    geometry,
    headers,
    indexes,
    itk,
    mixtures,
    nifti,
    orientations,
    packed,
    pixels,
    real,
)
from tests.corpus.cases import Case

THEMES: dict[str, list[Case]] = {
    "How the patient lies and how slices are cut": orientations.CASES,
    "Folders and files": folders.CASES,
    "More than one thing under a series UID, and one under several": mixtures.CASES,
    "Indexes of CDs": indexes.CASES,
    "DICOM files packed by gzip": packed.CASES,
    "Zips": archives.CASES,
    "Stacks of slices": geometry.CASES,
    "Pixels and headers": pixels.CASES,
    "Headers that others forgive": headers.CASES,
    "NIfTI": nifti.CASES,
    "NRRD and MetaImage": itk.CASES,
    "Real series": real.CASES,
}

CASES = [case for cases in THEMES.values() for case in cases]
