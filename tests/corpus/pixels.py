"""Pixels in every compression and number format, and pixels that are not what their header says."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from openscans import errors
from phantom.files import ENCODERS, DicomStyle
from tests import bad_files
from tests.bad_files import edit
from tests.corpus.cases import Case, Read
from tests.corpus.scene import edited, series
from tests.enhanced import merged

SYNTAXES: dict[str, UID] = {
    "explicit little endian": ExplicitVRLittleEndian,
    "implicit little endian": ImplicitVRLittleEndian,
    "explicit big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}

HUGE = 65_535
"""Rows and columns of which twelve slices need 103 GB."""

DELIMITER = b"\xfe\xff\xdd\xe0" + bytes(4)
"""What closes compressed pixels."""

PADDING = b"\xfc\xff\xfc\xffOB" + bytes(2) + b"\x04\x00\x00\x00" + bytes(4)
"""DataSetTrailingPadding of four bytes."""

NOT_READ = {
    "JPEG XL": "1.2.840.10008.1.2.4.110",
    "GE's private": "1.2.840.113619.5.2",
    "an unknown": "1.2.826.0.1.3680043.8.498.99",
}

FRAME_HEADER = b"\xff\xc3\x00\x0b"
"""Of a lossless JPEG: marker and length."""

META_LENGTH_AT = 140
"""Where the length of the meta header stands."""

PIXELS = b"\xe0\x7f\x10\x00OW\x00\x00"
"""Tag and VR of native pixels, before their length."""


def _in(syntax: UID, **style: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        series(folder, style=DicomStyle(transfer_syntax=syntax, **style))
        return folder

    return make


def _restored(folder: Path, change: Callable[[int, NDArray[np.int16]], NDArray[Any]], **attributes: object) -> Path:
    """A series whose stored values (slice's number, values) are changed, with attributes that say so."""
    for z, file in enumerate(series(folder)):
        dataset = pydicom.dcmread(file)
        stored = change(z, dataset.pixel_array)
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.save_as(file)
        edit(file, **attributes)
    return folder


def twelve_bits(folder: Path) -> Path:
    """Above them lies what an overlay left."""
    return _restored(folder, lambda _, values: values & 0x0FFF | 0x5000, BitsStored=12, HighBit=11)


def twelve_bits_signed(folder: Path) -> Path:
    def less(_: int, values: NDArray[np.int16]) -> NDArray[np.int16]:
        return (values - 600) & 0x0FFF

    return _restored(folder, less, BitsStored=12, HighBit=11, RescaleIntercept=600)


def one_slope_for_each_slice(folder: Path) -> Path:
    """As PET-like converters write: every slice fills its 16 bits."""
    for z, file in enumerate(series(folder)):
        dataset = pydicom.dcmread(file)
        dataset.PixelData = ((dataset.pixel_array - z * 10) * 2 ** (z % 3)).astype(np.int16).tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.RescaleSlope, dataset.RescaleIntercept = str(1 / 2 ** (z % 3)), z * 10
        dataset.save_as(file)
    return folder


def monochrome1(folder: Path) -> Path:
    """It says how to show values, not what they mean: HU stay HU."""
    return edited(folder, PhotometricInterpretation="MONOCHROME1")


def padding(folder: Path) -> Path:
    """Outside the round field of view scanners write a value of their own."""

    def padded(_: int, values: NDArray[np.int16]) -> NDArray[np.int16]:
        values = values.copy()
        values[0, 0] = values[-1, -1] = -2000
        return values

    for file in _restored(folder, padded).iterdir():
        dataset = pydicom.dcmread(file)
        dataset.add(DataElement("PixelPaddingValue", "SS", -2000))
        dataset.save_as(file)
    return folder


def private_tags(folder: Path) -> Path:
    for file in series(folder):
        dataset = pydicom.dcmread(file)
        block = dataset.private_block(0x0029, "SYNTHETIC HEADER", create=True)
        block.add_new(0x10, "OB", bytes(range(256)) * 16)
        block.add_new(0x11, "UN", b"\xfe\xff\x00\xe0 not a sequence")
        dataset.add(DataElement(0x00E11001, "LO", "no creator names this block"))
        dataset.save_as(file)
    return folder


def japanese_names(folder: Path) -> Path:
    return edited(
        folder,
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="PHANTOM^SYNTHETIC=模擬^人体",
        SeriesDescription="脊椎",
    )


def unknown_character_set(folder: Path) -> Path:
    """A character set that nobody knows, and bytes that are in none."""
    for file in edited(folder, SpecificCharacterSet="ISO_IR 101").iterdir():
        whole = file.read_bytes().replace(b"ISO_IR 101", b"ISO_IR 999")
        file.write_bytes(whole.replace(b"Synthetic phantom", b"Synth\xe9\xff\x80ic \x1b$Btom"))
    return folder


def without_preamble(folder: Path) -> Path:
    for file in series(folder):
        file.write_bytes(file.read_bytes()[132:])
    return folder


def length_beyond_the_file(folder: Path) -> Path:
    return _with_pixel_length(folder, 0x7FFFFFF0)


def length_too_short(folder: Path) -> Path:
    return _with_pixel_length(folder, 100)


def length_undefined(folder: Path) -> Path:
    return _with_pixel_length(folder, 0xFFFFFFFF)


def _with_pixel_length(folder: Path, length: int) -> Path:
    file = series(folder)[4]
    whole = bytearray(file.read_bytes())
    struct.pack_into("<I", whole, whole.rindex(PIXELS) + len(PIXELS), length)
    file.write_bytes(whole)
    return folder


def a_hundred_gigabytes(folder: Path) -> Path:
    return edited(folder, Rows=HUGE, Columns=HUGE, PixelSpacing=[0.02, 0.02])


def picture_larger_than_said(folder: Path) -> Path:
    """A JPEG 2000 picture of 64 million pixels where the header says 16 × 14."""
    picture = ENCODERS[JPEG2000Lossless](np.zeros((8000, 8000), np.int16))
    for file in series(folder, style=DicomStyle(transfer_syntax=JPEG2000Lossless)):
        dataset = pydicom.dcmread(file)
        dataset.PixelData = encapsulate([picture])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.save_as(file)
    return folder


def deflated_bomb(folder: Path) -> Path:
    """Some megabytes that unpack to 1.2 GB."""
    file = series(folder, style=DicomStyle(transfer_syntax=DeflatedExplicitVRLittleEndian))[0]
    whole = file.read_bytes()
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    megabyte = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    file.write_bytes(whole[:start] + megabyte * 1200)
    return file


def without_delimiter(syntax: UID, instead: bytes = b"") -> Callable[[Path], Path]:
    """Compressed pixels that nothing closes, or ``instead`` of a delimiter something else."""

    def make(folder: Path) -> Path:
        for file in series(folder, style=DicomStyle(transfer_syntax=syntax)):
            _replace_delimiter(file, instead)
        return folder

    return make


def frames_without_delimiter(folder: Path) -> Path:
    path = enhanced_compressed(folder)
    _replace_delimiter(path, bytes(8))
    return path


def high_throughput(syntax: UID) -> Callable[[Path], Path]:
    """A series of high-throughput JPEG 2000, written by another encoder than it is read by."""

    def make(folder: Path) -> Path:
        for file in series(folder):
            dataset = pydicom.dcmread(file)
            picture = imagecodecs.htj2k_encode(dataset.pixel_array)
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.PixelData = encapsulate([picture])
            dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
            dataset.save_as(file)
        return folder

    return make


def high_throughput_frames(folder: Path) -> Path:
    return merged(sorted(high_throughput(HTJ2KLosslessRPCL)(folder).iterdir()), [3, 0, 11, 4, 1, 2, 10, 9, 5, 8, 6, 7])


def fragment_cut_short(folder: Path) -> Path:
    """Neither a delimiter nor the picture's end, and lengths that agree."""
    file = series(folder, style=DicomStyle(transfer_syntax=JPEG2000Lossless))[4]
    whole = bytearray(_replace_delimiter(file, b"").read_bytes())
    at = whole.rindex(b"\xfe\xff\x00\xe0") + 4
    struct.pack_into("<I", whole, at, struct.unpack_from("<I", whole, at)[0] - 40)
    file.write_bytes(whole[:-40])
    return folder


def _replace_delimiter(file: Path, instead: bytes) -> Path:
    whole = file.read_bytes()
    assert whole.endswith(DELIMITER)
    file.write_bytes(whole.removesuffix(DELIMITER) + instead)
    return file


def no_huffman_table(folder: Path) -> Path:
    """A lossless JPEG whose frame header is said to reach into the table behind it."""
    file = series(folder, style=DicomStyle(transfer_syntax=JPEGLosslessSV1))[4]
    whole = file.read_bytes()
    assert FRAME_HEADER in whole
    file.write_bytes(whole.replace(FRAME_HEADER, FRAME_HEADER[:3] + b"\x0f"))
    return folder


def said_to_be(syntax: str) -> Callable[[Path], Path]:
    """A series whose meta headers name a syntax that is not read."""

    def make(folder: Path) -> Path:
        written = ExplicitVRLittleEndian if UID(syntax).is_private else JPEG2000Lossless
        for file in series(folder, style=DicomStyle(transfer_syntax=written)):
            whole = bytearray(file.read_bytes().replace(_syntax_element(written), _syntax_element(syntax), 1))
            more = len(_syntax_element(syntax)) - len(_syntax_element(written))
            struct.pack_into("<I", whole, META_LENGTH_AT, struct.unpack_from("<I", whole, META_LENGTH_AT)[0] + more)
            file.write_bytes(whole)
        return folder

    return make


def _syntax_element(uid: str) -> bytes:
    value = uid.encode() + b"\0" * (len(uid) % 2)
    return b"\x02\x00\x10\x00UI" + struct.pack("<H", len(value)) + value


def nested_beside(folder: Path) -> Path:
    bad_files.report_nested_too_deep(folder)
    series(folder)
    return folder


def modality_lut(folder: Path) -> Path:
    """Stored values run against the meant ones, which no positive slope tells."""

    def turned(_: int, values: NDArray[np.int16]) -> NDArray[np.uint16]:
        return (1023 - values).astype(np.uint16)

    lut = look_up_table([1024, 0, 16], (1023 - np.arange(1024)).astype("<u2").tobytes())
    return _with_lut(_restored(folder, turned, PixelRepresentation=0), lut)


def modality_lut_of_signed_values(folder: Path) -> Path:
    """Implicit, so that the table's words have no type; its first value is negative, and others lie beyond it."""
    below = -600
    for file in series(folder, style=DicomStyle(transfer_syntax=ImplicitVRLittleEndian)):
        dataset = pydicom.dcmread(file)
        dataset.PixelData = (dataset.pixel_array + below).astype("<i2").tobytes()
        dataset.save_as(file)
    table = look_up_table([1000, below & 0xFFFF, 16], np.arange(1000).astype("<u2").tobytes())
    return _with_lut(folder, table)


def modality_lut_cut_short(folder: Path) -> Path:
    return _with_lut(_in(ExplicitVRLittleEndian)(folder), look_up_table([1024, 0, 16], bytes(2000)))


def look_up_table(descriptor: list[int], data: bytes) -> Dataset:
    table = Dataset()
    table.add(DataElement("LUTDescriptor", "US", descriptor))
    table.ModalityLUTType = "HU"
    table.add(DataElement("LUTData", "OW", data))
    return table


def _with_lut(folder: Path, table: Dataset) -> Path:
    for file in folder.iterdir():
        edit(file, ModalityLUTSequence=[table], RescaleSlope=None, RescaleIntercept=None)
    return folder


def rescale_missing_in_three(folder: Path) -> Path:
    for file in series(folder, style=DicomStyle(signed=False))[4:7]:
        edit(file, RescaleSlope=None, RescaleIntercept=None)
    return folder


def rescale_missing_in_frames(folder: Path) -> Path:
    path = merged(series(folder), range(12), intercept_step=10)
    whole = pydicom.dcmread(path)
    for groups in whole.PerFrameFunctionalGroupsSequence[::2]:
        del groups.PixelValueTransformationSequence
    whole.save_as(path)
    return path


def rescale_missing_where_it_changes_nothing(folder: Path) -> Path:
    for file in series(folder)[4:7]:
        edit(file, RescaleSlope=None, RescaleIntercept=None)
    return folder


def enhanced(folder: Path) -> Path:
    return merged(series(folder), [3, 0, 11, 4, 1, 2, 10, 9, 5, 8, 6, 7])


def enhanced_compressed(folder: Path) -> Path:
    files = series(folder, style=DicomStyle(transfer_syntax=JPEG2000Lossless))
    return merged(files, range(len(files)))


def enhanced_with_phases(folder: Path) -> Path:
    files = series(folder)
    return merged(files, [*range(len(files)), *range(len(files))])


def interleaved(count: int, syntax: UID = ExplicitVRLittleEndian) -> Callable[[Path], Path]:
    """``count`` files of frames that lie between each other's."""

    def make(folder: Path) -> Path:
        files = series(folder, style=DicomStyle(transfer_syntax=syntax))
        for number in range(count):
            own = files[number::count]
            merged(own, range(len(own))).rename(folder / f"frames{number}.dcm")
        return folder

    return make


def too_many_frames(folder: Path) -> Path:
    """Two thousand million frames in a file of some kilobytes."""
    path = enhanced(folder)
    edit(path, NumberOfFrames=2**31 - 1)
    return path


CASES = [
    *(Case(name, "Bit by bit what was written.", _in(syntax)) for name, syntax in SYNTAXES.items()),
    Case("HTJ2K, lossless", "High-throughput JPEG 2000 (.201).", high_throughput(HTJ2KLossless)),
    Case("HTJ2K", "Of the syntax that may be lossy (.203).", high_throughput(HTJ2K)),
    Case("enhanced CT, HTJ2K", "Frames in any order (.202).", high_throughput_frames),
    Case("unsigned", "With an intercept of −1024.", _in(ExplicitVRLittleEndian, signed=False)),
    Case("12 bits in 16", "What lies above them is ignored.", twelve_bits),
    Case("12 bits, signed", "The twelfth bit is the sign.", twelve_bits_signed),
    Case("rescale that varies", "Each slice has a slope and an intercept of its own.", one_slope_for_each_slice),
    Case("modality LUT", "A table of HU in the place of slope and intercept.", modality_lut),
    Case("modality LUT of signed values", "Implicit; its first value is −600.", modality_lut_of_signed_values),
    Case("modality LUT cut short", "Fewer entries than it says.", modality_lut_cut_short, errors.CorruptFile),
    Case("rescale missing in three slices", "They would be off by 1024.", rescale_missing_in_three, errors.CorruptFile),
    Case("rescale missing in frames", "Of an enhanced CT.", rescale_missing_in_frames, errors.CorruptFile),
    Case("rescale missing, but needless", "Other slices' is 1 and 0.", rescale_missing_where_it_changes_nothing),
    Case("MONOCHROME1", "It says how values are shown; HU stay HU.", monochrome1),
    Case("padding value", "Padding keeps its value; no network minds it.", padding, Read(scene=False)),
    Case("private tags", "Large, nested-looking, and in a block without creator.", private_tags),
    Case("Japanese names", "ISO 2022 IR 87.", japanese_names),
    Case("unknown character set", "Bytes that are no text.", unknown_character_set),
    Case("without preamble", "As some archives store them.", without_preamble),
    Case("enhanced CT", "One file, frames in any order.", enhanced),
    Case("enhanced CT, JPEG 2000", "One file, compressed.", enhanced_compressed),
    Case("enhanced CT of two phases", "Each place twice.", enhanced_with_phases, errors.SeveralVolumes),
    Case("two files of frames", "Every other slice lies in the other.", interleaved(2)),
    Case("three files of frames, RLE", "Every third slice lies in the same.", interleaved(3, RLELossless)),
    Case("two thousand million frames", "A count that no file can hold.", too_many_frames, errors.CorruptFile),
    Case("truncated pixels", "The file ends early.", bad_files.truncated_dicom, errors.CorruptFile),
    Case("truncated JPEG 2000", "Compressed.", bad_files.truncated_compressed_dicom, errors.CorruptFile),
    Case("length beyond the file", "Said to be 2 GB, but all pixels are there.", length_beyond_the_file),
    Case("length too short", "Pixels said to be 100 bytes.", length_too_short, errors.CorruptFile),
    Case("undefined length", "Of pixels that are not compressed.", length_undefined, errors.CorruptFile),
    Case("100 GB", "65535 × 65535 × 12, refused before a pixel is read.", a_hundred_gigabytes, errors.OutOfMemory),
    Case("picture larger than said", "64 million pixels in 16 × 14.", picture_larger_than_said, errors.CorruptFile),
    Case("no delimiter", "Nothing closes the pixels (JPEG lossless).", without_delimiter(JPEGLosslessSV1)),
    Case("no delimiter, RLE", "The file ends with its last fragment.", without_delimiter(RLELossless)),
    Case("nulls for a delimiter", "Of compressed frames.", frames_without_delimiter),
    Case("padding for a delimiter", "The next element follows (JPEG-LS).", without_delimiter(JPEGLSLossless, PADDING)),
    Case("half a delimiter", "Cut within its eight bytes.", without_delimiter(JPEG2000Lossless, DELIMITER[:6])),
    Case("no Huffman table", "A lossless JPEG whose lengths hide it.", no_huffman_table, errors.CorruptFile),
    Case("picture without an end", "No delimiter either.", fragment_cut_short, errors.CorruptFile),
    *(
        Case(f"{name} syntax", "Refused by its name.", said_to_be(uid), errors.UnsupportedTransferSyntax)
        for name, uid in NOT_READ.items()
    ),
    Case("deflated bomb", "A megabyte that unpacks to 1.2 GB.", deflated_bomb, errors.CorruptFile),
    Case("cut header", "The file ends before its rows.", bad_files.truncated_header, errors.CorruptFile),
    Case("nested 2000 deep", "Sequences of one slice.", bad_files.slice_nested_too_deep, errors.CorruptFile),
    Case("nested 2000 deep, beside", "Sequences of an SR in the folder.", nested_beside),
    Case("slope of zero", "All values would be alike.", bad_files.zero_slope, errors.CorruptFile),
    Case("slope that is no number", "NaN.", bad_files.slope_that_is_no_number, errors.CorruptFile),
    Case("8-bit JPEG", "A window, no HU.", bad_files.jpeg_baseline_ct, errors.UnsupportedTransferSyntax),
    Case("high bits", "12 bits at the top.", bad_files.pixels_in_high_bits, errors.UnsupportedTransferSyntax),
    Case("palette colours", "Numbers of colours.", bad_files.palette_picture, errors.NoImage),
    Case("radiograph", "Neither CT nor MR.", bad_files.radiograph, errors.UnsupportedModality),
    Case("no image at all", "A renamed letter.", bad_files.not_an_image, errors.UnsupportedFile),
    Case("empty file", "No bytes.", bad_files.empty_file, errors.UnsupportedFile),
]
