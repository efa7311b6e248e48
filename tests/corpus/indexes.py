"""Indexes of CDs and exports (DICOMDIR), and what may lie, or be gone, around them."""

import shutil
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from openscans import errors
from phantom.files import DicomStyle
from tests.corpus import folders
from tests.corpus.cases import Case, Read
from tests.corpus.scene import SHAPE, series


def index_in_small_letters(folder: Path) -> Path:
    """As Linux shows the names of many CDs."""
    index = folders.index_of_a_file_set(folder)
    for path in sorted(index.parent.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.lower()))
    return index.with_name("dicomdir")


def index_with_versions(folder: Path) -> Path:
    """As other systems show them."""
    index = folders.index_of_a_file_set(folder)
    for path in index.parent.rglob("IM*"):
        path.rename(path.with_name(f"{path.name};1"))
    return index


def index_among_others(folder: Path) -> Path:
    """A larger series lies beside, which the index does not list."""
    index = folders.index_of_a_file_set(folder)
    series(index.parent / "other", style=DicomStyle(suffix=".other"), shape=(SHAPE[0] + 8, *SHAPE[1:]))
    return index


def index_of_indexes(folder: Path) -> Path:
    """As Philips writes them: of a study it lists another index, which lies beside the images."""
    index = folders.index_of_a_file_set(folder)
    [images] = index.parent.glob("PT*")
    shutil.copy(index, images / "DIRFILE")
    list_alone(index, [images.name, "DIRFILE"], "STUDY")
    return index


def index_that_lacks_a_file(folder: Path) -> Path:
    index = folders.index_of_a_file_set(folder)
    first, *_ = sorted(path for path in index.parent.rglob("IM*") if path.is_file())
    first.unlink()
    return index


def index_alone(folder: Path) -> Path:
    index = folders.index_of_a_file_set(folder)
    shutil.rmtree(next(index.parent.glob("PT*")))
    series(index.parent / "another patient")
    return index


def index_that_leads_out(folder: Path) -> Path:
    index = folders.index_of_a_file_set(folder)
    series(folder / "secret", style=DicomStyle(suffix=""))
    list_alone(index, ["..", "secret", "slice00000"])
    return index


def index_with_an_absolute_path(folder: Path) -> Path:
    index = folders.index_of_a_file_set(folder)
    list_alone(index, str(series(folder / "secret")[0]))
    return index


def index_of_nothing(folder: Path) -> Path:
    index = folders.index_of_a_file_set(folder)
    dataset = pydicom.dcmread(index)
    dataset.DirectoryRecordSequence = []
    dataset.save_as(index)
    return index


def index_cut_short(folder: Path) -> Path:
    index = folders.index_of_a_file_set(folder)
    index.write_bytes(index.read_bytes()[:-300])
    return index


def list_alone(index: Path, file_id: str | list[str], kind: str = "IMAGE") -> None:
    """Let ``index`` list this file and no other."""
    dataset = pydicom.dcmread(index)
    record = Dataset()
    record.DirectoryRecordType = kind
    record.ReferencedFileID = file_id
    dataset.DirectoryRecordSequence = [record]
    dataset.save_as(index)


CASES = [
    Case("DICOMDIR in small letters", "And so are the names that it lists.", index_in_small_letters),
    Case("DICOMDIR, names with versions", "IM000000;1, as CDs have them.", index_with_versions),
    Case("DICOMDIR among others", "A larger series that it does not list lies beside.", index_among_others),
    Case("DICOMDIR of DICOMDIRs", "It lists an index for each study, and no image.", index_of_indexes),
    Case(
        "DICOMDIR that lacks a file",
        "The first slice was not copied.",
        index_that_lacks_a_file,
        Read(size=(SHAPE[2], SHAPE[1], SHAPE[0] - 1), warnings=("missing_slices",)),
    ),
    Case("DICOMDIR alone", "Another series beside is not what it lists.", index_alone, errors.InputNotFound),
    Case("DICOMDIR that leads out", "It lists a file outside of its folder.", index_that_leads_out, errors.CorruptFile),
    Case("DICOMDIR with an absolute path", "As no index has one.", index_with_an_absolute_path, errors.CorruptFile),
    Case("DICOMDIR of nothing", "It lists no file.", index_of_nothing, errors.NoImage),
    Case("DICOMDIR cut short", "Its records end early.", index_cut_short, errors.CorruptFile),
]
