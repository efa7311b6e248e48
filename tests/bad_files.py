"""Real files that cannot become a volume, one maker for each way: it takes a folder and returns the path to send."""

import gzip
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel as nib
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from openscans import errors
from phantom.files import PLAIN_STYLE, DicomStyle, write_dicom_series, write_nifti

Array = NDArray[Any]

AFFINE = np.diag([0.8, 0.8, 2.0, 1.0])

ROWS_TAG, SAMPLES_TAG = b"\x28\x00\x10\x00", b"\x28\x00\x02\x00US"
PATIENT_TAG, INSTANCE_NUMBER_TAG, PIXELS_TAG = b"\x10\x00\x10\x00PN", b"\x20\x00\x13\x00IS", b"\xe0\x7f\x10\x00O"


def some_voxels(slices: int = 6, size: int = 16) -> NDArray[np.int16]:
    return np.random.default_rng(slices).integers(-1024, 3072, (slices, size, size)).astype(np.int16)


def edit(file: Path, **attributes: object) -> None:
    """Change elements of a DICOM file in place; None takes one away."""
    dataset = pydicom.dcmread(file)
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(file)


def not_an_image(folder: Path) -> Path:
    path = folder / "notes.dcm"
    path.write_text("A letter that somebody renamed. " * 20, encoding="utf-8")
    return path


def empty_file(folder: Path) -> Path:
    path = folder / "empty.dcm"
    path.touch()
    return path


def missing_file(folder: Path) -> Path:
    return folder / "moved.dcm"


def empty_folder(folder: Path) -> Path:
    path = folder / "empty"
    path.mkdir()
    return path


def truncated_dicom(folder: Path) -> Path:
    """A series whose third slice was copied only in part: its pixels end early."""
    files = write_dicom_series(folder, some_voxels(), AFFINE)
    _cut(files[2], keep=files[2].stat().st_size - 200)
    return folder


def truncated_compressed_dicom(folder: Path) -> Path:
    files = write_dicom_series(folder, some_voxels(), AFFINE, DicomStyle(transfer_syntax=pydicom.uid.JPEG2000Lossless))
    _cut(files[2], keep=files[2].stat().st_size - 200)
    return folder


def truncated_header(folder: Path) -> Path:
    """A CT slice that ends before its header says how many rows it has."""
    file = write_dicom_series(folder, some_voxels(), AFFINE)[0]
    _cut(file, keep=file.read_bytes().index(ROWS_TAG))
    return file


def series_whose_last_header_is_cut(folder: Path) -> Path:
    """Leaving the slice out would make a shorter volume and tell nobody."""
    file = write_dicom_series(folder, some_voxels(), AFFINE)[-1]
    _cut(file, keep=file.read_bytes().index(ROWS_TAG))
    return folder


def _cut(file: Path, *, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])


def structured_report(folder: Path) -> Path:
    report = _without_geometry(BasicTextSRStorage, "SR")
    report.ValueType, report.ContinuityOfContent, report.CompletionFlag = "CONTAINER", "SEPARATE", "COMPLETE"
    return _saved(report, folder / "report.dcm")


def secondary_capture(folder: Path) -> Path:
    """A dose screen in colours, filed as CT as scanners do."""
    return _saved(_picture(SecondaryCaptureImageStorage, "CT", colours=3), folder / "dose.dcm")


def radiograph(folder: Path) -> Path:
    return _saved(_picture(ComputedRadiographyImageStorage, "CR", colours=1), folder / "chest.dcm")


