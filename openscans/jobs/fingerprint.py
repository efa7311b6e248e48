"""Which image lies at a path, told by its files alone: their sizes, times, and the bytes that tell one from another.

Knows files; reads no header and no pixel, so that it can be asked before every detection.
"""

import gzip
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedIOBase, FileIO
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZipFile

from openscans.errors import FolderTooLarge
from openscans.progress import Report, ignore_progress
from openscans.sources import formats
from openscans.sources.archive import is_zip, open_entry
from openscans.system.folder_walk import NEAREST, FolderWalk, folders_beside, is_file
from openscans.system.regular_files import open_regular, read_head
from openscans.system.zip_files import BROKEN_ZIP, open_zip
from openscans.types import UidLocation

HEAD_BYTES = 4096
"""A DICOM file's own SOPInstanceUID stands within the first 500 bytes, and its slice's place soon after."""

WHOLE_SUFFIXES = (".nii", ".nii.gz")
"""One file that holds the whole image. NRRD, MetaImage and Analyze headers may name other files, wherever they lie."""

LARGEST_WHOLE_BYTES = 2**32
"""Of a file that is digested whole: some seconds. A larger one is no image that fits into a usual memory."""

UNKNOWN_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".hdr.gz", ".img", ".img.gz")

PIECE_BYTES = 2**22
"""Of a file that is digested whole; after each it may be heard that nobody wants the answer any more."""

DIGESTING = threading.Lock()
"""Held for each piece. Forty callers who ask about a vast file would take all cores, and the server could not even say
that it is up."""

UID = re.compile(r"[0-9A-Za-z.]+")
"""Digits and dots, or what programs that anonymise write instead. Names, with ^ and blanks, are nothing of this."""

CHANGES_ARE_TIMED = os.name == "posix"
"""Whether a file's time of change moves with every change and cannot be set; on Windows it is that of its creation."""

SETTLED_NS = 3_000_000_000
"""Disks count time in steps of up to 2 s (FAT); who changes a file twice in one step leaves no trace of the second."""

MOST_KEPT = 4
"""Fingerprints in memory; one of the largest folders takes some megabytes."""

MOST_FILES = 10_000
"""Beyond this, looking at each file would take as long as detecting anew."""


class FileStat(NamedTuple):
    """How a file stood in its folder when it was looked at. ``path`` is text: thousands are compared and opened."""

    path: str
    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True)
class Fingerprint:
    """``digest`` stays the same for a copy with the same times, whatever its names, and for no other image.

    ``files`` are in an order that only the files' contents decide.
    """

    digest: str
    files: tuple[str, ...]
    listed: "Listing"

    def is_still(self, report: Report = ignore_progress) -> bool:
        """Whether no file has come, gone or been written since."""
        return self.listed == self.listed.again(report)


