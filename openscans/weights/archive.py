"""A zip is checked entry by entry and unpacked; nothing in it can write outside the folder that it is given.

Knows zips, their tricks and their junk; nothing of models.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from openscans.errors import DamagedWeights
from openscans.progress import Report, ignore_progress
from openscans.system.files import CHUNK_BYTES, KeptFile, copy
from openscans.system.zip_files import BROKEN_ZIP, USUAL_COMPRESSION, is_encrypted, is_link_or_device, open_zip

SIGNATURE = b"PK\x03\x04"
"""How a zip with a file in it begins."""

MOST_BYTES = 4_000_000_000
"""Unpacked; ten times the largest of the released weights."""

MOST_ENTRIES = 10_000

RESTORE_HINT = "Nothing was installed. Download or copy the file again."


def is_junk(path: PurePosixPath) -> bool:
    """What macOS leaves in zips and folders."""
    return "__MACOSX" in path.parts or path.name == ".DS_Store" or path.name.startswith("._")


def find_folder(zip_path: Path, folder: PurePosixPath) -> PurePosixPath | None:
    """Where in the zip ``folder`` lies: at the top, or inside other folders. Raises DamagedWeights."""
    with _open(zip_path) as archive:
        for entry in _file_entries(archive):
            path = PurePosixPath(_name(entry))
            for parent in path.parents:
                if not is_junk(path) and parent.parts[-len(folder.parts) :] == folder.parts:
                    return parent
    return None


def unpack(
    zip_path: Path, folder: PurePosixPath, target: Path, *, report: Report = ignore_progress
) -> dict[str, KeptFile]:
    """Write what lies in the zip's ``folder`` to ``target``: relative path → what was written.

    Every entry of the zip is read and its checksum compared, also those that are not written. ``report`` counts bytes.
    Raises DamagedWeights; then ``target`` may hold a part.
    """
    written: dict[str, KeptFile] = {}
    with _open(zip_path) as archive:
        entries = _file_entries(archive)
        total_bytes = sum(entry.file_size for entry in entries)
        done_bytes = 0
        for entry in entries:
            path = PurePosixPath(_name(entry))
            with archive.open(entry) as source:
                if folder in path.parents and not is_junk(path):
                    inner = path.relative_to(folder)
                    written[str(inner)] = copy(source, target / inner)
                else:
                    _read_through(source)
            done_bytes += entry.file_size
            report(done_bytes, total_bytes)
    return written


def unpacked_bytes(zip_path: Path) -> int:
    """Room that the zip's files take. Raises DamagedWeights."""
    with _open(zip_path) as archive:
        return sum(entry.file_size for entry in _file_entries(archive))


def _read_through(source: IO[bytes]) -> None:
    while source.read(CHUNK_BYTES):
        pass


@contextmanager
def _open(zip_path: Path) -> Iterator[zipfile.ZipFile]:
    """Raises DamagedWeights for whatever is wrong with the zip's inside."""
    try:
        with open_zip(zip_path) as archive:
            yield archive
    except BROKEN_ZIP as error:
        # Its name may hold a patient's: people keep weights among studies.
        raise DamagedWeights("The file is damaged or not a zip file.", hint=RESTORE_HINT) from error


def _file_entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """All entries that are files, none of them dangerous. Raises DamagedWeights."""
    entries = archive.infolist()
    for entry in entries:
        _refuse_tricks(entry)
    names = {_name(entry).casefold() for entry in entries}
    if len(names) != len(entries):
        raise _refusal("two files of the same name")
    if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise _refusal("more than any released model")
    return [entry for entry in entries if not _name(entry).endswith("/")]


def _name(entry: zipfile.ZipInfo) -> str:
    """Its path in the zip; some programs of Windows' write the system's own separator."""
    return entry.filename.replace("\\", "/")


def _refuse_tricks(entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(_name(entry))
    # A colon stands behind a drive on Windows; no released model has any.
    if path.is_absolute() or ".." in path.parts or ":" in entry.orig_filename:
        raise _refusal("a file that would land outside its folder")
    if is_link_or_device(entry):
        raise _refusal("a link or device instead of a file")
    if is_encrypted(entry):
        raise _refusal("a file under a password")
    if entry.compress_type not in USUAL_COMPRESSION:
        raise _refusal("a file in a compression that no release uses")
    if entry.header_offset < 0:
        raise _refusal("a file that lies outside the zip")


def _refusal(what: str) -> DamagedWeights:
    return DamagedWeights(f"The zip holds {what}; it is not used.", hint=RESTORE_HINT)
