"""NRRD and MetaImage files, for people who come from 3D Slicer; read by SimpleITK where it is installed.

SimpleITK says neither in which unit a header tells lengths nor whether it tells directions at all, so the lines of the
header are read here too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openscans.errors import CorruptFile, InconsistentGeometry, SeveralVolumes, TooFewSlices, UnsupportedFile
from openscans.progress import Report
from openscans.system.regular_files import open_regular
from openscans.types import ResultWarning, WarningCode
from openscans.volumes import memory_estimate
from openscans.volumes.geometry import set_upright
from openscans.volumes.image import Image
from openscans.volumes.itk_headers import LARGEST_HEADER_BYTES, check_meta, check_nrrd, check_path
from openscans.volumes.listing import FileState, state_of
from openscans.volumes.stored import StoredSlices
from openscans.volumes.units import affine_in_mm
from openscans.volumes.values import narrow
from openscans.volumes.volume import FEWEST_SLICES, Extent, Volume, slice_count_warnings

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

NRRD_MAGIC = b"NRRD"

NRRD_LINE = re.compile(r"^([^:#\n]+): (.*)", re.MULTILINE)
"""A field. A pair of a key and a value has := instead."""

META_LINE = re.compile(r"^([^=\n]+)=(.*)", re.MULTILINE)

MM_PER_UNIT = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "um": 0.001, "µm": 0.001, "microns": 0.001}
"""What NRRD calls "space units" and MetaImage DistanceUnits; other words say nothing."""

ANATOMICAL_SPACES = (
    "left-posterior-superior",
    "right-anterior-superior",
    "left-anterior-superior",
    "lps",
    "ras",
    "las",
)
"""Those of NRRD's spaces that tell the patient's directions; "-time" or "t" may follow, for a fourth axis."""

META_DIRECTIONS = ("transformmatrix", "rotation", "orientation")
"""MetaImage's three names for the directions of the axes."""

NOT_SUPPORTED = "This is not supported"
"""What SimpleITK says of sound NRRD files with axes that it cannot place, such as one of time beside three of space."""

PLACEMENT_UNKNOWN = ResultWarning(
    WarningCode.PLACEMENT_UNKNOWN,
    "The header does not tell how the image lies in the patient. Its axes were taken to point to the left, to the back"
    " and to the head; if they do not, labels and positions are wrong.",
)


@dataclass(frozen=True)
class ItkImage(Image):
    """A file whose header SimpleITK's ``reader`` has read."""

    file: Path
    state: FileState | None
    reader: Any
    stored: StoredSlices | None
    warnings: tuple[ResultWarning, ...]

    def check_memory(self) -> None:
        resampled_zyx = None if self.stored is None else self.stored.volume_zyx
        memory_estimate.check_itk(self.reader.GetSize(), resampled_zyx=resampled_zyx)

    def is_unchanged(self) -> bool:
        return self.state is not None and state_of(self.file) == self.state

    def _volume(self, report: Report) -> Volume:
        import SimpleITK as sitk  # noqa: N813 - the name everybody knows it by

        report(0, 1)
        _read_header(self.file)
        try:
            values = sitk.GetArrayFromImage(self.reader.Execute()).reshape(self.reader.GetSize()[2::-1])
        except (RuntimeError, ValueError) as error:
            raise _damaged(self.file) from error
        report(1, 1)
        voxels = narrow(values)
        return Volume(
            voxels=voxels if self.stored is None else self.stored.resample(voxels),
            affine_lps=self.extent.affine_lps,
            warnings=self.warnings,
            stored=self.stored,
        )