def _without_geometry(sop_class: str, modality: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.Modality, dataset.InstanceNumber = "PHANTOM^SYNTHETIC", modality, 1
    return dataset


def _picture(sop_class: str, modality: str, *, colours: int) -> Dataset:
    dataset = _without_geometry(sop_class, modality)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 16, 16, colours
    dataset.PhotometricInterpretation = "RGB" if colours == 3 else "MONOCHROME1"
    if colours == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = bytes(16 * 16 * colours)
    dataset["PixelData"].VR = "OB"
    return dataset


def _saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def single_slice(folder: Path) -> Path:
    return write_dicom_series(folder, some_voxels(slices=1), AFFINE)[0]


def two_slices(folder: Path) -> Path:
    return write_dicom_series(folder, some_voxels(slices=2), AFFINE)[0]


def series_with_missing_positions(folder: Path) -> Path:
    """Twelve slices of which five in the middle were lost on the way: too wide a gap to be filled."""
    files = write_dicom_series(folder, some_voxels(slices=12), AFFINE)
    for lost in files[4:9]:
        lost.unlink()
    return folder


def headers_without_positions(folder: Path) -> Path:
    _edited(folder, ImagePositionPatient=None)
    return folder


def mixed_orientations(folder: Path) -> Path:
    """Axial and coronal slices under one SeriesInstanceUID."""
    coronal = np.array([[0.8, 0, 0, 0], [0, 0, 2.0, 0], [0, -0.8, 0, 0], [0, 0, 0, 1.0]])
    return _two_in_one_series(folder, AFFINE, coronal)


def one_slice_askew(folder: Path) -> Path:
    file = write_dicom_series(folder, some_voxels(), AFFINE)[3]
    edit(file, ImageOrientationPatient=[0.9962, 0.0872, 0, -0.0872, 0.9962, 0])
    return folder


def mixed_sizes(folder: Path) -> Path:
    beyond = AFFINE.copy()
    beyond[2, 3] = 12.0
    return _two_in_one_series(folder, AFFINE, beyond, sizes=(16, 24))


def one_zoomed_slice(folder: Path) -> Path:
    file = write_dicom_series(folder, some_voxels(), AFFINE)[3]
    edit(file, PixelSpacing=[0.9, 0.9])
    return folder


def two_phases(folder: Path) -> Path:
    """Two scans of the same place, as with and without contrast, under one SeriesInstanceUID."""
    return _two_in_one_series(folder, AFFINE, AFFINE)


def _two_in_one_series(folder: Path, one: Array, other: Array, *, sizes: tuple[int, int] = (16, 16)) -> Path:
    style = DicomStyle(series_uid=generate_uid())
    for name, affine, size in zip(("a", "b"), (one, other), sizes, strict=True):
        write_dicom_series(folder / name, some_voxels(size=size), affine, style)
    return folder


def one_place(folder: Path) -> Path:
    """Bolus tracking: the same slice again and again."""
    _edited(folder, ImagePositionPatient=[0, 0, 0])
    return folder


def sheared_beyond_any_gantry(folder: Path) -> Path:
    """Slices tilted by 60° against the line on which they follow each other."""
    sheared = AFFINE.copy()
    sheared[:3, 1] = 0, 0.8 * np.cos(np.radians(60)), -0.8 * np.sin(np.radians(60))
    write_dicom_series(folder, some_voxels(), sheared)
    return folder


def displaced_slices(folder: Path) -> Path:
    """Every other slice lies a pixel to the side; on average the stack is straight."""
    for z, file in enumerate(write_dicom_series(folder, some_voxels(slices=9), AFFINE)):
        edit(file, ImagePositionPatient=[0.8 * (z % 2), 0, 2.0 * z])
    return folder


def palette_picture(folder: Path) -> Path:
    """A fusion image: its values are numbers of colours."""
    return _edited(folder, PhotometricInterpretation="PALETTE COLOR")[0]


def zero_slope(folder: Path) -> Path:
    return _edited(folder, RescaleSlope=0)[0]


def slope_that_is_no_number(folder: Path) -> Path:
    return _edited(folder, RescaleSlope="nan")[0]


def pixels_in_high_bits(folder: Path) -> Path:
    """As some scanners of the last century stored them."""
    return _edited(folder, BitsStored=12, HighBit=15)[0]


def _edited(folder: Path, **attributes: object) -> list[Path]:
    files = write_dicom_series(folder, some_voxels(), AFFINE)
    for file in files:
        edit(file, **attributes)
    return files


def series_of_stumps(folder: Path) -> Path:
    """Copying stopped at the beginning of every file."""
    for file in write_dicom_series(folder, some_voxels(), AFFINE):
        _cut(file, keep=140)
    return folder


def pipe(folder: Path) -> Path:
    """Whoever opens it waits for ever."""
    path = folder / "pipe.dcm"
    os.mkfifo(path)
    return path


def missing_nrrd(folder: Path) -> Path:
    return folder / "moved.nrrd"


def jpeg_baseline_ct(folder: Path) -> Path:
    """Eight bits of a window are left; HU cannot be had back."""
    for file in write_dicom_series(folder, some_voxels(), AFFINE, PLAIN_STYLE):
        dataset = pydicom.dcmread(file)
        windowed = ((dataset.pixel_array.astype(np.int32) + 1024) >> 4).astype(np.uint8)
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
        dataset.PixelData = encapsulate([imagecodecs.jpeg8_encode(windowed)])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.save_as(file)
    return folder


def nested_sequences(depth: int = 2000) -> bytes:
    """An element whose only item holds an element whose only item holds …, none with a length; explicit VR."""
    begin = b"\x20\x00\x22\x92SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
    return begin * depth + end * depth


def insert(file: Path, elements: bytes, *, before: bytes) -> Path:
    """Write ``elements`` where the last element with the tag ``before`` begins; in a deflated file, inside."""
    whole = file.read_bytes()
    packed = DeflatedExplicitVRLittleEndian.encode() in whole[:1024]
    start = 144 + int.from_bytes(whole[140:144], "little")
    content = zlib.decompress(whole[start:], -zlib.MAX_WBITS) if packed else whole[start:]
    at = content.rindex(before)
    content = content[:at] + elements + content[at:]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    file.write_bytes(whole[:start] + (packer.compress(content) + packer.flush() if packed else content))
    return file


def slice_nested_too_deep(folder: Path) -> Path:
    """The last of a series; its sequences, of which none is needed, are nested 2000 deep."""
    insert(write_dicom_series(folder, some_voxels(), AFFINE)[-1], nested_sequences(), before=SAMPLES_TAG)
    return folder


def report_nested_too_deep(folder: Path) -> Path:
    return insert(structured_report(folder), nested_sequences(), before=INSTANCE_NUMBER_TAG)


def truncated_nifti(folder: Path) -> Path:
    path = folder / "cut.nii.gz"
    write_nifti(path, some_voxels(), AFFINE)
    _cut(path, keep=path.stat().st_size // 2)
    return path


def truncated_plain_nifti(folder: Path) -> Path:
    path = folder / "cut.nii"
    write_nifti(path, some_voxels(), AFFINE)
    _cut(path, keep=path.stat().st_size - 100)
    return path


def four_dimensional_nifti(folder: Path) -> Path:
    return _nifti(folder / "two.nii.gz", np.zeros((8, 8, 8, 2), np.int16))


def flat_nifti(folder: Path) -> Path:
    return _nifti(folder / "flat.nii.gz", np.zeros((8, 8), np.int16))


def nifti_with_nan(folder: Path) -> Path:
    return _nifti(folder / "nan.nii.gz", np.full((8, 8, 8), np.nan, np.float32))


def colour_nifti(folder: Path) -> Path:
    colours = np.zeros((8, 8, 8), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    return _nifti(folder / "colours.nii.gz", colours)


def nifti_that_claims_too_much(folder: Path) -> Path:
    """Some bytes that say they unpack to 70 TB."""
    path = folder / "bomb.nii.gz"
    header = nib.Nifti1Header()
    header.set_data_shape((32767, 32767, 32767))
    header.set_data_dtype(np.int16)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    return path


def bits_stored_of_three_bytes(folder: Path) -> Path:
    """In the last slice; the others are whole."""
    replace_bits_stored(write_dicom_series(folder, some_voxels(), AFFINE)[-1], b"US\x03\x00\x10\x00\x00")
    return folder


def replace_bits_stored(file: Path, element: bytes) -> None:
    """Write ``element``, type, length and value, where a file says that 16 bits of a word are stored."""
    tag, usual = b"\x28\x00\x01\x01", b"US\x02\x00\x10\x00"
    whole = file.read_bytes()
    assert tag + usual in whole
    file.write_bytes(whole.replace(tag + usual, tag + element))


def nifti_without_place(folder: Path) -> Path:
    """An affine whose third column is zero."""
    path = folder / "nowhere.nii"
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0)
    path.write_bytes(image.header.binaryblock + bytes(4) + bytes(8 * 8 * 8 * 2))
    return path


def _nifti(path: Path, values_xyz: Array) -> Path:
    nib.save(nib.Nifti1Image(values_xyz, np.diag([1.0, 1.0, 1.0, 1.0])), path)
    return path


EXPECTED: Mapping[Callable[[Path], Path], type[errors.OpenScansError]] = {
    not_an_image: errors.UnsupportedFile,
    empty_file: errors.UnsupportedFile,
    missing_file: errors.InputNotFound,
    missing_nrrd: errors.InputNotFound,
    pipe: errors.InputNotFound,
    empty_folder: errors.InputNotFound,
    truncated_dicom: errors.CorruptFile,
    truncated_compressed_dicom: errors.CorruptFile,
    truncated_header: errors.CorruptFile,
    series_whose_last_header_is_cut: errors.CorruptFile,
    series_of_stumps: errors.CorruptFile,
    slice_nested_too_deep: errors.CorruptFile,
    report_nested_too_deep: errors.NoImage,
    zero_slope: errors.CorruptFile,
    slope_that_is_no_number: errors.CorruptFile,
    bits_stored_of_three_bytes: errors.CorruptFile,
    structured_report: errors.NoImage,
    palette_picture: errors.NoImage,
    secondary_capture: errors.NoImage,
    radiograph: errors.UnsupportedModality,
    single_slice: errors.TooFewSlices,
    two_slices: errors.TooFewSlices,
    one_place: errors.TooFewSlices,
    series_with_missing_positions: errors.InconsistentGeometry,
    headers_without_positions: errors.InconsistentGeometry,
    mixed_orientations: errors.InconsistentGeometry,
    one_slice_askew: errors.InconsistentGeometry,
    mixed_sizes: errors.InconsistentGeometry,
    one_zoomed_slice: errors.InconsistentGeometry,
    sheared_beyond_any_gantry: errors.InconsistentGeometry,
    displaced_slices: errors.InconsistentGeometry,
    two_phases: errors.SeveralVolumes,
    jpeg_baseline_ct: errors.UnsupportedTransferSyntax,
    pixels_in_high_bits: errors.UnsupportedTransferSyntax,
    truncated_nifti: errors.CorruptFile,
    truncated_plain_nifti: errors.CorruptFile,
    four_dimensional_nifti: errors.SeveralVolumes,
    flat_nifti: errors.TooFewSlices,
    nifti_with_nan: errors.CorruptFile,
    nifti_that_claims_too_much: errors.CorruptFile,
    colour_nifti: errors.UnsupportedFile,
    nifti_without_place: errors.InconsistentGeometry,
}
"""What each maker's path must raise."""
