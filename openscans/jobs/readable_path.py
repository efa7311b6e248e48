"""Which files may be read: none that is no file, and none outside the allowed folders.

Knows paths and links; nothing of requests, and opens nothing.
"""

import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from openscans.errors import ForbiddenPath, InputNotFound, InvalidRequest
from openscans.progress import Report, ignore_progress
from openscans.system.allowed_roots import SYSTEM_FOLDERS, lies_in, real
from openscans.system.folder_walk import FolderWalk

RESERVED_NAME = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*([.:].*)?", re.IGNORECASE)
"""Windows opens a device for these names in every folder."""

NO_DEVICES = "Copy the image into a folder of this machine's own disk and send that path."


def readable_path(text: str, roots: Sequence[Path], report: Report = ignore_progress) -> Path:
    """The absolute path that ``text`` names, its links followed.

    Raises InvalidRequest, FolderTooLarge, ForbiddenPath, InputNotFound.
    With ``roots``, what lies outside them is refused in the same words whether it is there or not. Nothing is opened.
    ``report`` stays at nothing done, and may raise Cancelled.
    """
    if _is_device_or_share(text):
        raise ForbiddenPath("Devices and network shares are not read.", hint=NO_DEVICES)
    path = Path(text)
    if not path.is_absolute():
        raise InvalidRequest("file_path must be an absolute path.")
    found = real(path)
    if roots and not lies_in(found, roots):
        raise ForbiddenPath("The path lies outside the folders that this server may read.")
    mode = _mode(found)
    if lies_in(found, SYSTEM_FOLDERS) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ForbiddenPath("Only files and folders are read, no devices, pipes or sockets.", hint=NO_DEVICES)
    if roots and stat.S_ISDIR(mode):
        _refuse_ways_out(found, roots, report)
    # A slice may be a link into a store of files (as git-annex lays them out); its series lies beside the link.
    return found if roots or stat.S_ISDIR(mode) else real(path.parent) / path.name


def _is_device_or_share(text: str) -> bool:
    r"""By its words alone: to ask Windows about \\host\share would already log in to that host."""
    if re.match(r"[\\/]{2}", text):
        return True
    if sys.platform == "win32":
        return any(RESERVED_NAME.fullmatch(part) for part in Path(text).parts)
    return any(Path(os.path.normpath(text)).is_relative_to(folder) for folder in SYSTEM_FOLDERS)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        raise InputNotFound("There is no file or folder at this path, or it may not be read.") from error


def _refuse_ways_out(folder: Path, roots: Sequence[Path], report: Report) -> None:
    """Raises ForbiddenPath for a link to a file outside ``roots``, anywhere in the folder; FolderTooLarge."""
    try:
        for entry in FolderWalk(folder):
            report(0, 1)
            if entry.is_symlink() and not _is_folder(Path(entry.path)) and not lies_in(real(Path(entry.path)), roots):
                raise ForbiddenPath("The folder holds a link that leads outside the folders that this server may read.")
    except OSError as error:
        raise InputNotFound("The folder cannot be listed.") from error


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(_mode(path))
    except InputNotFound:
        return False
