"""A path becomes a `Volume` or a named error; only room that knows pydicom, nibabel, SimpleITK and the image decoders.

It knows nothing of labels, networks or HTTP.
"""

from pathlib import Path

from openscans.errors import InputNotFound, OutOfMemory, UnsupportedFile
from openscans.progress import Report, ignore_progress
from openscans.volumes.assembly import assemble
from openscans.volumes.elements import begins_like_dicom
from openscans.volumes.headers import Header
from openscans.volumes.itk import SUFFIXES, read_itk
from openscans.volumes.nifti import is_nifti, read_nifti
from openscans.volumes.series import Series, image_header, series_around, series_in_folder
from openscans.volumes.volume import Extent, Foresee, Instance, Volume, accept_any

__all__ = ["Extent", "Instance", "Volume", "modality_of", "read"]


def read(
    path: Path, *, series_uid: str | None = None, report: Report = ignore_progress, foresee: Foresee = accept_any
) -> Volume:
    """The volume at ``path``: a DICOM file (with its series), a folder, NIfTI, NRRD or MetaImage.

    ``series_uid`` chooses a series of a folder. ``report`` counts slices, or the file. ``foresee`` is told of the
    volume before its voxels are read. Raises InputNotFound, OutOfMemory and the kinds of VolumeError.
    """
    try:
        if _is_single_image(path):
            read_one = read_itk if path.suffix.lower() in SUFFIXES else read_nifti
            return read_one(path, report, foresee)
        return assemble(_series(path, series_uid, report), report, foresee)
    except MemoryError as error:
        raise OutOfMemory("The image does not fit into the memory that is free.") from error


def modality_of(path: Path, *, series_uid: str | None = None, report: Report = ignore_progress) -> str | None:
    """CT or MR as the headers say, None where the format does not tell. Raises as `read` does.

    ``report`` is called for every file that is looked at, and stays at nothing done.
    """
    if _is_single_image(path):
        return None
    if not path.is_dir():
        own = _dicom_header(path)
        if series_uid in (None, own.series_uid):
            return own.modality
    return _series(path, series_uid, report).modality


def _series(path: Path, series_uid: str | None, report: Report) -> Series:
    if path.is_dir():
        return series_in_folder(path, series_uid, report)
    own = _dicom_header(path)
    if series_uid in (None, own.series_uid):
        return series_around(own, report)
    return series_in_folder(path.parent, series_uid, report)


def _dicom_header(file: Path) -> Header:
    if not begins_like_dicom(file):
        raise UnsupportedFile("This is no image file that is read here.")
    return image_header(file)


def _is_single_image(path: Path) -> bool:
    """False for folders and for what may be DICOM. Raises InputNotFound for all that is no file that can be read."""
    try:
        if path.is_dir():
            return False
        if not path.is_file():
            raise InputNotFound("There is no file at this path.")
        return is_nifti(path) or path.suffix.lower() in SUFFIXES
    except (OSError, ValueError) as error:
        raise InputNotFound("The file cannot be opened.") from error
