"""What was installed, written down when all of it was there: without a manifest nothing in a folder is vouched for.

Knows files and digests; nothing of zips, tasks or where files lie.

Rules for processes. It is written whole, by who holds the dataset's lock alone, and read by anybody at any time.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from openscans.progress import Report, ignore_progress
from openscans.system.files import KeptFile, write_whole

NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What was put in place, and whence. ``files`` are relative to the dataset's folder.

    ``damaged`` are those whose digest differed when it was last computed.
    """

    source: str
    zip_sha256: str | None
    installed: str
    files: Mapping[str, KeptFile]
    damaged: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Manifest | None":
        """None where there is none that can be read."""
        try:
            keys = json.loads((folder / NAME).read_text(encoding="utf-8"))
            files = {name: KeptFile(**kept) for name, kept in keys.pop("files").items()}
            return cls(files=files, damaged=tuple(keys.pop("damaged")), **keys)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

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
