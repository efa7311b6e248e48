"""A NIfTI file becomes an image, whatever its orientation: x, y, z are the array's indices as stored."""

import gzip
import itertools
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader, FileIO
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from openscans.errors import (
    CorruptFile,
    InconsistentGeometry,
    SeveralVolumes,
    TooFewSlices,
    UnsupportedFile,
)
from openscans.progress import Report
from openscans.system.regular_files import open_regular
from openscans.types import ResultWarning, WarningCode
from openscans.volumes import memory_estimate
from openscans.volumes.geometry import set_upright
from openscans.volumes.image import Image
from openscans.volumes.listing import FileState, state_of
from openscans.volumes.stored import StoredSlices
from openscans.volumes.units import affine_in_mm
from openscans.volumes.values import Rescale, Voxels, allocate, narrow, widen
from openscans.volumes.volume import FEWEST_SLICES, Extent, Volume, slice_count_warnings

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's millimetres grow to the right and to the front (nifti1.h), DICOM's to the left and to the back."""

ONE_FILE_MAGIC, PAIR_MAGIC = (b"n+1\0", b"n+2\0"), (b"ni1\0", b"ni2\0")
MAGIC = (*ONE_FILE_MAGIC, *PAIR_MAGIC)
HEADER_BYTES, LONGEST_HEADER = 352, 540
ONE_FILE_SUFFIXES = (".nii", ".nii.gz")
HEADER_SUFFIXES, IMAGE_SUFFIXES = (".hdr", ".hdr.gz"), (".img", ".img.gz")
"""Of the two files of a pair. Whether a file is packed is told by its content, whatever its name says: browsers unpack
what they download and keep the name."""

IMAGES = {
    (False, False): nib.Nifti1Image,
    (False, True): nib.Nifti2Image,
    (True, False): nib.Nifti1Pair,
    (True, True): nib.Nifti2Pair,
}
"""nibabel's classes: for a header with the voxels in a file beside it or not, of the second version or not."""

GZIP_MAGIC = b"\x1f\x8b\x08"
"""RFC 1952, with deflate, the only method there is. No header begins so, and hardly ever the voxels of a pair."""

BZIP2_MAGIC = b"BZh"

LARGEST_OFFSET_BYTES = 2**24
"""Between header and voxels lie extensions, which nibabel reads whole; those of other programs are some kilobytes."""

FORMS_TOLERANCE_MM = 1.0
"""Two placements of one image differ by rounding and by the quaternion's few digits, which stay below this."""

PIECE_BYTES = 2**22
"""Read at once; between pieces it is told how far it is, and heard whether anybody still wants it."""

DEFLATE_MOST = 1032
"""Deflate never makes anything smaller than by this factor, so a larger claim is a lie."""

FORMS_DIFFER = ResultWarning(
    WarningCode.SFORM_QFORM_DIFFER, "The NIfTI header places the image twice, and differently; its sform was used."
)

PLACEMENT_UNKNOWN = ResultWarning(
    WarningCode.PLACEMENT_UNKNOWN,
    "The NIfTI header does not tell how the image lies in the patient (sform and qform are 0). Its axes were taken to"
    " point to the left, to the front and to the head; if they do not, labels and positions are wrong.",
)

MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
"""By the lowest three bits of xyzt_units (nifti1.h): metres, millimetres, micrometres. 0 is unknown, in practice mm."""

UNIT_OF_SPACE = 0x07

BROKEN_FILE = (HeaderDataError, ImageFileError, EOFError, OSError, ValueError, zlib.error)
"""What nibabel and gzip raise on files that are cut short or malformed."""


