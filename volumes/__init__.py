"""A path becomes a `Volume` or a named error; only room that knows pydicom, nibabel, SimpleITK and the image decoders.

It knows nothing of labels, networks or HTTP.
"""

from pathlib import Path

from errors import InputNotFound, UnsupportedFile
from progress import Report, unheard
from volumes.headers import begins_like_dicom
from volumes.itk import SUFFIXES, read_itk
from volumes.nifti import is_nifti, read_nifti
from volumes.series import Series, series_in_folder, series_of_file, volume_of
from volumes.volume import Instance, Volume

__all__ = ["Instance", "Volume", "modality_of", "read"]


def read(path: Path, *, series_uid: str | None = None, report: Report = unheard) -> Volume:
    """The volume at ``path``: a DICOM file (with its series), a folder, NIfTI, NRRD or MetaImage.

    ``series_uid`` chooses a series of a folder. ``report`` counts slices, or the file. Raises InputNotFound and the
    kinds of VolumeError.
    """
    if _is_single_image(path):
        return read_itk(path, report) if path.suffix.lower() in SUFFIXES else read_nifti(path, report)
    return volume_of(_series(path, series_uid), report)


def modality_of(path: Path, *, series_uid: str | None = None) -> str | None:
    """CT or MR as the headers say, None where the format does not tell. Raises as `read` does."""
    if _is_single_image(path):
        return None
    return _series(path, series_uid).modality


def _series(path: Path, series_uid: str | None) -> Series:
    if path.is_dir():
        return series_in_folder(path, series_uid)
    if not begins_like_dicom(path):
        raise UnsupportedFile("This is no image file that is read here.")
    own = series_of_file(path)
    return own if series_uid in (None, own.uid) else series_in_folder(path.parent, series_uid)


def _is_single_image(path: Path) -> bool:
    """False for folders and for what may be DICOM. Raises InputNotFound."""
    try:
        if path.is_dir():
            return False
        return path.suffix.lower() in SUFFIXES or is_nifti(path)
    except FileNotFoundError as error:
        raise InputNotFound("There is no file at this path.") from error
    except OSError as error:
        raise InputNotFound("The file cannot be opened.") from error
