"""Zips of images, as archives, mail programs and attackers make them."""

import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

OF_UNIX, OF_DOS = 3, 0


def write_zip(path: Path, files: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip at ``path`` of contents by their names in it, whatever those are."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            # By hand, because the module would make the name a safe one.
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = name
            entry.compress_type = compression
            entry.create_system = OF_DOS if "\\" in name else OF_UNIX
            archive.writestr(entry, content)
    return path


def contents_of(folder: Path) -> dict[str, bytes]:
    """The files below ``folder`` by their paths in it, as a zip names them."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def zip_folder(folder: Path, path: Path) -> Path:
    """A zip at ``path``, which lies elsewhere, of what lies in ``folder``."""
    return write_zip(path, contents_of(folder))


def add_link(path: Path, name: str, target: str) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo(name)
        link.create_system = OF_UNIX
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)


def lock(path: Path) -> Path:
    """Say of every file of the zip that it is under a password."""
    content = bytearray(path.read_bytes())
    # Where the flags stand behind these signatures (APPNOTE 4.3.7 and 4.3.12).
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + flags_at] |= 1
            start = content.find(signature, start + 4)
    path.write_bytes(content)
    return path


def claim(path: Path, *, entries: int | None = None, directory_bytes: int | None = None) -> Path:
    """Let the end of the zip tell another number of entries, or another length of their list."""
    content = bytearray(path.read_bytes())
    end = content.rfind(b"PK\x05\x06")
    if entries is not None:
        struct.pack_into("<HH", content, end + 8, entries, entries)
    if directory_bytes is not None:
        struct.pack_into("<I", content, end + 12, directory_bytes)
    path.write_bytes(content)
    return path
