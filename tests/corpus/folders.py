"""Folders as archives and exports leave them: which files are one series, and which series is meant."""

import shutil
from pathlib import Path

import pydicom
from pydicom.fileset import FileSet
from pydicom.uid import EncapsulatedPDFStorage, XRayRadiationDoseSRStorage, generate_uid

from openscans import errors
from phantom.files import DicomStyle
from tests import bad_files
from tests.bad_files import edit
from tests.corpus.cases import Case, Read
from tests.corpus.scene import SHAPE, affine_of, edited, series


def reversed_slices(folder: Path) -> Path:
    series(folder, style=DicomStyle(reversed_numbers=True))
    return folder


def shuffled_slices(folder: Path) -> Path:
    series(folder, style=DicomStyle(shuffle_seed=7))
    return folder


def without_extension(folder: Path) -> Path:
    for number, file in enumerate(series(folder, style=DicomStyle(shuffle_seed=8, suffix=""))):
        file.rename(folder / f"I{number * 37 % 100:03d}")
    return folder


def one_of_its_files(folder: Path) -> Path:
    return series(folder)[5]


def over_sub_folders(folder: Path) -> Path:
    for number, file in enumerate(series(folder)):
        disk = folder / f"disk{number % 3}"
        disk.mkdir(exist_ok=True)
        file.rename(disk / file.name)
    return folder


def file_set(folder: Path) -> Path:
    """A CD: short names in folders, and an index that lists them."""
    disk = FileSet()
    for file in series(folder / "in", style=DicomStyle(suffix="")):
        edit(file, StudyDate="20200102", StudyTime="030405", StudyID="1", SeriesNumber=2, AccessionNumber="A1")
        disk.add(file)
    disk.write(folder / "out")
    shutil.rmtree(folder / "in")
    return folder / "out"


def index_of_a_file_set(folder: Path) -> Path:
    return file_set(folder) / "DICOMDIR"


def localizer_series(folder: Path) -> Path:
    """Of its own series, coronal, with more pixels than the axial slices."""
    series(folder)
    _localizer(folder, generate_uid())
    return folder


def localizer_in_the_series(folder: Path) -> Path:
    uid = generate_uid()
    series(folder, style=DicomStyle(series_uid=uid))
    _localizer(folder, uid)
    return folder


def _localizer(folder: Path, series_uid: str) -> None:
    style = DicomStyle(series_uid=series_uid, suffix=".scout")
    coronal = affine_of(((1, 0, 0), (0, 0, -1), (0, 1, 0)), shape=(1, 30, 30))
    [file] = series(folder, coronal, style, shape=(1, 30, 30))
    edit(file, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])


def two_reconstructions(folder: Path) -> Path:
    """Of one scan; the thin one has more slices."""
    series(folder, affine_of(spacing_mm=(0.7, 0.8, 5.0)), DicomStyle(suffix=".thick"), shape=(6, *SHAPE[1:]))
    series(folder, style=DicomStyle(suffix=".thin"))
    return folder


def one_of_two_reconstructions(folder: Path) -> Path:
    return next(two_reconstructions(folder).glob("*.thick"))


def dose_report(folder: Path) -> Path:
    edit(bad_files.structured_report(folder), SOPClassUID=XRayRadiationDoseSRStorage)
    series(folder)
    return folder


def report_beside(folder: Path) -> Path:
    bad_files.structured_report(folder)
    series(folder)
    return folder


def secondary_capture_beside(folder: Path) -> Path:
    bad_files.secondary_capture(folder)
    series(folder)
    return folder


def capture_in_the_series(folder: Path) -> Path:
    """A dose screen that carries the series' own UID."""
    uid = generate_uid()
    series(folder, style=DicomStyle(series_uid=uid))
    edit(bad_files.secondary_capture(folder), SeriesInstanceUID=uid)
    return folder


def encapsulated_pdf(folder: Path) -> Path:
    path = bad_files.structured_report(folder)
    edit(path, SOPClassUID=EncapsulatedPDFStorage, Modality="DOC", MIMETypeOfEncapsulatedDocument="application/pdf")
    dataset = pydicom.dcmread(path)
    dataset.EncapsulatedDocument = b"%PDF-1.4 synthetic "
    dataset.save_as(path)
    return path.rename(folder / "document.dcm")


def pdf_beside(folder: Path) -> Path:
    encapsulated_pdf(folder)
    series(folder)
    return folder


def whole_study(folder: Path) -> Path:
    """Everything that a study's export may hold, in one folder."""
    encapsulated_pdf(folder)
    for make in (bad_files.structured_report, bad_files.secondary_capture, bad_files.radiograph, two_reconstructions):
        make(folder)
    _localizer(folder, generate_uid())
    return folder


