"""The index of a CD or export (PS3.10 8): which of the files below its folder belong to it, and which of them are gone.

A DICOMDIR is read as its folder would be, but for the files that it does not list: it may lie among anything, as on a
desktop that only it was copied to, and another patient's images there are not what was asked for. What each file is,
its own header tells; of the index only the files' names are believed, and which series each is listed in.

Where it lists further indexes alone (Philips writes one for each study), what lies in their folders and below is read.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import MediaStorageDirectoryStorage

from openscans.errors import CorruptFile, FolderTooLarge, InputNotFound, NoImage
from openscans.system.regular_files import open_regular
from openscans.types import ResultWarning, WarningCode
from openscans.volumes.elements import BROKEN_HEADER
from openscans.volumes.listing import FolderContents

BEGINNING_BYTES = 1024
"""The meta header, which tells what a file is, is a fraction of this."""

CLASS = b"\x02\x00\x02\x00UI\x14\x00" + MediaStorageDirectoryStorage.encode()
"""The element there, MediaStorageSOPClassUID."""

RECORDS = Tag("DirectoryRecordSequence")

LARGEST_INDEX_BYTES = 2**25
"""A record has some 600: 50,000 of them, as many files as are looked at in a folder."""

VERSION = re.compile(r";\d+$|\.$")
"""What the file system of CDs has at the end of names, and some systems show."""

WHOLE_MEDIUM = "Copy the whole CD or export: the DICOMDIR and the folders beside it."


@dataclass(frozen=True)
class _Listed:
    """A file as the index has it: the folders that lead to it and its name, and the series that it is listed in."""

    names: tuple[str, ...]
    series_uid: str
    image: bool


@dataclass(frozen=True)
class FileSet(FolderContents):
    """What is there of the files that ``index`` lists. ``missing``: the series that each of the others is listed in."""

    index: Path
    listed: int
    missing: tuple[str, ...]

    @classmethod
    def listed_by(cls, index: Path) -> Self:
        """Raises InputNotFound, CorruptFile, FolderTooLarge; NoImage where no file is listed."""
        listed = _read_index(index)
        if not listed:
            raise NoImage("This DICOMDIR lists no files.")
        folder = FolderContents.of(index.parent, deep=True)
        there = {Path(state[0]).relative_to(index.parent).parts: state for state in folder.files}
        folded = {_fold(names): state for names, state in there.items()}
        if not any(one.image for one in listed):
            tops = {_fold(one.names[:-1]) for one in listed} - {()}
            inside = (state for names, state in folded.items() if any(names[: len(top)] == top for top in tops))
            return cls(folder.top, True, tuple(inside), (), folder.unlisted, (), index, len(listed), ())
        found = {one: there.get(one.names) or folded.get(_fold(one.names)) for one in listed}
        # Each once, in the order of names, as a folder has them.
        files = tuple(sorted({state for state in found.values() if state is not None}))
        missing = tuple(one.series_uid for one, state in found.items() if state is None)
        return cls(folder.top, True, files, (), folder.unlisted, (), index, len(found), missing)

    def check_presence(self) -> None:
        """Raises InputNotFound where none of the files is there."""
        if not self.files:
            raise InputNotFound(
                f"None of the {self.listed} files that this DICOMDIR lists is there.", hint=WHOLE_MEDIUM
            )

    def warnings_of(self, series_uid: str) -> Iterator[ResultWarning]:
        """A warning where files of that series are gone."""
        count = sum(uid in (series_uid, "") for uid in self.missing)
        if count:
            yield ResultWarning(
                WarningCode.MISSING_SLICES,
                f"{count} of the files that the DICOMDIR lists in this series cannot be found.",
            )

    def is_unchanged(self) -> bool:
        try:
            return FileSet.listed_by(self.index) == self
        except (InputNotFound, CorruptFile, FolderTooLarge, NoImage):
            return False


def is_dicomdir(file: Path) -> bool:
    """Whether ``file`` says that it is an index, whatever it is called. Raises OSError."""
    with open_regular(file) as stream:
        start = stream.read(BEGINNING_BYTES)
    return start[128:132] == b"DICM" and CLASS in start


def _read_index(index: Path) -> list[_Listed]:
    """The files that ``index`` lists. Raises InputNotFound, CorruptFile."""
    try:
        stream = open_regular(index)
    except OSError as error:
        raise InputNotFound("The file cannot be opened.") from error
    with stream:
        if os.fstat(stream.fileno()).st_size > LARGEST_INDEX_BYTES:
            raise CorruptFile("The DICOMDIR is larger than an index can be.")
        try:
            dataset = pydicom.dcmread(stream, specific_tags=[RECORDS])
            stored = dataset.get_item(RECORDS)
            # pydicom takes the end of the file for the end of the list.
            if isinstance(stored, RawDataElement) and len(stored.value or b"") < stored.length:
                raise EOFError
            return list(_listed_in(dataset.get("DirectoryRecordSequence") or []))
        except BROKEN_HEADER as error:
            raise CorruptFile("The DICOMDIR is incomplete or malformed.") from error


def _listed_in(records: Any) -> Iterator[_Listed]:  # noqa: ANN401 - a sequence of pydicom's
    """What the records in use list (PS3.3 F.3); those of a series stand behind its own, as everybody writes them."""
    series_uid = ""
    for record in records:
        if record.get("RecordInUseFlag") == 0:
            continue
        kind = record.get("DirectoryRecordType")
        if kind == "SERIES":
            series_uid = str(record.get("SeriesInstanceUID") or "")
        if file_id := record.get("ReferencedFileID"):
            parts = [file_id] if isinstance(file_id, str) else file_id
            yield _Listed(_names(parts), series_uid, image=kind == "IMAGE")


def _names(parts: Any) -> tuple[str, ...]:  # noqa: ANN401 - as above
    """Folders and name of a file; some writers put slashes between them. Raises CorruptFile where they lead away."""
    names = tuple(name.strip() for part in parts for name in str(part).split("/"))
    if any(name in {"", ".", ".."} or set("\\:\0") & set(name) for name in names):
        raise CorruptFile("The DICOMDIR lists a file outside of its own folder.", hint="Name the images' folder.")
    return names


def _fold(names: tuple[str, ...]) -> tuple[str, ...]:
    """CDs are mounted with names in small letters, or with versions behind them."""
    return tuple(VERSION.sub("", name).casefold() for name in names)
