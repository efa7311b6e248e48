"""DICOM files that gzip has packed, as archives keep them."""

import gzip
from pathlib import Path

from openscans import errors
from tests.corpus.cases import Case
from tests.corpus.scene import series

TWO_GIBIBYTES = 2**31


def packed_series(folder: Path) -> Path:
    for file in series(folder):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    return folder


def file_of_a_packed_series(folder: Path) -> Path:
    return sorted(packed_series(folder).iterdir())[5]


def packed_in_part(folder: Path) -> Path:
    """Every other file, under its old name."""
    for file in series(folder)[::2]:
        file.write_bytes(gzip.compress(file.read_bytes()))
    return folder


def packed_under_the_name_of_a_nifti(folder: Path) -> Path:
    file = series(folder)[3]
    packed = file.with_name("image.nii.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    return packed


def packed_and_cut(folder: Path) -> Path:
    file = file_of_a_packed_series(folder)
    file.write_bytes(file.read_bytes()[:-60])
    return file


def packed_without_end(folder: Path) -> Path:
    """A slice whose pixels say that they are two gibibytes, and are."""
    file = series(folder)[0]
    data = file.read_bytes()
    pixels = data.index(b"\xe0\x7f\x10\x00OW")
    header = data[: pixels + 8] + (TWO_GIBIBYTES - 2).to_bytes(4, "little")
    with gzip.open(folder / f"{file.name}.gz", "wb", compresslevel=1) as out:
        out.write(header)
        for _ in range(64):
            out.write(bytes(2**20))
    file.unlink()
    return folder / f"{file.name}.gz"


CASES = [
    Case("series packed by gzip", "As archives keep them: .dcm.gz.", packed_series),
    Case("one file of a packed series", "Its series lies around it.", file_of_a_packed_series),
    Case("every other file packed", "And none named so.", packed_in_part),
    Case("packed DICOM called .nii.gz", "Told by its content.", packed_under_the_name_of_a_nifti),
    Case("packed DICOM cut short", "The pixels end early.", packed_and_cut, errors.CorruptFile),
    Case("packed DICOM without end", "Unpacks to more than its header tells.", packed_without_end, errors.CorruptFile),
]