def open_itk(file: Path, report: Report) -> ItkImage:
    """The image in ``file``, by its header.

    Raises UnsupportedFile where SimpleITK is not installed or bzip2 was used, and the kinds of VolumeError.
    """
    try:
        import SimpleITK as sitk  # noqa: N813
    except ImportError as error:
        raise UnsupportedFile(
            "NRRD and MetaImage files are read only where SimpleITK is installed.",
            hint="Install SimpleITK, or save the image as NIfTI.",
        ) from error
    report(0, 1)
    state = state_of(file)
    start = _read_header(file)
    nrrd = start.startswith(NRRD_MAGIC)
    fields = _nrrd_fields(start) if nrrd else _meta_fields(start)
    if fields.get("encoding", "").lower() in {"bz2", "bzip2"}:
        raise UnsupportedFile(
            "The NRRD file is packed by bzip2, which is not read here.", hint="Save it packed by gzip, or as NIfTI."
        )
    reader = sitk.ImageFileReader()
    # Left to itself, SimpleITK goes by the name.
    reader.SetImageIO("NrrdImageIO" if nrrd else "MetaImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        extent = _extent(reader, _mm_per_unit(fields))
        upright = set_upright(extent)
    except RuntimeError as error:
        if NOT_SUPPORTED in str(error):
            raise UnsupportedFile(f"This kind of {file.suffix} file is not read by SimpleITK.") from error
        raise _damaged(file) from error
    placed = _tells_directions(fields) if nrrd else any(name in fields for name in META_DIRECTIONS)
    warnings = (*slice_count_warnings(min(extent.shape_zyx)), *(() if placed else (PLACEMENT_UNKNOWN,)))
    return ItkImage(None, upright.extent, file, state, reader, upright.stored, (*warnings, *upright.warnings))


def _damaged(file: Path) -> CorruptFile:
    return CorruptFile(f"The {file.suffix} file is incomplete or damaged.")


def _read_header(file: Path) -> bytes:
    """The beginning of ``file``, which SimpleITK would open by name, whatever lies there.

    Raises CorruptFile, and UnsupportedFile where its path is too long.
    """
    check_path(file)
    try:
        with open_regular(file) as stream:
            start = stream.read(LARGEST_HEADER_BYTES)
    except OSError as error:
        raise CorruptFile(f"The {file.suffix} file cannot be opened.") from error
    # MetaImage has no magic, but no image without this.
    if start.startswith(NRRD_MAGIC):
        check_nrrd(start)
    elif b"NDims" in start:
        check_meta(start)
    else:
        raise _damaged(file)
    return start


def _nrrd_fields(start: bytes) -> dict[str, str]:
    """The fields before the empty line that ends the header, by their names in small letters."""
    lines = start.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("utf-8", "replace")
    return {name.strip().lower(): value.strip() for name, value in NRRD_LINE.findall(lines)}


def _meta_fields(start: bytes) -> dict[str, str]:
    """The fields before ElementDataFile, which ends the header, by their names in small letters."""
    lines = start.partition(b"ElementDataFile")[0].decode("utf-8", "replace")
    return {name.strip().lower(): value.strip() for name, value in META_LINE.findall(lines)}


def _mm_per_unit(fields: Mapping[str, str]) -> float:
    """Raises InconsistentGeometry where the three axes of space have several units."""
    told = fields.get("space units", fields.get("units", fields.get("distanceunits", "")))
    found = {MM_PER_UNIT[unit] for unit in re.findall(r"\w+", told) if unit in MM_PER_UNIT}
    if len(found) > 1:
        raise InconsistentGeometry("The header gives the axes' lengths in different units.")
    return found.pop() if found else 1.0


def _tells_directions(fields: Mapping[str, str]) -> bool:
    """Whether an NRRD header tells the patient's directions. For four axes of space there is no name that could."""
    if "space directions" not in fields:
        return False
    return fields.get("space dimension") == "4" or fields.get("space", "").lower().startswith(ANATOMICAL_SPACES)


def _extent(reader: Any, mm_per_unit: float) -> Extent:  # noqa: ANN401 - SimpleITK has no types
    """What the header says. SimpleITK's millimetres are LPS: origin + direction · spacing · index (x, y, z).

    Raises SeveralVolumes, TooFewSlices, InconsistentGeometry.
    """
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1 or any(count != 1 for count in size[3:]):
        raise SeveralVolumes("The file holds several volumes or colours.")
    if len(size) < 3 or min(size[:3]) < FEWEST_SLICES:
        raise TooFewSlices("The image is flat; a volume is needed.")
    directions = np.reshape(reader.GetDirection(), (len(size), len(size)))
    affine = np.eye(4)
    affine[:3, :3] = directions[:3, :3] * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    return Extent((size[2], size[1], size[0]), affine_in_mm(affine, mm_per_unit=mm_per_unit))