@dataclass(frozen=True)
class NiftiImage(Image):
    """A file, or a pair, whose header nibabel has read into ``loaded``; its array is read when it is asked for."""

    states: dict[Path, FileState | None]
    loaded: Any
    stored: StoredSlices | None
    warnings: tuple[ResultWarning, ...]

    def check_memory(self) -> None:
        resampled_zyx = None if self.stored is None else self.stored.volume_zyx
        memory_estimate.check_nifti(self.loaded.shape, self.loaded.get_data_dtype(), resampled_zyx=resampled_zyx)

    def is_unchanged(self) -> bool:
        return all(state is not None and state_of(file) == state for file, state in self.states.items())

    def _volume(self, report: Report) -> Volume:
        voxels = _voxels(self.loaded, self.loaded.shape, report)
        report(1, 1)
        return Volume(
            voxels=voxels if self.stored is None else self.stored.resample(voxels),
            affine_lps=self.extent.affine_lps,
            warnings=self.warnings,
            stored=self.stored,
        )


def is_nifti(file: Path) -> bool:
    """Whether ``file`` is named like a NIfTI file, or one of a pair, and begins like one, packed or not.

    Raises OSError; UnsupportedFile where it is packed by bzip2.
    """
    one_file = file.name.lower().endswith(ONE_FILE_SUFFIXES)
    header = file if one_file else _part_of_pair(file, HEADER_SUFFIXES)
    if header is None:
        return False
    with open_regular(header) as stored:
        if stored.peek(len(BZIP2_MAGIC)).startswith(BZIP2_MAGIC):
            raise UnsupportedFile(
                "The NIfTI file is packed by bzip2, which is not read here.", hint="Save it as .nii or .nii.gz."
            )
        packed = _is_packed(stored)
        try:
            start = _read_start(stored, HEADER_BYTES)
        except (OSError, EOFError, zlib.error):
            return packed and one_file
    return start[344:348] in MAGIC or start[4:8] in MAGIC


def open_nifti(file: Path, report: Report) -> NiftiImage:
    """The image in ``file``, by its header. Raises the kinds of VolumeError."""
    report(0, 1)
    kind, files = _parts_of(file)
    states = {part: state_of(part) for part in files.values()}
    try:
        with ExitStack() as streams:
            loaded = _load(kind, files, streams)
        dtype, shape = loaded.get_data_dtype(), loaded.shape
        most_bytes = _most_bytes(files["image"])
    except BROKEN_FILE as error:
        raise CorruptFile("The NIfTI file is incomplete or damaged.") from error
    _check_kind(dtype)
    _check_shape(shape)
    if math.prod(shape) * dtype.itemsize > most_bytes:
        raise CorruptFile("The NIfTI file is shorter than its header says.")
    upright = set_upright(Extent((shape[2], shape[1], shape[0]), _affine(loaded)))
    warnings = (*slice_count_warnings(min(shape[:3])), *_warnings_of(loaded), *upright.warnings)
    return NiftiImage(None, upright.extent, states, loaded, upright.stored, warnings)


def _part_of_pair(file: Path, suffixes: tuple[str, str]) -> Path | None:
    """The file of the pair of ``file`` that has one of ``suffixes``, in its letters' case; None where there is none."""
    for own in (*HEADER_SUFFIXES, *IMAGE_SUFFIXES):
        if file.name.lower().endswith(own):
            if own in suffixes:
                return file
            stem = file.name[: -len(own)]
            upper = file.name[len(stem) :].isupper()
            beside = (file.with_name(stem + (suffix.upper() if upper else suffix)) for suffix in suffixes)
            return next((other for other in beside if other.is_file()), None)
    return None


def _load(kind: Any, files: dict[str, Path], streams: ExitStack) -> Any:  # noqa: ANN401 - nibabel has no types
    """The image of the class ``kind``, its header read. Raises what BROKEN_FILE lists."""
    # Opened here, because nibabel opens by name, whatever lies there, and believes names that say it is packed.
    holders = {
        part: nib.FileHolder(filename=str(file), fileobj=streams.enter_context(_unpack(file)))
        for part, file in files.items()
    }
    # A mapped file would lose its voxels, and the process its life, if somebody shortened it meanwhile.
    return kind.from_file_map(holders, mmap=False)


