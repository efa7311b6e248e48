"""The files of a training in a folder that somebody named: which of them count, and where links lead.

Knows names, links and who may read where; opens nothing.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from openscans.errors import DamagedWeights
from openscans.system.allowed_roots import require_allowed
from openscans.system.folder_walk import FolderWalk
from openscans.system.presence import is_folder, regular_file
from openscans.weights import archive

LAYOUTS = ("", "results", "nnunet/results")
"""Where, below a folder that somebody names, TotalSegmentator may keep its Dataset… folders."""


def find_dataset(folder: Path, name: str, roots: Sequence[Path]) -> Path | None:
    """The dataset's folder, if ``folder`` is it, holds it, or is a home of TotalSegmentator's that holds it.

    Raises ForbiddenPath where it would lie outside ``roots``, whether it is there or not.
    """
    # A link may have the name, or lead to what has it.
    if name in {folder.name, Path(os.path.realpath(folder)).name}:
        return folder
    candidates = (folder / layout / name for layout in LAYOUTS)
    return next((path for path in candidates if is_folder(require_allowed(path, roots))), None)


def find_originals(training: Path, required: Sequence[str], roots: Sequence[Path]) -> Mapping[PurePosixPath, Path]:
    """The files of ``training`` without junk: name → where it really lies.

    Links to files are followed; of those to folders only such as hold ``required`` files, since others could lead round
    and round. Raises OSError, FolderTooLarge, ForbiddenPath where one leads
    outside ``roots``, and DamagedWeights where they are more than any training's.
    """
    top = require_allowed(training, roots)
    if not is_folder(top):
        return {}
    # Where one lies is looked at before whether it is there, which is nobody's business outside the roots.
    needed = ((PurePosixPath(name), require_allowed(top / name, roots)) for name in required)
    found = {name: path for name, path in needed if regular_file(path)} | dict(_files(top, roots))
    if sum(path.stat().st_size for path in found.values()) > archive.MOST_BYTES:
        raise DamagedWeights("The folder holds more than any released model.", hint=archive.RESTORE_HINT)
    return found


def _files(top: Path, roots: Sequence[Path]) -> Iterator[tuple[PurePosixPath, Path]]:
    for entry in FolderWalk(top):
        name = PurePosixPath(Path(entry.path).relative_to(top).as_posix())
        if not archive.is_junk(name) and entry.is_file():
            yield name, require_allowed(Path(entry.path), roots)
