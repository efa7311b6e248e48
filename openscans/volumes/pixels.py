"""The stored pixels of a DICOM file: native ones as they lie in it, compressed ones by decoders that free the GIL.

Lossy JPEG of 8 or 12 bits is refused: its values are a window of the image, not HU.
"""

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TypeAlias

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.encaps import get_frame
from pydicom.filereader import data_element_generator, read_partial
from pydicom.pixels import get_decoder
from pydicom.tag import Tag
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from openscans.errors import CorruptFile, NoImage, UnsupportedTransferSyntax
from openscans.volumes.codestreams import has_huffman_table, size_of
from openscans.volumes.deflated import LARGEST_BYTES
from openscans.volumes.elements import BROKEN_HEADER
from openscans.volumes.fragments import UNDEFINED_LENGTH, read_fragments
from openscans.volumes.gzipped import open_unpacked
from openscans.volumes.headers import PixelStorage

PIXEL_DATA = Tag("PixelData")
PIXELS_BEGIN = b"\xe0\x7f\x10\x00"
"""The tag of pixels, little endian."""

REAL_NUMBERS = (Tag("FloatPixelData"), Tag("DoubleFloatPixelData"))
"""What a map of measured quantities holds in the place of pixels."""

Stored: TypeAlias = NDArray[np.integer[Any]]
"""Stored values of one slice, (y, x)."""

DECODERS: Mapping[UID, Callable[[bytes], NDArray[Any]]] = {
    JPEGLossless: imagecodecs.ljpeg_decode,
    JPEGLosslessSV1: imagecodecs.ljpeg_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    JPEG2000: imagecodecs.jpeg2k_decode,
    HTJ2KLossless: imagecodecs.jpeg2k_decode,
    HTJ2KLosslessRPCL: imagecodecs.jpeg2k_decode,
    HTJ2K: imagecodecs.jpeg2k_decode,
}
"""imagecodecs: right on every lossless file we know, BSD-3-Clause, and on two cores twice as fast as GDCM.

OpenJPEG, which it has for JPEG 2000, decodes high-throughput JPEG 2000 too: 2 ms for a slice of 512 × 512, where plain
JPEG 2000 takes 25. OpenJPH would take 0.7, and 1.8 MB of the bundle.
"""


LOSSLESS_JPEG = (JPEGLossless, JPEGLosslessSV1)

DAMAGED = "The pixels of a slice are incomplete or damaged."

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

PADDING_BYTES = 2**20
"""Of pixels; tables of where frames begin are a fraction of this, too."""

PICTURE_END = b"\xff\xd9"
"""How pictures of the JPEG family end."""

NAMES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
    "1.2.840.113619.5.2": "GE Private Implicit VR Big Endian",
}
"""Transfer syntaxes of newer editions of PS3.6, A, than pydicom's table, and a vendor's that files are found in."""


def check_storage(storage: PixelStorage) -> None:
    """Raises UnsupportedTransferSyntax where the header tells that nothing here decodes the pixels."""
    if storage.syntax not in (*NATIVE, *DECODERS, RLELossless):
        raise UnsupportedTransferSyntax(f"The {_name_of(storage.syntax)} is not read.")
    if storage.bits_allocated not in (8, 16, 32):
        raise UnsupportedTransferSyntax(f"Pixels of {storage.bits_allocated} bits are not read.")
    if storage.high_bit != storage.bits_stored - 1 or storage.bits_stored < 1:
        raise UnsupportedTransferSyntax("Pixels that do not lie in the lowest bits of their words are not read.")


