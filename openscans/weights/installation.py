"""One dataset's weights on disk: unpacked or copied beside, described in a manifest, put in place as a whole.

Knows zips, folders and digests; nothing of URLs, tasks or threads. Touches only what it has put there itself.

Rules for processes. Who calls what changes something (install, remove, verify, tidy) holds the dataset's lock alone.
`condition`, `stage` and the sizes may be asked without one: they bear with what comes and goes meanwhile. What
`trained_model` gives lasts as long as its caller shares the lock.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from openscans.errors import DamagedWeights, ModelMissing
from openscans.progress import Report, ignore_progress
from openscans.system.files import (
    KeptFile,
    copied_bytes,
    link_or_copy,
    require_room,
    sync_folder,
    sync_folders,
    translate_os_errors,
    unfinished,
)
from openscans.types import DownloadStatus, ModelState, TrainedModel
from openscans.weights import archive, download, manifest
from openscans.weights.archive import RESTORE_HINT
from openscans.weights.catalogue import Dataset
from openscans.weights.manifest import Manifest

CHECKPOINT = "fold_0/checkpoint_final.pth"
REQUIRED = ("plans.json", "dataset.json", CHECKPOINT)

LAYOUTS = ("", "results", "nnunet/results")
"""Where, below a folder that somebody names, TotalSegmentator may keep its Dataset… folders."""


@dataclass(frozen=True)
class DatasetCondition:
    """A dataset at one moment: absent, partial (a download can go on), ready or damaged, as names and sizes tell."""

    state: ModelState
    manifest: Manifest | None = None
    damaged_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installation:
    """The place of ``dataset`` inside ``parent``, a folder that the models own."""

    dataset: Dataset
    parent: Path

    @property
    def folder(self) -> Path:
        return self.parent / self.dataset.folder

    @property
    def zip_path(self) -> Path:
        """Where a download goes; gone when it is installed."""
        return self.parent / f"{self.dataset.folder}.zip"

    @property
    def _beside(self) -> Path:
        return self.parent / f"{self.dataset.folder}.unpacking"

    @property
    def _old(self) -> Path:
        return self.parent / f"{self.dataset.folder}.old"

    def condition(self) -> DatasetCondition:
        """What is there now; also while somebody else installs or deletes."""
        found = self._look()
        # Damage counts when it is seen twice: a folder may be put in place, or go, while its files are looked at.
        while found.state == "damaged" and (again := self._look()) != found:
            found = again
        return found

    def stage(self) -> tuple[DownloadStatus, int, int]:
        """How far somebody else is who installs it, as the disk tells: status, done, total; bytes of a download."""
        if self._beside.exists():
            return "extracting", 0, 1
        if self.zip_path.exists():
            return "verifying", 0, 1
        return "downloading", download.part_bytes(self.zip_path), self._announced_bytes()

    def sizes_bytes(self) -> list[int]:
        """Of every file on disk that belongs to the dataset, finished or not."""
        return [found.st_size for found in self._files()]

    def trained_model(self) -> TrainedModel:
        """Raises ModelMissing, DamagedWeights."""
        found = self.condition()
        if found.damaged_files:
            raise DamagedWeights(f"The model {self.dataset.folder} is damaged: {', '.join(found.damaged_files)}.")
        if found.manifest is None:
            raise ModelMissing(f"The model {self.dataset.folder} is not on disk.")
        digests = [found.manifest.files[f"{self.dataset.training}/{name}"].sha256 for name in REQUIRED]
        digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        return TrainedModel(
            self.dataset.folder,
            self.folder / self.dataset.training,
            digest,
            spacing_mm=self.dataset.spacing_mm,
            step=self.dataset.step,
        )

    def verify(self, *, report: Report = ignore_progress) -> None:
        """Compute every digest anew and remember which files differ. ``report`` counts files."""
        known = Manifest.read(self.folder)
        if known is not None:
            with translate_os_errors():
                known.verify(self.folder, report=report).write(self.folder)

    def install_zip(self, zip_path: Path, *, source: str, sha256: str, report: Report = ignore_progress) -> None:
        """Raises DamagedWeights, DiskFull, and what ``report`` raises; then all is as it was before."""
        training = PurePosixPath(self.dataset.folder, self.dataset.training)
        with translate_os_errors():
            found = archive.find_folder(zip_path, training)
            if found is None:
                raise DamagedWeights(f"{zip_path.name} does not hold the folder {training}.", hint=RESTORE_HINT)
            self._start_beside()
            require_room(self.parent, archive.unpacked_bytes(zip_path))
            try:
                files = archive.unpack(zip_path, found, self._beside / self.dataset.training, report=report)
                self._put_in_place(files, source, sha256)
            finally:
                _remove(self._beside)

    def install_folder(self, dataset_folder: Path, *, report: Report = ignore_progress) -> None:
        """Link or copy the training from ``dataset_folder``, which stays as it is; ``report`` counts files.

        Raises as above.
        """
        training = dataset_folder / self.dataset.training
        with translate_os_errors():
            names = _names(training)
            self._start_beside()
            require_room(self.parent, sum(copied_bytes(training / name, self.parent) for name in names))
            try:
                files = {}
                for done, name in enumerate(names):
                    report(done, len(names))
                    target = self._beside / self.dataset.training / name
                    files[str(name)] = link_or_copy(training / name, target)
                self._put_in_place(files, dataset_folder.name, None)
            finally:
                _remove(self._beside)

    def found_in(self, folder: Path) -> Path | None:
        """The dataset's folder, if ``folder`` is it, holds it, or is a home of TotalSegmentator's that holds it."""
        if folder.name == self.dataset.folder:
            return folder
        candidates = (folder / layout / self.dataset.folder for layout in LAYOUTS)
        return next((path for path in candidates if path.is_dir()), None)

    def is_whole_in(self, folder: Path) -> bool:
        """Whether `install_folder` would find there what it needs."""
        found = self.found_in(folder)
        return found is not None and all(_size_bytes(found / self.dataset.training / name) for name in REQUIRED)

    def remove(self) -> int:
        """Delete everything that belongs to the dataset; how many bytes that frees."""
        # A file that was linked on import stays where it came from, and its bytes with it.
        freed_bytes = sum(found.st_size for found in self._files() if found.st_nlink == 1)
        with translate_os_errors():
            _remove(self._beside)
            if self.folder.exists():
                # Renamed first, so that a half deleted folder is never taken for a model.
                _remove(self._old)
                self.folder.replace(self._old)
                sync_folder(self.parent)
            _remove(self._old)
            download.discard(self.zip_path)
            if self.parent.is_dir() and not any(self.parent.iterdir()):
                self.parent.rmdir()
        return freed_bytes

    def has_leftovers(self) -> bool:
        """Whether somebody was, or is, in the middle of something here that `tidy` would finish or undo."""
        if self._beside.exists() or self._old.exists() or self._unfinished_manifests():
            return True
        fetched = any(path.exists() for path in download.partial_paths(self.zip_path))
        return fetched and self.condition().state == "ready"

    def tidy(self) -> None:
        """Finish what was ready to be put in place when a process was killed, and undo the rest.

        What was downloaded of a model that is not there yet is kept.
        """
        with translate_os_errors():
            begun = Manifest.read(self._beside)
            if begun is not None and not begun.faults(self._beside):
                self._swap()
            _remove(self._beside)
            _remove(self._old)
            for left in self._unfinished_manifests():
                left.unlink(missing_ok=True)
            if self.condition().state == "ready":
                download.discard(self.zip_path)

    def _unfinished_manifests(self) -> list[Path]:
        return unfinished(self.folder / manifest.NAME)

    def _look(self) -> DatasetCondition:
        known = Manifest.read(self.folder)
        if known is not None:
            faults = known.faults(self.folder)
            return DatasetCondition("damaged" if faults else "ready", known, faults)
        if self.folder.exists():
            return DatasetCondition("damaged", damaged_files=(manifest.NAME,))
        begun = self.zip_path.exists() or download.part_bytes(self.zip_path)
        return DatasetCondition("partial" if begun else "absent")

    def _announced_bytes(self) -> int:
        """The zip's size as its server told whoever downloads it; before that, what is known of the release."""
        return download.announced_bytes(self.zip_path) or self.dataset.zip_bytes

    def _files(self) -> list[os.stat_result]:
        paths = (self.folder, self._beside, self._old, *download.partial_paths(self.zip_path))
        return [found for path in paths for found in _files_at(path)]

    def _start_beside(self) -> None:
        self.parent.mkdir(parents=True, exist_ok=True)
        _remove(self._beside)

    def _put_in_place(self, files: Mapping[str, KeptFile], source: str, zip_sha256: str | None) -> None:
        missing = [name for name in REQUIRED if name not in files or files[name].size_bytes == 0]
        if missing:
            raise DamagedWeights(f"The weights lack {', '.join(missing)}.", hint=RESTORE_HINT)
        placed = {f"{self.dataset.training}/{name}": kept for name, kept in files.items()}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        sync_folders(self._beside)
        # From here on `tidy` would put it in place.
        Manifest(source, zip_sha256, now, placed).write(self._beside)
        self._swap()

    def _swap(self) -> None:
        _remove(self._old)
        if self.folder.exists():
            self.folder.replace(self._old)
        self._beside.replace(self.folder)
        sync_folder(self.parent)
        _remove(self._old)


def _names(training: Path) -> list[PurePosixPath]:
    """The files of a training, without links, which could lead anywhere, and without junk."""
    paths = [path for path in sorted(training.rglob("*")) if path.is_file() and not path.is_symlink()]
    names = [PurePosixPath(path.relative_to(training).as_posix()) for path in paths]
    return [name for name in names if not archive.is_junk(name)]


def _files_at(path: Path) -> Iterator[os.stat_result]:
    """The file, or every file below the folder; what vanishes meanwhile does not count."""
    below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for file in (path, *below):
        found = _file(file)
        if found is not None:
            yield found


def _size_bytes(path: Path) -> int:
    """0 where there is no file."""
    found = _file(path)
    return 0 if found is None else found.st_size


def _file(path: Path) -> os.stat_result | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
