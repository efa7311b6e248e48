"""NRRD and MetaImage files, for people who come from 3D Slicer; read by SimpleITK where it is installed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openscans.errors import CorruptFile, SeveralVolumes, TooFewSlices, UnsupportedFile
from openscans.progress import Report
from openscans.system.regular_files import open_regular
from openscans.volumes import memory_estimate
from openscans.volumes.image import Image
from openscans.volumes.listing import FileState, state_of
from openscans.volumes.values import narrow
from openscans.volumes.volume import FEWEST_SLICES, Extent, Volume, slice_count_warnings

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")


@dataclass(frozen=True)
class ItkImage(Image):
    """A file whose header SimpleITK's ``reader`` has read."""

    file: Path
    state: FileState | None
    reader: Any

    def check_memory(self) -> None:
        memory_estimate.check_itk(self.extent.shape_zyx)

    def is_unchanged(self) -> bool:
        return self.state is not None and state_of(self.file) == self.state

    def _volume(self, report: Report) -> Volume:
        import SimpleITK as sitk  # noqa: N813 - the name everybody knows it by

        report(0, 1)
        _check_regular(self.file)
        try:
            stored = sitk.GetArrayFromImage(self.reader.Execute())
        except RuntimeError as error:
            raise _damaged(self.file) from error
        report(1, 1)
        extent = self.extent
        return Volume(
            voxels=narrow(stored), affine_lps=extent.affine_lps, warnings=slice_count_warnings(min(extent.shape_zyx))
        )


def open_itk(file: Path, report: Report) -> ItkImage:
    """The image in ``file``, by its header.

    Raises UnsupportedFile where SimpleITK is not installed, and the kinds of VolumeError.
    """
    try:
        import SimpleITK as sitk  # noqa: N813
    except ImportError as error:
        raise UnsupportedFile(
            "NRRD and MetaImage files are read only where SimpleITK is installed.",
            hint="Install SimpleITK, or save the image as NIfTI.",
        ) from error
    report(0, 1)
    _check_regular(file)
    state = state_of(file)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        extent = _extent(reader)
    except RuntimeError as error:
        raise _damaged(file) from error
    return ItkImage(None, extent, file, state, reader)


def _damaged(file: Path) -> CorruptFile:
    return CorruptFile(f"The {file.suffix} file is incomplete or damaged.")


def _check_regular(file: Path) -> None:
    """SimpleITK opens by name, whatever lies there. Raises CorruptFile."""
    try:
        open_regular(file).close()
    except OSError as error:
        raise CorruptFile(f"The {file.suffix} file cannot be opened.") from error


def _extent(reader: Any) -> Extent:  # noqa: ANN401 - SimpleITK has no types
    """What the header says. SimpleITK's millimetres are LPS: origin + direction · spacing · index (x, y, z).

    Raises SeveralVolumes, TooFewSlices, InconsistentGeometry.
    """
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1 or len(size) > 3:
        raise SeveralVolumes("The file holds several volumes or colours.")
    if len(size) < 3 or min(size) < FEWEST_SLICES:
        raise TooFewSlices("The image is flat; a volume is needed.")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    return Extent((size[2], size[1], size[0]), affine)
