"""The stored pixels of a DICOM file: native ones as they lie in it, compressed ones by decoders that free the GIL.

Lossy JPEG of 8 or 12 bits is refused: its values are a window of the image, not HU.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from errors import CorruptFile, NoImage, UnsupportedTransferSyntax
from volumes.codestreams import size_of
from volumes.headers import BROKEN_HEADER

Stored: TypeAlias = NDArray[np.integer[Any]]
"""Stored values of one slice, (y, x)."""

DECODERS: Mapping[UID, Callable[[bytes], NDArray[Any]]] = {
    JPEGLossless: imagecodecs.ljpeg_decode,
    JPEGLosslessSV1: imagecodecs.ljpeg_decode,
    JPEGLSLossless: imagecodecs.jpegls_decode,
    JPEGLSNearLossless: imagecodecs.jpegls_decode,
    JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    JPEG2000: imagecodecs.jpeg2k_decode,
}
"""imagecodecs: right on every lossless file we know, BSD-3-Clause, and on two cores twice as fast as GDCM."""


class PixelFile:
    """An opened DICOM file whose frames can be decoded, from several threads at once."""

    def __init__(self, file: Path) -> None:
        try:
            self._dataset = pydicom.dcmread(file, force=True)
            self._syntax = self._transfer_syntax()
            self._frames = int(self._dataset.get("NumberOfFrames") or 1)
            self._shape = int(self._dataset.Rows), int(self._dataset.Columns)
            self._bits = int(self._dataset.BitsAllocated), int(self._dataset.BitsStored)
            self._high_bit = int(self._dataset.get("HighBit", self._bits[1] - 1))
            self._signed = int(self._dataset.get("PixelRepresentation") or 0) == 1
        except BROKEN_HEADER as error:
            raise CorruptFile("The DICOM file is incomplete or malformed.") from error
        if "PixelData" not in self._dataset:
            raise NoImage("The file has no pixels.")

    def frame(self, index: int) -> Stored:
        """Stored values of one frame, (y, x), before rescaling. Raises CorruptFile, UnsupportedTransferSyntax."""
        if self._bits[0] not in (8, 16, 32):
            raise UnsupportedTransferSyntax(f"Pixels of {self._bits[0]} bits are not read.")
        if self._high_bit != self._bits[1] - 1 or self._bits[1] < 1:
            raise UnsupportedTransferSyntax("Pixels that do not lie in the lowest bits of their words are not read.")
        try:
            values = self._decoded(index) if self._syntax.is_compressed else self._native(index)
        except (*BROKEN_HEADER, RuntimeError) as error:
            raise CorruptFile("The pixels of a slice are incomplete or damaged.") from error
        if values.shape != self._shape:
            raise CorruptFile("A slice's pixels have another size than its header says.")
        return self._cleaned(values)

    def _transfer_syntax(self) -> UID:
        meta: Dataset = getattr(self._dataset, "file_meta", Dataset())
        return UID(meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)

    def _native(self, index: int) -> NDArray[Any]:
        order = "<" if self._syntax.is_little_endian else ">"
        kind = np.dtype(f"{order}{'i' if self._signed else 'u'}{self._bits[0] // 8}")
        count = self._shape[0] * self._shape[1]
        values = np.frombuffer(self._dataset.PixelData, kind, count=count, offset=index * count * kind.itemsize)
        return values.reshape(self._shape)

    def _decoded(self, index: int) -> NDArray[Any]:
        if self._syntax == RLELossless:
            values: NDArray[Any] = get_decoder(RLELossless).as_array(self._dataset, index=index, raw=True)[0]
            return values
        decoder = DECODERS.get(self._syntax)
        if decoder is None:
            raise UnsupportedTransferSyntax(f"The compression {self._syntax.name} is not read.")
        picture = get_frame(self._dataset.PixelData, index, number_of_frames=self._frames)
        if size_of(picture) not in (None, self._shape):
            raise CorruptFile("A slice's pixels have another size than its header says.")
        values = decoder(picture)
        # The JPEG family decodes to unsigned words; the header tells how they are meant.
        return values.view(f"i{values.itemsize}") if self._signed else values

    def _cleaned(self, values: NDArray[Any]) -> Stored:
        """Without what lies in the bits above BitsStored, and with the sign that the highest stored bit means."""
        allocated, stored = values.dtype.itemsize * 8, self._bits[1]
        if stored >= allocated:
            return values
        native: Stored = values.astype(values.dtype.newbyteorder("="))
        return (native << (allocated - stored)) >> (allocated - stored)
