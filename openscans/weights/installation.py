"""One dataset's weights on disk: unpacked or copied beside, described in a manifest, put in place as a whole.

Knows zips, folders and digests; nothing of URLs, tasks or threads. Touches only what it has put there itself.

Rules for processes. Who calls what changes something (install, remove, verify, tidy) holds the dataset's lock alone.
`condition`, `stage` and the sizes may be asked without one: they bear with what comes and goes meanwhile. What
`trained_model` gives lasts as long as its caller shares the lock.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from openscans.errors import DamagedWeights, ForbiddenPath, ModelMissing
from openscans.progress import Report, ignore_progress
from openscans.system.files import (
    KeptFile,
    copied_bytes,
    link_or_copy,
    printable,
    require_room,
    sync_folder,
    sync_folders,
    translate_os_errors,
    unfinished,
)
from openscans.system.presence import files_at, is_there, remove, size_bytes
from openscans.types import DownloadStatus, ModelState, ResultWarning, TrainedModel
from openscans.weights import archive, download, manifest
from openscans.weights.archive import RESTORE_HINT
from openscans.weights.catalogue import Dataset
from openscans.weights.digest_rules import DigestRules
from openscans.weights.manifest import Manifest
from openscans.weights.notice import notice_warnings
from openscans.weights.originals import find_dataset
from openscans.weights.partial_file import paths_beside

CHECKPOINT = "fold_0/checkpoint_final.pth"
REQUIRED = ("plans.json", "dataset.json", CHECKPOINT)

TrainingCheck: TypeAlias = Callable[[Path], None]
"""Looks at a training's folder before it is put in place. Raises DamagedWeights."""


def take_any(_training: Path) -> None:
    """The `TrainingCheck` of those who read no weights."""


