"""A NIfTI file becomes a volume, whatever its orientation: x, y, z are the array's indices as stored."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from errors import CorruptFile, InconsistentGeometry, SeveralVolumes, TooFewSlices, UnsupportedFile
from progress import Report
from volumes.volume import FEWEST_SLICES, Volume, Voxels, narrowed, notices_for

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

MAGIC = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
HEADER_BYTES = 352
SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz")
GZIP_MAGIC = b"\x1f\x8b"

BROKEN_FILE = (HeaderDataError, ImageFileError, EOFError, OSError, ValueError, zlib.error)
"""What nibabel and gzip raise on files that are cut short or malformed."""


def is_nifti(file: Path) -> bool:
    """Whether ``file`` is named and begins like a NIfTI file, compressed or not."""
    with file.open("rb") as stream:
        start = stream.read(HEADER_BYTES)
    if not file.name.lower().endswith(SUFFIXES):
        return False
    if start[:2] == GZIP_MAGIC:
        try:
            with gzip.open(file) as stream:
                start = stream.read(HEADER_BYTES)
        except (OSError, EOFError, zlib.error):
            return file.name.lower().endswith(".nii.gz")
    return start[344:348] in MAGIC or start[4:8] in MAGIC


def read_nifti(file: Path, report: Report) -> Volume:
    """The image in ``file``. Raises the kinds of VolumeError."""
    report(0, 1)
    try:
        image = nib.load(file)
        dtype, shape = image.get_data_dtype(), image.shape
    except BROKEN_FILE as error:
        raise CorruptFile("The NIfTI file is incomplete or damaged.") from error
    _check_kind(dtype)
    _check_shape(shape)
    affine = _affine(image)
    voxels = _voxels(image, shape)
    report(1, 1)
    return Volume(voxels=voxels, affine_lps=affine, notices=notices_for(min(shape[:3])))


def _check_kind(dtype: np.dtype[Any]) -> None:
    if dtype.fields is not None or np.issubdtype(dtype, np.complexfloating):
        raise UnsupportedFile("The NIfTI file holds colours or complex numbers, no CT or MR values.")


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or min(shape[:3]) < FEWEST_SLICES:
        raise TooFewSlices(f"The image is flat ({' × '.join(map(str, shape))} voxels); a volume is needed.")
    if any(size != 1 for size in shape[3:]):
        raise SeveralVolumes(f"The file holds several volumes ({' × '.join(map(str, shape))} voxels).")


def _affine(image: Any) -> NDArray[np.float64]:  # noqa: ANN401 - nibabel has no types
    affine: NDArray[np.float64] = LPS_FROM_RAS @ np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or not np.linalg.norm(affine[:3, :3], axis=0).all():
        raise InconsistentGeometry("The NIfTI header gives voxels without size or place.")
    return affine


def _voxels(image: Any, shape: tuple[int, ...]) -> Voxels:  # noqa: ANN401
    """(z, y, x): the transposed array, which is contiguous because NIfTI stores the first index fastest."""
    proxy = image.dataobj
    try:
        stored = np.asanyarray(proxy) if proxy.is_proxy else np.asarray(proxy)
    except BROKEN_FILE as error:
        raise CorruptFile("The NIfTI file is incomplete or damaged.") from error
    values = stored.reshape(shape[:3], order="F").T
    if np.issubdtype(values.dtype, np.floating) and not all(np.isfinite(plane).all() for plane in values):
        raise CorruptFile("The NIfTI file holds values that are no numbers.", hint="Replace NaN and infinity by -1024.")
    return narrowed(values)