@contextmanager
def _unpack(file: Path) -> Iterator[BufferedIOBase]:
    """What ``file`` holds, as a stream. Raises OSError."""
    with open_regular(file) as stored:
        if _is_packed(stored):
            with gzip.open(stored) as stream:
                yield stream
        else:
            yield stored


def _is_packed(stored: BufferedReader | FileIO) -> bool:
    """Whether ``stored`` begins like a gzip file; it is at its beginning before and after."""
    start = stored.read(len(GZIP_MAGIC))
    stored.seek(0)
    return start == GZIP_MAGIC


def _read_start(stored: BufferedReader, size_bytes: int) -> bytes:
    """The first bytes of a file, unpacked. Raises what gzip does."""
    if not _is_packed(stored):
        return stored.read(size_bytes)
    with gzip.open(stored) as stream:
        return stream.read(size_bytes)


def _parts_of(file: Path) -> tuple[Any, dict[str, Path]]:
    """The class of nibabel's that reads ``file``, and the files that it reads, after a look at the header as it is
    stored, before nibabel mends it or reads as far as it says.

    Raises CorruptFile where the voxels begin beyond reason, for a packed file would be unpacked as far as that, or
    the other file of a pair is missing; InconsistentGeometry where nothing tells the voxels' size.
    """
    try:
        header_file = _part_of_pair(file, HEADER_SUFFIXES) or file
        with open_regular(header_file) as stored:
            start = _read_start(stored, LONGEST_HEADER)
        second = start[4:8] in MAGIC
        pair = header_file.name.lower().endswith(HEADER_SUFFIXES) and (start[4:8] if second else start[344:348]) in (
            PAIR_MAGIC
        )
        kind = IMAGES[pair, second]
        header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
        image_file = _part_of_pair(file, IMAGE_SUFFIXES) if pair else header_file
    except BROKEN_FILE as error:
        raise CorruptFile("The NIfTI file is incomplete or damaged.") from error
    if not 0 <= float(header["vox_offset"]) <= LARGEST_OFFSET_BYTES:
        raise CorruptFile("The NIfTI header puts the voxels where no file can have them.")
    if header["sform_code"] == 0 and not np.all(header["pixdim"][1:4]):
        raise InconsistentGeometry("The NIfTI header gives voxels without size.")
    if image_file is None:
        raise CorruptFile("The .img file that belongs to the NIfTI header does not lie beside it.")
    return kind, {"header": header_file, "image": image_file} if pair else {"image": image_file}


def _most_bytes(file: Path) -> int:
    """How many bytes the voxels in ``file`` can be at most, once unpacked. Raises OSError."""
    with open_regular(file) as stored:
        return os.fstat(stored.fileno()).st_size * (DEFLATE_MOST if _is_packed(stored) else 1)


def _check_kind(dtype: np.dtype[Any]) -> None:
    if dtype.fields is not None or np.issubdtype(dtype, np.complexfloating):
        raise UnsupportedFile("The NIfTI file holds colours or complex numbers, no CT or MR values.")


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or min(shape[:3]) < FEWEST_SLICES:
        raise TooFewSlices(f"The image is flat ({' × '.join(map(str, shape))} voxels); a volume is needed.")
    if any(size != 1 for size in shape[3:]):
        raise SeveralVolumes(f"The file holds several volumes ({' × '.join(map(str, shape))} voxels).")


def _affine(image: Any) -> NDArray[np.float64]:  # noqa: ANN401 - nibabel has no types
    """Array indices (x, y, z, 1) to LPS mm.

    nibabel takes method 3 of nifti1.h (sform) where its code is above zero, else method 2 (qform, a quaternion), else
    the voxels' size alone, with the directions that Analyze had: to the left, to the front, to the head. All are in
    the unit of xyzt_units. Raises InconsistentGeometry.
    """
    affine: NDArray[np.float64] = LPS_FROM_RAS @ np.asarray(image.affine, np.float64)
    if not np.isfinite(affine).all() or not np.linalg.norm(affine[:3, :3], axis=0).all():
        raise InconsistentGeometry("The NIfTI header gives voxels without size or place.")
    return affine_in_mm(affine, mm_per_unit=_mm_per_unit(image.header))