@dataclass(frozen=True)
class Listing:
    """The files below ``top``, or only those in it, or ``top`` alone where it is a file.

    ``beside``: when the folders nearest to ``top`` were last written, in which more of a series may lie.
    """

    top: Path
    deep: bool
    stats: tuple[FileStat, ...]
    beside: tuple[int, ...] | None = None

    @classmethod
    def of(cls, top: Path, report: Report = ignore_progress, *, deep: bool, beside: bool = False) -> "Listing":
        """Raises OSError and FolderTooLarge."""
        times_ns = _times_beside(top) if beside else None
        files = _files(top, report, deep=deep) if top.is_dir() else [(str(top), top.stat())]
        # One more than are looked at tells that they are too many; a whole disk would take minutes and much memory.
        few = islice(files, MOST_FILES + 1)
        found = [FileStat(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for path, stat in few]
        return cls(top, deep, tuple(sorted(found, key=lambda stat: stat.path)), times_ns)

    def again(self, report: Report = ignore_progress) -> "Listing | None":
        try:
            return Listing.of(self.top, report, deep=self.deep, beside=self.beside is not None)
        except (OSError, FolderTooLarge):
            return None


class FingerprintCache:
    """The last fingerprints, for images whose files nobody has touched since, so that none need be opened again.

    Each use is one operation of a dict, which any thread may do.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Listing, str | None], Fingerprint] = {}

    def get(self, listed: Listing, named: str | None) -> Fingerprint | None:
        return self._kept.get((listed, named))

    def put(self, listed: Listing, named: str | None, found: Fingerprint, began_ns: int) -> None:
        """Keep ``found``, which was begun to be taken at ``began_ns``, unless a file may have changed just then."""
        last_ns = max(stat.changed_ns for stat in listed.stats)
        if not CHANGES_ARE_TIMED or last_ns > began_ns - SETTLED_NS:
            return
        self._kept[listed, named] = found
        for oldest in list(self._kept)[:-MOST_KEPT]:
            self._kept.pop(oldest, None)


def take_fingerprint(
    path: Path,
    series_uid: str | None,
    report: Report = ignore_progress,
    cache: FingerprintCache | None = None,
    *,
    look_beside: bool = False,
) -> Fingerprint | None:
    """None for images that may lie in files which their names do not tell, for too many or too large files, for none.

    What a reader of DICOM would look at: a folder with all below it; a file with those beside it, and with
    ``series_uid``, which may name another series, with those below too, as for a DICOMDIR. ``look_beside``: whether the
    folders beside a file's own count, which may hold the rest of its series. ``report`` stays at nothing done.
    """
    name = path.name.lower()
    cache = cache or FingerprintCache()
    try:
        if is_zip(path):
            return _fingerprint(Listing.of(path, report, deep=False), report, cache, whole=True)
        if name.endswith(UNKNOWN_SUFFIXES) and not path.is_dir():
            return None
        if name.endswith(WHOLE_SUFFIXES) and not path.is_dir() and not _is_dicom(path):
            return _fingerprint(Listing.of(path, report, deep=False), report, cache, whole=True)
        if path.is_dir():
            return _fingerprint(Listing.of(path, report, deep=True), report, cache)
        deep = series_uid is not None or formats.is_dicomdir(read_head(str(path), HEAD_BYTES))
        listed = Listing.of(path.parent, report, deep=deep, beside=look_beside)
        return _fingerprint(listed, report, cache, named=str(path))
    except (OSError, FolderTooLarge):
        return None


def read_uids(locations: Sequence[UidLocation]) -> tuple[str, ...] | None:
    """What stands at ``locations``; None where a file is gone, or another has taken its place and no UID stands there.

    Opened by path and read unbuffered, a UID at a time: an answer names some twenty. Zips are opened once, because
    their list of entries is long.
    """
    try:
        with ExitStack() as stack:
            zipped = {location.file for location in locations if location.entry is not None}
            zips = {file: stack.enter_context(open_zip(Path(file))) for file in zipped}
            uids = tuple(_read_uid(location, zips) for location in locations)
    except (OSError, IndexError, *BROKEN_ZIP):
        return None
    return uids if all(map(UID.fullmatch, uids)) else None


def _read_uid(location: UidLocation, zips: Mapping[str, ZipFile]) -> str:
    with ExitStack() as stack:
        stream: BufferedIOBase | FileIO | IO[bytes]
        if location.entry is None:
            stream = stack.enter_context(open_regular(location.file, buffering=0))
        else:
            stream = stack.enter_context(open_entry(zips[location.file], location.entry))
        if stream.read(len(formats.GZIP_MAGIC)) == formats.GZIP_MAGIC:
            stream.seek(0)
            stream = stack.enter_context(gzip.open(stream))
        stream.seek(location.start)
        return stream.read(location.length).decode("ascii")


def _fingerprint(
    listed: Listing, report: Report, cache: FingerprintCache, *, whole: bool = False, named: str | None = None
) -> Fingerprint | None:
    if not 0 < len(listed.stats) <= MOST_FILES:
        return None
    if whole and listed.stats[0].size_bytes > LARGEST_WHOLE_BYTES:
        return None
    kept = cache.get(listed, named)
    if kept is not None:
        return kept
    began_ns = time.time_ns()
    told = sorted((_describe(stat, report, whole=whole), stat.path) for stat in listed.stats)
    own = [text for text, path in told if path == named]
    if named is not None and not own:
        # Some disks know a file by other spellings than its folder lists. Which of the files is meant is not told then.
        return None
    beside = map(str, listed.beside or ())
    lines = "\n".join([*own, "", *(text for text, _ in told), *beside])
    found = Fingerprint(hashlib.sha256(lines.encode()).hexdigest(), tuple(path for _, path in told), listed)
    cache.put(listed, named, found, began_ns)
    return found


def _times_beside(folder: Path) -> tuple[int, ...]:
    nearest = (one for side in folders_beside(folder) for one in side[:NEAREST])
    return tuple(one.stat(follow_symlinks=False).st_mtime_ns for one in nearest)


def _describe(stat: FileStat, report: Report, *, whole: bool) -> str:
    """One file in a line: its size, its time, and the digest of its beginning, or of all of it."""
    report(0, 1)
    digest = _digest_whole(stat.path, report) if whole else hashlib.sha256(read_head(stat.path, HEAD_BYTES)).hexdigest()
    return f"{digest} {stat.size_bytes} {stat.modified_ns}"


def _digest_whole(path: str, report: Report) -> str:
    digest = hashlib.sha256()
    with open_regular(path, buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            report(0, 1)
            with DIGESTING:
                digest.update(piece)
    return digest.hexdigest()


def _is_dicom(file: Path) -> bool:
    """Whether ``file`` is a DICOM file, packed by gzip or not."""
    return formats.is_dicom(formats.unpack_start(read_head(str(file), HEAD_BYTES)))


def _files(top: Path, report: Report, *, deep: bool) -> Iterator[tuple[str, os.stat_result]]:
    """Raises OSError where a folder or file cannot be looked at: next time it may be, and be another image."""
    walk = FolderWalk(top, deep)
    for entry in walk:
        report(0, 1)
        if is_file(entry):
            yield entry.path, entry.stat()
    if walk.unlisted:
        raise OSError("A folder cannot be listed.")
