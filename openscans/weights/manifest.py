"""What was installed, written down when all of it was there: without a manifest nothing in a folder is vouched for.

Knows files and digests; nothing of zips, tasks or where files lie.

Rules for processes. It is written whole, by who holds the dataset's lock alone, and read by anybody at any time.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any, Self

from openscans.progress import Report, ignore_progress
from openscans.system.files import KeptFile, write_whole
from openscans.system.regular_files import open_regular

NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What was put in place. ``files`` are relative to the dataset's folder.

    ``source`` is what they came as ("release v2.0.0", "zip", "folder"), not whence: a file's name may be a patient's.
    Earlier versions wrote names and addresses, which are read like the rest.
    ``damaged`` are those whose digest differed when it was last computed.
    """

    source: str
    zip_sha256: str | None
    installed: str
    files: Mapping[str, KeptFile]
    damaged: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """None where there is none that can be read; what newer versions write besides is left out."""
        try:
            with open_regular(folder / NAME) as file:
                return cls._of(json.load(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    @classmethod
    def _of(cls, found: object) -> "Manifest":
        """Raises ValueError, KeyError, TypeError, AttributeError for what is no manifest."""
        keys = _mapping(found)
        zip_sha256 = keys.get("zip_sha256")
        return cls(
            _text(keys.get("source", "")),
            None if zip_sha256 is None else _text(zip_sha256),
            _text(keys.get("installed", "")),
            {_name(name): _kept(kept) for name, kept in keys["files"].items()},
            tuple(_text(name) for name in keys.get("damaged", ())),
        )

    def write(self, folder: Path) -> None:
        write_whole(folder / NAME, [json.dumps(asdict(self), indent=1).encode()], durable=True)

    def faults(self, folder: Path) -> tuple[str, ...]:
        """The files that are missing, or not what was installed."""
        changed = (name for name, kept in self.files.items() if not kept.is_still(folder / name))
        return tuple(dict.fromkeys((*changed, *self.damaged)))

    def verify(self, folder: Path, *, report: Report = ignore_progress) -> Self:
        """The same after every file was read: its present time, and which differ. ``report`` counts files."""
        files, damaged = dict(self.files), []
        for done, (name, kept) in enumerate(self.files.items()):
            report(done, len(files))
            found = KeptFile.of(folder / name) if (folder / name).is_file() else None
            if found is None or found.sha256 != kept.sha256:
                damaged.append(name)
            else:
                files[name] = found
        return replace(self, files=files, damaged=tuple(damaged))


def _kept(found: object) -> KeptFile:
    keys = _mapping(found)
    return KeptFile(_whole(keys["size_bytes"]), _text(keys["sha256"]), _whole(keys.get("modified_ns", 0)))


def _name(text: str) -> str:
    """The name of a file below the dataset's folder. Raises ValueError."""
    if PureWindowsPath(text).anchor or ".." in PureWindowsPath(text).parts or "\0" in text:
        raise ValueError("A file's name leads out of the folder.")
    # What no disk can have as a name would be an error at every look.
    os.fsencode(text)
    return text


def _mapping(value: object) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise TypeError("A mapping is none.")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("A text is none.")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("A whole number is none.")
    return value
