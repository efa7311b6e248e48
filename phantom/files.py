"""A synthetic image becomes NIfTI or a DICOM series as scanners and archives write them.

Knows file formats and nothing of what the image shows. Every file says in its header that it is no patient's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)
from pydicom.valuerep import DSfloat

Affine = NDArray[np.float64]
Voxels = NDArray[Any]

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

CT_INTERCEPT = -1024
"""What scanners that store unsigned values subtract, so that air is not negative in the file."""

STORED_VALUES = {True: (-32768, 32767), False: (0, 65535)}
"""What 16 bits hold, signed or not."""

SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}


def _jpeg_lossless(plane: NDArray[np.uint16]) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(plane, lossless=True, predictor=1, bitspersample=16))


def _jpeg_ls(plane: NDArray[np.uint16]) -> bytes:
    return bytes(imagecodecs.jpegls_encode(plane))


def _jpeg_2000(plane: Voxels) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(plane, level=0, reversible=True, codecformat="j2k"))


ENCODERS: Mapping[UID, Callable[[Voxels], bytes]] = {
    JPEG2000Lossless: _jpeg_2000,
    # These two know no sign: signed values travel as the words they are stored in.
    JPEGLSLossless: lambda plane: _jpeg_ls(plane.view(np.uint16)),
    JPEGLosslessSV1: lambda plane: _jpeg_lossless(plane.view(np.uint16)),
}


@dataclass(frozen=True)
class DicomStyle:
    """How a series is written.

    ``signed``: stored values are the image's; else unsigned, for CT with intercept −1024. ``shuffle_seed`` gives the
    files names in an order of its own. ``reversed_numbers``: InstanceNumber falls from the first slice to the last.
    ``slice_thickness_mm`` None: as the slices' distance. ``series_uid`` None: a new one; it may be empty.
    """

    modality: str = "CT"
    transfer_syntax: UID = ExplicitVRLittleEndian
    signed: bool = True
    shuffle_seed: int | None = None
    suffix: str = ".dcm"
    reversed_numbers: bool = False
    slice_thickness_mm: float | None = None
    series_uid: str | None = None
    series_description: str = "Synthetic phantom"
    patient_position: str = "HFS"

    @property
    def intercept(self) -> int:
        return CT_INTERCEPT if self.modality == "CT" and not self.signed else 0


PLAIN_STYLE = DicomStyle()


def write_nifti(path: Path, voxels_zyx: Voxels, affine_lps: Affine) -> None:
    """Write ``voxels_zyx`` as .nii or .nii.gz; the stored array's first index is x."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels_zyx.transpose(2, 1, 0), RAS_FROM_LPS @ affine_lps), path)


def reorient(voxels_zyx: Voxels, affine_lps: Affine, axes: str) -> tuple[Voxels, Affine]:
    """Permute and flip the axes so that x, y, z grow towards the letters of ``axes``, such as "RAS" or "PIR".

    Every voxel keeps its place in the patient. Oblique axes go by the direction nearest to them.
    """
    affine_ras = RAS_FROM_LPS @ affine_lps
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine_ras), nib.orientations.axcodes2ornt(axes)
    )
    voxels_xyz = voxels_zyx.transpose(2, 1, 0)
    turned = nib.orientations.apply_orientation(voxels_xyz, turn)
    affine = affine_lps @ nib.orientations.inv_ornt_aff(turn, voxels_xyz.shape)
    return np.ascontiguousarray(turned.transpose(2, 1, 0)), affine


def write_dicom_series(
    folder: Path, voxels_zyx: Voxels, affine_lps: Affine, style: DicomStyle = PLAIN_STYLE
) -> list[Path]:
    """Write one file per z and return their paths in z's order.

    Columns of ``affine_lps``: direction of growing column × spacing, of growing row × spacing, step from slice to
    slice. Raises ValueError where a value does not fit into the style's 16 bits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = _stored(voxels_zyx, style)
    common = _series_attributes(affine_lps, stored.shape, style)
    paths = [folder / name for name in _file_names(len(stored), style)]
    for z, path in enumerate(paths):
        dataset = _slice_dataset(common, style)
        dataset.InstanceNumber = len(paths) - z if style.reversed_numbers else z + 1
        dataset.ImagePositionPatient = [_decimal(value) for value in (affine_lps @ (0, 0, z, 1))[:3]]
        _set_pixels(dataset, stored[z])
        dataset.save_as(path, enforce_file_format=True)
    return paths


def _stored(voxels_zyx: Voxels, style: DicomStyle) -> Voxels:
    values = np.asarray(voxels_zyx).astype(np.int64) - style.intercept
    low, high = STORED_VALUES[style.signed]
    if values.min() < low or values.max() > high:
        raise ValueError(f"values {values.min()} to {values.max()} do not fit into {low} to {high}")
    return values.astype(np.int16 if style.signed else np.uint16)


def _file_names(count: int, style: DicomStyle) -> list[str]:
    task = np.arange(count)
    if style.shuffle_seed is not None:
        task = np.random.default_rng(style.shuffle_seed).permutation(count)
    return [f"slice{number:05d}{style.suffix}" for number in task]


def _series_attributes(affine_lps: Affine, shape_zyx: tuple[int, ...], style: DicomStyle) -> Dataset:
    """What all slices share."""
    column_mm, row_mm, step_mm = np.linalg.norm(affine_lps[:3, :3], axis=0)
    directions = np.concatenate([affine_lps[:3, 0] / column_mm, affine_lps[:3, 1] / row_mm])
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    common.Modality = style.modality
    common.Manufacturer = "Synthetic"
    common.SeriesDescription, common.PatientPosition = style.series_description, style.patient_position
    common.PatientName, common.PatientID = "PHANTOM^SYNTHETIC", "PHANTOM"
    common.StudyInstanceUID, common.FrameOfReferenceUID = generate_uid(), generate_uid()
    common.SeriesInstanceUID = generate_uid() if style.series_uid is None else style.series_uid
    common.SliceThickness = _decimal(step_mm if style.slice_thickness_mm is None else style.slice_thickness_mm)
    common.ImageOrientationPatient = [_decimal(value) for value in directions]
    common.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    common.Rows, common.Columns = shape_zyx[1:]
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.PixelRepresentation = int(style.signed)
    if style.modality == "CT":
        common.RescaleSlope, common.RescaleIntercept, common.RescaleType = 1, style.intercept, "HU"
    return common


def _decimal(value: float) -> DSfloat:
    return DSfloat(float(value), auto_format=True)


def _slice_dataset(common: Dataset, style: DicomStyle) -> Dataset:
    dataset = Dataset(common)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = style.transfer_syntax
    dataset.SOPClassUID = SOP_CLASSES.get(style.modality, CTImageStorage)
    dataset.SOPInstanceUID = generate_uid()
    return dataset


def _set_pixels(dataset: Dataset, plane: Voxels) -> None:
    """Put stored values (y, x) into ``dataset`` as its transfer syntax wants them."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == RLELossless:
        # pydicom's own encoder wants to begin with native pixels.
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.PixelData = plane.astype(plane.dtype.newbyteorder("<")).tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.compress(RLELossless, generate_instance_uid=False)
        return
    if syntax in ENCODERS:
        dataset.PixelData = encapsulate([ENCODERS[syntax](np.ascontiguousarray(plane))])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        return
    dataset.PixelData = plane.astype(plane.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
    dataset["PixelData"].VR = "OW"
