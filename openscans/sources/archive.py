"""A zip of images is unpacked into a private folder, as much of it as may be images, under names of its own.

What a zip calls its files is never used: it may lead anywhere, or be a patient's name. So it may say what it likes,
"../", absolute paths, backslashes, the same name twice, and nothing lands but where it shall.
"""

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO

from openscans.errors import CorruptFile, FolderTooLarge, InputNotFound, SeveralVolumes, UnsupportedFile
from openscans.progress import Report, ignore_progress
from openscans.sources.formats import (
    BEGINNING_BYTES,
    DICOM_MAGIC,
    DICOM_MAGIC_AT,
    HEADER_SUFFIXES,
    IMAGE_SUFFIXES,
    is_dicom,
    suffix_of,
)
from openscans.system.files import CHUNK_BYTES, UNFINISHED, require_room, translate_os_errors
from openscans.system.private_folders import make_private
from openscans.system.regular_files import open_regular
from openscans.system.zip_files import BROKEN_ZIP, MAGIC, USUAL_COMPRESSION, is_encrypted, is_link_or_device, open_zip

MOST_FILES = 50_000
"""As in a folder (`FolderWalk`)."""

MOST_BYTES = 2**34
"""Unpacked. A study of ten series with a thousand slices of 512 × 512 has a third of it."""

MOST_TIMES = 100
"""What a zip may unpack to, beside its own size. Images shrink to a half or a third, to a twentieth where most is air,
and zips made to fill a disk to a thousandth and less."""

ANY_TIMES_BYTES = 2**28
"""Unpacked, up to which it is not asked how many times as much it is: drawn images shrink without end."""

ONE_STUDY = "Zip one study, its DICOM files or one NIfTI, NRRD or MetaImage file, and send that."

COPY_AGAIN = "Copy or make the zip again."


def is_zip(file: Path) -> bool:
    """Whether ``file`` begins like a zip, and not like a DICOM file, whose preamble may be anything."""
    try:
        with open_regular(file, buffering=0) as stream:
            start = stream.read(DICOM_MAGIC_AT + len(DICOM_MAGIC))
    except OSError:
        return False
    return start.startswith(MAGIC) and not is_dicom(start)


def unpack(zip_file: Path, folder: Path, report: Report = ignore_progress) -> Path:
    """What is to be read in the place of ``zip_file``: a folder below ``folder``, or the one file there.

    A zip that was unpacked there and has not changed since is not unpacked again. ``report`` stays at nothing done.
    Raises InputNotFound, CorruptFile, UnsupportedFile, FolderTooLarge, SeveralVolumes, DiskFull, and what ``report``
    does; nothing is left then but what was there before.
    """
    try:
        # Before it is opened: where another takes its place meanwhile, that is unpacked again, and not this kept.
        found = zip_file.stat()
        target = folder / f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"
        if not target.is_dir():
            with _open(zip_file) as archive:
                files = _wanted(archive, found.st_size)
                with translate_os_errors("The zip, or the folder that it is unpacked into,"):
                    _unpack_whole(archive, files, target, report)
    except OSError as error:
        raise InputNotFound("The zip cannot be opened.") from error
    return _image_in(target)


def number_of(unpacked: Path) -> int:
    """Which entry of its zip a file was that `unpack` made, for `open_entry`."""
    return int(unpacked.name.partition(".")[0])


@contextmanager
def open_entry(archive: zipfile.ZipFile, number: int) -> Iterator[BufferedIOBase | IO[bytes]]:
    """One of the zip's entries, to be read. Raises IndexError, and what `open_zip` does."""
    with archive.open(archive.infolist()[number]) as stream:
        yield stream


@contextmanager
def _open(zip_file: Path) -> Iterator[zipfile.ZipFile]:
    """Raises OSError, and CorruptFile for whatever is wrong with the zip's inside."""
    try:
        with open_zip(zip_file) as archive:
            yield archive
    except BROKEN_ZIP as error:
        raise CorruptFile("The zip is incomplete or damaged.", hint=COPY_AGAIN) from error