class PixelFile:
    """A DICOM file whose pixels were read, so that its frames can be decoded, from several threads at once."""

    def __init__(self, storage: PixelStorage) -> None:
        """Raises UnsupportedTransferSyntax, CorruptFile where the file is broken, NoImage where it has no pixels."""
        check_storage(storage)
        self._storage = storage
        self._shape = storage.rows, storage.columns
        try:
            self._pixels = _pixels_of(storage)
        except BROKEN_HEADER as error:
            raise CorruptFile("The DICOM file is incomplete or malformed.") from error

    def frame(self, index: int) -> Stored:
        """Stored values of one frame, (y, x), before rescaling. Raises CorruptFile, UnsupportedTransferSyntax."""
        try:
            values = self._native(index) if self._storage.syntax in NATIVE else self._decode(index)
        except (*BROKEN_HEADER, RuntimeError) as error:
            raise CorruptFile(DAMAGED) from error
        if values.shape != self._shape:
            raise CorruptFile("A slice's pixels have another size than its header says.")
        return self._clean(values)

    def _native(self, index: int) -> NDArray[Any]:
        order = "<" if self._storage.little_endian else ">"
        kind = np.dtype(f"{order}{'i' if self._storage.signed else 'u'}{self._storage.bits_allocated // 8}")
        count = self._shape[0] * self._shape[1]
        values = np.frombuffer(self._pixels, kind, count=count, offset=index * count * kind.itemsize)
        return values.reshape(self._shape)

    def _decode(self, index: int) -> NDArray[Any]:
        storage = self._storage
        if storage.syntax == RLELossless:
            return self._run_lengths(index)
        picture = get_frame(self._pixels, index, number_of_frames=storage.frames)
        if size_of(picture) not in (None, self._shape):
            raise CorruptFile("A slice's pixels have another size than its header says.")
        if storage.syntax in LOSSLESS_JPEG and not has_huffman_table(picture):
            raise CorruptFile(DAMAGED)
        values = DECODERS[storage.syntax](picture)
        # The JPEG family decodes to unsigned words; the header tells how they are meant.
        return values.view(f"i{values.itemsize}") if storage.signed else values

    def _run_lengths(self, index: int) -> NDArray[Any]:
        values: NDArray[Any] = get_decoder(RLELossless).as_array(
            self._pixels,
            index=index,
            raw=True,
            rows=self._storage.rows,
            columns=self._storage.columns,
            samples_per_pixel=1,
            photometric_interpretation="MONOCHROME2",
            number_of_frames=self._storage.frames,
            bits_allocated=self._storage.bits_allocated,
            bits_stored=self._storage.bits_stored,
            pixel_representation=int(self._storage.signed),
            pixel_keyword="PixelData",
        )[0]
        return values

    def _clean(self, values: NDArray[Any]) -> Stored:
        """Without what lies in the bits above BitsStored, and with the sign that the highest stored bit means."""
        allocated, stored = values.dtype.itemsize * 8, self._storage.bits_stored
        if stored >= allocated:
            return values
        native: Stored = values.astype(values.dtype.newbyteorder("="))
        return (native << (allocated - stored)) >> (allocated - stored)


def _pixels_of(storage: PixelStorage) -> bytes:
    """The value of the element PixelData. Raises NoImage, and what pydicom raises on malformed files."""
    with open_unpacked(storage.file, _most_unpacked_bytes(storage)) as stream:
        if storage.begins_at is None:
            element = _deflated_pixels(stream)
        else:
            stream.seek(storage.begins_at)
            if storage.syntax not in NATIVE and _begins_fragments(stream.read(12)):
                return read_fragments(stream, end=b"" if storage.syntax == RLELossless else PICTURE_END)
            stream.seek(storage.begins_at)
            element = next(data_element_generator(stream, storage.implicit, storage.little_endian), None)
    if element is None or element.tag in REAL_NUMBERS:
        raise NoImage("The file has no pixels.")
    if element.tag != PIXEL_DATA:
        raise CorruptFile("The file changed while it was read.")
    pixels: bytes = element.value
    return pixels


def _most_unpacked_bytes(storage: PixelStorage) -> int:
    """What a packed file can hold beside its header: pixels as they are without compression, and some for padding."""
    pixel_bytes = storage.frames * storage.rows * storage.columns * storage.bits_allocated // 8
    return min(LARGEST_BYTES, (storage.begins_at or LARGEST_BYTES) + PADDING_BYTES + pixel_bytes * 5 // 4)


def _begins_fragments(beginning: bytes) -> bool:
    """Whether an element begins so: of pixels, of any representation, without a length (PS3.5 A.4)."""
    return beginning.startswith(PIXELS_BEGIN) and beginning.endswith(UNDEFINED_LENGTH) and len(beginning) == 12


def _name_of(syntax: UID) -> str:
    name = NAMES.get(syntax, syntax.name) if syntax.is_valid else "that the file names"
    return f"{'transfer syntax' if syntax.is_private else 'compression'} {name}"


def _deflated_pixels(stream: BinaryIO) -> DataElement | None:
    """Nothing behind the pixels is read: what stands there may be nested without end."""
    dataset = read_partial(stream, lambda tag, *_: tag > PIXEL_DATA, force=True, specific_tags=[PIXEL_DATA])
    return dataset.get(PIXEL_DATA)