def other_files_beside(folder: Path) -> Path:
    for make in (bad_files.not_an_image, bad_files.empty_file, bad_files.truncated_nifti):
        make(folder)
    (folder / "Thumbs.db").write_bytes(bytes(5000))
    series(folder)
    return folder


def copied_files(folder: Path) -> Path:
    for file in series(folder)[3:6]:
        shutil.copy(file, folder / f"copy of {file.name}")
    return folder


def slices_sent_again(folder: Path) -> Path:
    """Three slices a second time, under new SOPInstanceUIDs."""
    for file in series(folder)[3:6]:
        again = folder / f"again {file.name}"
        shutil.copy(file, again)
        edit(again, SOPInstanceUID=generate_uid())
    return folder


def one_instance_uid(folder: Path) -> Path:
    return edited(folder, SOPInstanceUID="1.2.826.0.1.3680043.8.498.9")


def anonymised(folder: Path) -> Path:
    """Two series from which all UIDs were taken."""
    style = DicomStyle(series_uid="", suffix=".b")
    for file in [*series(folder, style=style), *series(folder / "more", style=style, shape=(6, 20, 20))]:
        edit(file, StudyInstanceUID="", SOPInstanceUID="")
    return folder


def _two_phases(folder: Path, **second: int | str) -> list[Path]:
    style = DicomStyle(series_uid=generate_uid())
    first, other = (series(folder / name, style=style) for name in ("a", "b"))
    for file in other:
        edit(file, **second)
    for file in first:
        edit(file, **{name: type(value)(1) for name, value in second.items()})
    return [file.rename(folder / f"{number:03d}.dcm") for number, file in enumerate(first + other)]


def two_phases(folder: Path) -> Path:
    _two_phases(folder, AcquisitionNumber=2)
    return folder


def file_of_a_phase(folder: Path) -> Path:
    return _two_phases(folder, AcquisitionNumber=2)[15]


def file_of_a_point_in_time(folder: Path) -> Path:
    return _two_phases(folder, TemporalPositionIdentifier=2)[3]


def file_of_phases_that_look_alike(folder: Path) -> Path:
    return _two_phases(folder, StudyID="1")[3]


THICK = Read(size=(16, 14, 6), spacing_mm=(0.7, 0.8, 5.0), warnings=("few_slices",))
ONE_PHASE = Read(warnings=("one_of_several_volumes",))

CASES = [
    Case("slices reversed", "InstanceNumber runs from head to foot.", reversed_slices),
    Case("slices shuffled", "File names say nothing of the order.", shuffled_slices),
    Case("names without extension", "As scanners name files: I037, I074, …", without_extension),
    Case("one file of the series", "A file stands for its series, which lies around it.", one_of_its_files),
    Case("spread over sub-folders", "A series on three disks below the folder.", over_sub_folders),
    Case("CD with DICOMDIR", "The index is passed over; the images are found in the folders.", file_set),
    Case("the DICOMDIR itself", "The series that the index lists.", index_of_a_file_set),
    Case("localizer beside", "A scout of its own series.", localizer_series),
    Case("localizer in the series", "A scout under the same series UID, named LOCALIZER.", localizer_in_the_series),
    Case("two reconstructions", "The series with more slices is read.", two_reconstructions),
    Case("file of one reconstruction", "The given file's own series is read.", one_of_two_reconstructions, THICK),
    Case("dose report beside", "A radiation dose SR in the folder.", dose_report),
    Case("structured report beside", "An SR in the folder.", report_beside),
    Case("secondary capture beside", "A colour picture in the folder, filed as CT.", secondary_capture_beside),
    Case("secondary capture in the series", "A colour picture under the series' own UID.", capture_in_the_series),
    Case("PDF beside", "An encapsulated PDF in the folder.", pdf_beside),
    Case("a PDF", "An encapsulated PDF by itself.", encapsulated_pdf, errors.NoImage),
    Case("whole study", "Two reconstructions, scout, SR, PDF, radiograph and capture in one folder.", whole_study),
    Case("other files beside", "Letters, thumbnails, empty files and half a NIfTI.", other_files_beside),
    Case("copied files", "The same instances twice.", copied_files),
    Case("slices sent again", "Twice under new instance UIDs.", slices_sent_again, errors.SeveralVolumes),
    Case("one instance UID for all", "Slices that lie apart are different, whatever their UID.", one_instance_uid),
    Case("UIDs taken away", "Anonymised: series are told apart by size and frame of reference.", anonymised),
    Case("two phases, folder", "Two volumes under one series UID.", two_phases, errors.SeveralVolumes),
    Case("two phases, file", "The file's own AcquisitionNumber is read.", file_of_a_phase, ONE_PHASE),
    Case("two points in time, file", "The file's own temporal position is read.", file_of_a_point_in_time, ONE_PHASE),
    Case(
        "two phases that look alike",
        "No number tells them apart, so neither is read.",
        file_of_phases_that_look_alike,
        errors.SeveralVolumes,
    ),
]