def _mm_per_unit(header: Any) -> float:  # noqa: ANN401
    return MM_PER_UNIT.get(int(header["xyzt_units"]) & UNIT_OF_SPACE, 1.0)


def _warnings_of(image: Any) -> tuple[ResultWarning, ...]:  # noqa: ANN401
    """A warning where the header tells no placement, or two, methods 2 and 3 of nifti1.h, that put the image's corners
    apart (mm).

    nibabel, as most programs, goes by method 3, the sform.
    """
    header = image.header
    if header["sform_code"] == header["qform_code"] == 0:
        return (PLACEMENT_UNKNOWN,)
    if min(int(header["sform_code"]), int(header["qform_code"])) < 1:
        return ()
    try:
        differs = header.get_sform() - header.get_qform()
    except BROKEN_FILE:
        return (FORMS_DIFFER,)
    corners = np.array(list(itertools.product(*((0, size - 1) for size in image.shape[:3]))))
    off_mm = np.linalg.norm(corners @ differs[:3, :3].T + differs[:3, 3], axis=1) * _mm_per_unit(header)
    return () if off_mm.max() <= FORMS_TOLERANCE_MM else (FORMS_DIFFER,)


def _voxels(image: Any, shape: tuple[int, ...], report: Report) -> Voxels:  # noqa: ANN401
    """(z, y, x): the transposed array, which is contiguous because NIfTI stores the first index fastest.

    They are those of the image as stored: nothing is turned or resampled.
    """
    try:
        stored = _read_stored(image, report)
        if stored is None:
            with _unpack(Path(image.file_map["image"].filename)) as image.dataobj.file_like:
                stored = image.dataobj.get_unscaled()
    except BROKEN_FILE as error:
        raise CorruptFile("The NIfTI file is incomplete or damaged.") from error
    rescale = Rescale(float(image.dataobj.slope), float(image.dataobj.inter))
    values = stored.reshape(shape[:3], order="F").T
    return narrow(values) if rescale == Rescale() else _rescale(values, rescale)


def _read_stored(image: Any, report: Report) -> Voxels | None:  # noqa: ANN401
    """The stored values, as `get_unscaled` gives them; packed ones in less than half its time.

    None for files that do not hold, or unpack to, just what the header says, such as gzip in several members:
    nibabel's stream reads what can be read of them, or tells what is wrong. ``report`` counts the file's bytes.
    """
    stored = image.dataobj
    size_bytes = stored.offset + math.prod(stored.shape) * stored.dtype.itemsize
    with open_regular(image.file_map["image"].filename, buffering=0) as stream:
        if _is_packed(stream):
            buffer = np.empty(size_bytes, np.uint8)
            packed = _read(stream, os.fstat(stream.fileno()).st_size, report)
            try:
                found_bytes = len(imagecodecs.gzip_decode(packed, out=buffer.data))
            except imagecodecs.DeflateError:
                return None
        else:
            buffer = _read(stream, size_bytes, report)
            found_bytes = len(buffer)
    if found_bytes != size_bytes:
        return None
    values: Voxels = np.ndarray(stored.shape, stored.dtype, buffer.data, stored.offset, order="F")
    return values


def _read(stream: FileIO, size_bytes: int, report: Report) -> NDArray[np.uint8]:
    """The first ``size_bytes`` of ``stream``, or all that it has."""
    buffer, done = np.empty(size_bytes, np.uint8), 0
    while count := stream.readinto(buffer.data[done : done + PIECE_BYTES]):
        done += count
        report(done, size_bytes)
    return buffer[:done]


def _rescale(stored: Voxels, rescale: Rescale) -> Voxels:
    """Plane by plane, because nibabel would make the whole image float64 at once."""
    voxels = allocate(stored.shape)
    for z, plane in enumerate(stored):
        values = rescale.apply(plane)
        voxels = widen(voxels, values)
        voxels[z] = values
    return voxels
