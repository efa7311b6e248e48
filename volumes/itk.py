"""NRRD and MetaImage files, for people who come from 3D Slicer; read by SimpleITK where it is installed."""

import math
from pathlib import Path
from typing import Any

import numpy as np

import memory
from errors import CorruptFile, SeveralVolumes, TooFewSlices, UnsupportedFile
from progress import Report
from volumes.values import narrowed
from volumes.volume import FEWEST_SLICES, Volume, notices_for

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

VOXEL_BYTES = 2 * 8
"""At most 8 as they are stored, and a copy of them as an array."""


def read_itk(file: Path, report: Report) -> Volume:
    """The image in ``file``. Raises UnsupportedFile where SimpleITK is not installed, and the kinds of VolumeError."""
    try:
        import SimpleITK as sitk  # noqa: N813 - the name everybody knows it by
    except ImportError as error:
        raise UnsupportedFile(
            "NRRD and MetaImage files are read only where SimpleITK is installed.",
            hint="Install SimpleITK, or save the image as NIfTI.",
        ) from error
    report(0, 1)
    try:
        image = _image(sitk, file)
    except RuntimeError as error:
        raise CorruptFile(f"The {file.suffix} file is incomplete or damaged.") from error
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() > 3:
        raise SeveralVolumes("The file holds several volumes or colours.")
    if image.GetDimension() < 3 or min(image.GetSize()) < FEWEST_SLICES:
        raise TooFewSlices("The image is flat; a volume is needed.")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = narrowed(sitk.GetArrayFromImage(image))
    report(1, 1)
    return Volume(voxels=voxels, affine_lps=affine, notices=notices_for(min(image.GetSize())))


def _image(sitk: Any, file: Path) -> Any:  # noqa: ANN401 - SimpleITK has no types
    """The image, if there is room for what its header says. Raises RuntimeError, OutOfMemory."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    memory.check_free(math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * VOXEL_BYTES, "The image")
    return reader.Execute()