@dataclass(frozen=True)
class DatasetCondition:
    """A dataset at one moment: absent, partial (a download can go on), ready or damaged, as names and sizes tell."""

    state: ModelState
    manifest: Manifest | None = None
    damaged_files: tuple[str, ...] = ()

    def is_usable(self, dataset: Dataset, digests: DigestRules) -> bool:
        """Whether a detection may open ``dataset``, which stands so."""
        known = self.manifest if self.state == "ready" else None
        return known is not None and digests.refusal(dataset, known.zip_sha256) is None


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
        if is_there(self._beside):
            return "extracting", 0, 1
        if is_there(self.zip_path):
            return "verifying", 0, 1
        return "downloading", self._part_bytes(), self._announced_bytes()

    def sizes_bytes(self) -> list[int]:
        """Of every file on disk that belongs to the dataset, finished or not."""
        return [found.st_size for found in self._files()]

    def trained_model(self, digests: DigestRules) -> TrainedModel:
        """Raises ModelMissing, DamagedWeights, RefusedWeights."""
        found = self.condition()
        if found.damaged_files:
            names = ", ".join(printable(name) for name in found.damaged_files)
            raise DamagedWeights(f"The model {self.dataset.folder} is damaged: {names}.")
        if found.manifest is None:
            raise ModelMissing(f"The model {self.dataset.folder} is not on disk.")
        refusal = digests.refusal(self.dataset, found.manifest.zip_sha256)
        if refusal is not None:
            raise refusal
        parts = [found.manifest.files[f"{self.dataset.training}/{name}"].sha256 for name in REQUIRED]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return TrainedModel(
            self.dataset.folder,
            self.folder / self.dataset.training,
            digest,
            spacing_mm=self.dataset.spacing_mm,
            step=self.dataset.step,
            warnings=self.weights_warnings(digests, found.manifest.zip_sha256),
        )

    def weights_warnings(self, digests: DigestRules, zip_sha256: str | None) -> tuple[ResultWarning, ...]:
        """What is to be said of what these weights are, and of where they came from."""
        notices = notice_warnings(self.folder / self.dataset.training)
        return (*notices, *digests.warnings(self.dataset, zip_sha256))

    def verify(self, *, report: Report = ignore_progress) -> None:
        """Compute every digest anew and remember which files differ. ``report`` counts files."""
        known = Manifest.read(self.folder)
        if known is not None:
            with translate_os_errors():
                known.verify(self.folder, report=report).write(self.folder)

    def install_zip(
        self,
        zip_path: Path,
        *,
        source: str,
        sha256: str,
        check: TrainingCheck = take_any,
        report: Report = ignore_progress,
    ) -> None:
        """Raises DamagedWeights, DiskFull, and what ``report`` raises; then all is as it was before."""
        training = PurePosixPath(self.dataset.folder, self.dataset.training)
        with translate_os_errors():
            found = archive.find_folder(zip_path, training)
            if found is None:
                raise DamagedWeights(f"The zip does not hold the folder {training}.", hint=RESTORE_HINT)
            try:
                self._start_beside()
                require_room(self.parent, archive.unpacked_bytes(zip_path))
                files = archive.unpack(zip_path, found, self._beside / self.dataset.training, report=report)
                self._require_whole(files, check)
                self._put_in_place(files, source, sha256)
            finally:
                remove(self._beside)

    def install_folder(
        self,
        dataset_folder: Path,
        originals: Mapping[PurePosixPath, Path],
        *,
        check: TrainingCheck = take_any,
        report: Report = ignore_progress,
    ) -> None:
        """Link or copy ``originals``, the files of the training in ``dataset_folder``, which stays as it is.

        ``report`` counts files. Raises as above.
        """
        with translate_os_errors():
            shut = next((name for name, path in originals.items() if not os.access(path, os.R_OK)), None)
            if shut is not None:
                raise DamagedWeights(f"The file {printable(str(shut))} may not be read.")
            try:
                self._start_beside()
                require_room(self.parent, sum(copied_bytes(path, self.parent) for path in originals.values()))
                files = {}
                for done, (name, original) in enumerate(sorted(originals.items())):
                    report(done, len(originals))
                    files[str(name)] = link_or_copy(original, self._beside / self.dataset.training / name)
                self._require_whole(files, check)
                self._put_in_place(files, "folder", None)
            finally:
                remove(self._beside)

    def is_whole_in(self, folder: Path) -> bool:
        """Whether `install_folder` would find there what it needs."""
        try:
            found = find_dataset(folder, self.dataset.folder, ())
        except (OSError, ForbiddenPath):
            return False
        if found is None:
            return False
        paths = [found / self.dataset.training / name for name in REQUIRED]
        return all(size_bytes(path) and os.access(path, os.R_OK) for path in paths)

    def remove(self) -> int:
        """Delete everything that belongs to the dataset; how many bytes that frees."""
        # A file that was linked on import stays where it came from, and its bytes with it; so does what a link in the
        # folder's place leads to.
        own = (path for path in self._paths() if not path.is_symlink())
        freed_bytes = sum(found.st_size for path in own for found in files_at(path) if found.st_nlink == 1)
        with translate_os_errors(only_writes=True):
            remove(self._beside)
            if is_there(self.folder):
                # Renamed first, so that a half deleted folder is never taken for a model.
                remove(self._old)
                self.folder.replace(self._old)
                sync_folder(self.parent)
            remove(self._old)
            download.discard(self.zip_path)
            if self.parent.is_dir() and not self.parent.is_symlink() and not any(self.parent.iterdir()):
                self.parent.rmdir()
        return freed_bytes

    def has_leftovers(self, digests: DigestRules) -> bool:
        """Whether somebody was, or is, in the middle of something here that `tidy` would finish or undo."""
        if is_there(self._beside) or is_there(self._old) or self._unfinished_manifests():
            return True
        fetched = any(is_there(path) for path in download.partial_paths(self.zip_path))
        return fetched and self.condition().is_usable(self.dataset, digests)

    def tidy(self, digests: DigestRules) -> None:
        """Finish what was ready to be put in place when a process was killed, and undo the rest.

        What was downloaded of a model that is not there yet, or in the place of one that is refused, is kept.
        """
        with translate_os_errors():
            begun = Manifest.read(self._beside)
            if begun is not None and not begun.faults(self._beside):
                self._swap()
            remove(self._beside)
            remove(self._old)
            for left in self._unfinished_manifests():
                left.unlink(missing_ok=True)
            if self.condition().is_usable(self.dataset, digests):
                download.discard(self.zip_path)

    def _unfinished_manifests(self) -> list[Path]:
        return unfinished(self.folder / manifest.NAME)

    def _look(self) -> DatasetCondition:
        known = Manifest.read(self.folder)
        if known is not None:
            required = (f"{self.dataset.training}/{name}" for name in REQUIRED)
            unknown = (name for name in required if name not in known.files)
            faults = tuple(dict.fromkeys((*known.faults(self.folder), *unknown)))
            return DatasetCondition("damaged" if faults else "ready", known, faults)
        if is_there(self.folder):
            return DatasetCondition("damaged", damaged_files=(manifest.NAME,))
        begun = is_there(self.zip_path) or self._part_bytes()
        return DatasetCondition("partial" if begun else "absent")

    def _part_bytes(self) -> int:
        return size_bytes(paths_beside(self.zip_path)[0])

    def _announced_bytes(self) -> int:
        """The zip's size as its server told whoever downloads it; before that, what is known of the release."""
        return download.announced_bytes(self.zip_path) or self.dataset.zip_bytes

    def _files(self) -> list[os.stat_result]:
        return [found for path in self._paths() for found in files_at(path)]

    def _paths(self) -> tuple[Path, ...]:
        return self.folder, self._beside, self._old, *download.partial_paths(self.zip_path)

    def _start_beside(self) -> None:
        with translate_os_errors(only_writes=True):
            self.parent.mkdir(parents=True, exist_ok=True)
            remove(self._beside)
            self._beside.mkdir()

    def _require_whole(self, files: Mapping[str, KeptFile], check: TrainingCheck) -> None:
        """Raises DamagedWeights where ``files``, which lie beside, lack one or are not what they claim to be."""
        missing = [name for name in REQUIRED if name not in files or files[name].size_bytes == 0]
        if missing:
            raise DamagedWeights(f"The weights lack {', '.join(missing)}.", hint=RESTORE_HINT)
        check(self._beside / self.dataset.training)

    def _put_in_place(self, files: Mapping[str, KeptFile], source: str, zip_sha256: str | None) -> None:
        placed = {f"{self.dataset.training}/{name}": kept for name, kept in files.items()}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        sync_folders(self._beside)
        # From here on `tidy` would put it in place.
        Manifest(source, zip_sha256, now, placed).write(self._beside)
        self._swap()

    def _swap(self) -> None:
        remove(self._old)
        if is_there(self.folder):
            self.folder.replace(self._old)
        self._beside.replace(self.folder)
        sync_folder(self.parent)
        remove(self._old)
