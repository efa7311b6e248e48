"""An enhanced multi-frame DICOM file, made of the files of a plain series."""

from collections.abc import Sequence as Several
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedCTImageStorage


def item(**attributes: object) -> Sequence:
    inner = Dataset()
    for name, value in attributes.items():
        setattr(inner, name, value)
    return Sequence([inner])


def merged(files: Several[Path], order: Several[int], *, intercept_step: int = 0) -> Path:
    """One file of the slices ``order`` of ``files``, each with its own intercept; beside them, and they are gone."""
    slices = [pydicom.dcmread(files[z]) for z in order]
    whole = pydicom.dcmread(files[0])
    whole.SOPClassUID, whole.NumberOfFrames = EnhancedCTImageStorage, len(slices)
    whole.SharedFunctionalGroupsSequence = item(
        PixelMeasuresSequence=item(PixelSpacing=whole.PixelSpacing),
        PlaneOrientationSequence=item(ImageOrientationPatient=whole.ImageOrientationPatient),
    )
    whole.PerFrameFunctionalGroupsSequence = Sequence(
        [_groups(one, intercept_step * z) for z, one in enumerate(slices)]
    )
    compressed = whole.file_meta.TransferSyntaxUID.is_compressed
    whole.PixelData = _joined([one.PixelData for one in slices], compressed=compressed)
    for name in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(whole, name)
    for file in files:
        file.unlink()
    path = files[0].parent / "enhanced.dcm"
    whole.save_as(path)
    return path


def _groups(one: Dataset, intercept: int) -> Dataset:
    return item(
        PlanePositionSequence=item(ImagePositionPatient=one.ImagePositionPatient),
        PixelValueTransformationSequence=item(RescaleSlope=1, RescaleIntercept=intercept, RescaleType="HU"),
    )[0]


def _joined(pixels: list[bytes], *, compressed: bool) -> bytes:
    if compressed:
        return encapsulate([get_frame(one, 0, number_of_frames=1) for one in pixels])
    return b"".join(pixels)