def _wanted(archive: zipfile.ZipFile, zip_bytes: int) -> list[tuple[int, zipfile.ZipInfo]]:
    """The files among the zip's entries, with their numbers. Raises UnsupportedFile, CorruptFile, FolderTooLarge."""
    files = [
        (number, entry)
        for number, entry in enumerate(archive.infolist())
        if entry.file_size and not entry.is_dir() and not is_link_or_device(entry)
    ]
    if len(files) > MOST_FILES:
        raise FolderTooLarge(f"The zip holds more than {MOST_FILES} files.", hint=ONE_STUDY)
    if any(is_encrypted(entry) for _, entry in files):
        raise UnsupportedFile("The zip is locked with a password.", hint="Make it again without a password.")
    if any(entry.compress_type not in USUAL_COMPRESSION for _, entry in files):
        raise UnsupportedFile(
            "The zip is packed by a method that is not read here.", hint="Make it again with the usual method, deflate."
        )
    unpacked_bytes = sum(entry.file_size for _, entry in files)
    if unpacked_bytes > MOST_BYTES:
        raise FolderTooLarge(f"The zip unpacks to more than {MOST_BYTES / 1e9:.0f} GB.", hint=ONE_STUDY)
    if unpacked_bytes > max(ANY_TIMES_BYTES, MOST_TIMES * zip_bytes):
        raise CorruptFile(f"The zip unpacks to more than {MOST_TIMES} times its size, as no images do.")
    return files


def _unpack_whole(
    archive: zipfile.ZipFile, files: Sequence[tuple[int, zipfile.ZipInfo]], target: Path, report: Report
) -> None:
    """Make ``target`` with all images among ``files``, or not at all. Raises what `unpack` does, and OSError."""
    begun = target.with_name(target.name + UNFINISHED)
    shutil.rmtree(begun, ignore_errors=True)
    make_private(begun)
    try:
        require_room(begun, sum(entry.file_size for _, entry in files))
        halves = _second_halves(files)
        for number, entry in files:
            report(0, len(files))
            with archive.open(entry) as source:
                _write_image(source, begun / f"{number:05d}", entry.filename, halves.get(number), report)
        begun.rename(target)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _second_halves(files: Sequence[tuple[int, zipfile.ZipInfo]]) -> dict[int, int]:
    """The files that hold the voxels of a NIfTI header beside them: their numbers, each with its header's."""
    headers = {_stem(entry, HEADER_SUFFIXES): number for number, entry in files}
    images = {_stem(entry, IMAGE_SUFFIXES): number for number, entry in files}
    return {images[stem]: headers[stem] for stem in headers.keys() & images.keys() if stem}


def _stem(entry: zipfile.ZipInfo, suffixes: Sequence[str]) -> str:
    """The name without the one of ``suffixes`` that ends it; empty where none does."""
    name = entry.filename.lower()
    return next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), "")


def _write_image(source: IO[bytes], target: Path, name: str, header: int | None, report: Report) -> None:
    """Write ``source``, of that ``name`` in the zip, to ``target`` with a fitting suffix, if it may be an image."""
    start = source.read(BEGINNING_BYTES)
    suffix = suffix_of(name, start)
    if suffix is None and header is not None:
        target, suffix = target.with_name(f"{header:05d}"), IMAGE_SUFFIXES[0]
    if suffix is None:
        return
    with target.with_name(target.name + suffix).open("xb") as out:
        while start:
            out.write(start)
            report(0, 1)
            start = source.read(CHUNK_BYTES)


def _image_in(folder: Path) -> Path:
    """``folder`` where it holds DICOM files, else the one image in it. Raises UnsupportedFile, SeveralVolumes."""
    whole = [file for file in folder.iterdir() if file.suffix != IMAGE_SUFFIXES[0]]
    if not all(file.suffix for file in whole):
        return folder
    if len(whole) > 1:
        raise SeveralVolumes(f"The zip holds {len(whole)} NIfTI, NRRD or MetaImage files.", hint=ONE_STUDY)
    if not whole:
        raise UnsupportedFile("The zip holds no image that is read here.", hint=ONE_STUDY)
    return whole[0]
