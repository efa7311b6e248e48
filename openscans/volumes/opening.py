"""A path becomes an image, whatever its format: which module opens it, and which image was opened last."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from openscans.errors import InputNotFound, InvalidRequest, NoImage, OutOfMemory
from openscans.progress import Report, ignore_progress
from openscans.system.regular_files import open_regular
from openscans.volumes.assembly import open_largest, open_spread
from openscans.volumes.dicomdir import FileSet, is_dicomdir
from openscans.volumes.headers import Header
from openscans.volumes.image import TOO_LARGE, Image
from openscans.volumes.itk import SUFFIXES, open_itk
from openscans.volumes.nifti import is_nifti, open_nifti
from openscans.volumes.series import Series, image_header, series_among, series_around, series_in_folder
from openscans.volumes.spread import gather_beside


def open_image(
    path: Path, *, series_uid: str | None = None, look_beside: bool = True, report: Report = ignore_progress
) -> Image:
    """The image at ``path``, by its headers: a DICOM file (with its series), a folder, a DICOMDIR, NIfTI, NRRD or
    MetaImage.

    ``series_uid`` chooses a series of a folder. ``look_beside``: whether the folders beside a DICOM file's own, which
    may hold more of its series, are looked into. ``report`` is called for every file that is looked at, and stays at
    nothing done. Raises InputNotFound, OutOfMemory, InvalidRequest, FolderTooLarge and the kinds of VolumeError.
    """
    try:
        image = _open_any(path, series_uid, report, look_beside=look_beside)
    except MemoryError as error:
        raise OutOfMemory(TOO_LARGE) from error
    # Whatever is done for an image before it is read would be done for nothing.
    image.check_memory()
    return image


@dataclass(frozen=True)
class _Opened:
    path: Path
    series_uid: str | None
    image: Image


class LastOpened:
    """The image that was opened last, for one reader who wants the same.

    Minutes may lie between the two, in which networks are fetched, or somebody exports the series again.
    ``look_beside`` as in `open_image`.
    """

    def __init__(self, *, look_beside: bool = True) -> None:
        self._look_beside = look_beside
        self._last: _Opened | None = None

    def open(self, path: Path, series_uid: str | None, report: Report) -> Image:
        """As `open_image`, whose result is kept for `take`; what was kept before is not, whatever happens."""
        self._last = None
        image = open_image(path, series_uid=series_uid, look_beside=self._look_beside, report=report)
        self._last = _Opened(path, series_uid, image)
        return image

    def take(self, path: Path, series_uid: str | None, report: Report) -> Image:
        """The image that is kept, if it was opened by these words and its files are as they were; else opened anew.

        None is kept afterwards.
        """
        last, self._last = self._last, None
        if last is not None and (last.path, last.series_uid) == (path, series_uid) and last.image.is_unchanged():
            return last.image
        return open_image(path, series_uid=series_uid, look_beside=self._look_beside, report=report)


def _open_any(path: Path, series_uid: str | None, report: Report, *, look_beside: bool) -> Image:
    open_one = _opener_of(path)
    if open_one is not None:
        return open_one(path, report)
    if path.is_dir():
        return open_largest(series_in_folder(path, series_uid, report))
    try:
        own = image_header(path)
    except NoImage:
        # Only then, because every look at a file takes its time.
        if is_dicomdir(path):
            return _open_listed(FileSet.listed_by(path), series_uid, report)
        raise
    series = _series_of(own, series_uid, report)
    return open_spread(series, gather_beside(series, report) if look_beside else series)


def _opener_of(path: Path) -> Callable[[Path, Report], Image] | None:
    """What opens a file that is a whole image; None for folders and for what may be DICOM.

    Raises InputNotFound for all that is no file that can be read, UnsupportedFile.
    """
    try:
        if path.is_dir():
            return None
        if not path.is_file():
            raise InputNotFound("There is no file at this path.")
        if path.suffix.lower() in SUFFIXES:
            # SimpleITK would call a file damaged that may not be read.
            open_regular(path).close()
            return open_itk
        return open_nifti if is_nifti(path) else None
    except (OSError, ValueError) as error:
        raise InputNotFound("The file cannot be opened.") from error


def _open_listed(files: FileSet, series_uid: str | None, report: Report) -> Image:
    """The series ``series_uid`` of an index's files, else the largest; it says where files of it are gone."""
    files.check_presence()
    image = open_largest(series_among(files, series_uid, report))
    return replace(image, chosen=(*image.chosen, *files.warnings_of(image.series.uid)))


def _series_of(own: Header, series_uid: str | None, report: Report) -> Series:
    """The series that the file of ``own`` belongs to, which must be the one with ``series_uid`` if that is told."""
    if series_uid not in (None, own.series_uid):
        raise InvalidRequest(
            "The file belongs to another series than the one that series_uid names.",
            hint="Leave series_uid out, or name the folder in place of the file.",
        )
    return series_around(own, report)
