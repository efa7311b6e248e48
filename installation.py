"""One dataset's weights on disk: unpacked or copied beside, described in a manifest, put in place as a whole.

Knows zips, folders and digests; nothing of URLs, tasks or threads. Touches only what it has put there itself.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import archives
import disk
import downloads
from archives import RESTORE_HINT, KeptFile
from catalogue import Dataset
from errors import DamagedWeights, ModelMissing
from findings import TrainedModel
from progress import Report, unheard

MANIFEST = "manifest.json"
CHECKPOINT = "fold_0/checkpoint_final.pth"
REQUIRED = ("plans.json", "dataset.json", CHECKPOINT)

LAYOUTS = ("", "results", "nnunet/results")
"""Where, below a folder that somebody names, TotalSegmentator may keep its Dataset… folders."""


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
        """None where there is none that can be read; then nothing in the folder is vouched for."""
        try:
            keys = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            files = {name: KeptFile(**kept) for name, kept in keys.pop("files").items()}
            return cls(files=files, damaged=tuple(keys.pop("damaged")), **keys)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, folder: Path) -> None:
        beside = folder / f"{MANIFEST}.new"
        beside.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        beside.replace(folder / MANIFEST)


@dataclass(frozen=True)
class Condition:
    """A dataset at one moment: absent, partial (a download can go on), ready or damaged, as names and sizes tell."""

    state: str
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

    def condition(self) -> Condition:
        """What is there now; also while somebody else installs or deletes."""
        found = self._look()
        # Damage counts when it is seen twice: a folder may be put in place, or go, while its files are looked at.
        while found.state == "damaged" and (again := self._look()) != found:
            found = again
        return found

    def sizes_bytes(self) -> list[int]:
        """Of every file on disk that belongs to the dataset, finished or not."""
        paths = (self.folder, self._beside, self._old, *downloads.paths_of(self.zip_path))
        return [size for path in paths for size in _sizes_bytes(path)]

    def trained_model(self) -> TrainedModel:
        """Raises ModelMissing, DamagedWeights."""
        found = self.condition()
        if found.damaged_files:
            raise DamagedWeights(f"The model {self.dataset.folder} is damaged: {', '.join(found.damaged_files)}.")
        if found.manifest is None:
            raise ModelMissing(f"The model {self.dataset.folder} is not on disk.")
        checkpoint = found.manifest.files[f"{self.dataset.training}/{CHECKPOINT}"]
        return TrainedModel(self.dataset.folder, self.folder / self.dataset.training, checkpoint.sha256)

    def verify(self, *, report: Report = unheard) -> None:
        """Compute every digest anew and remember which files differ. ``report`` counts files."""
        manifest = Manifest.read(self.folder)
        if manifest is None:
            return
        damaged = []
        with disk.errors_translated():
            for done, (name, kept) in enumerate(manifest.files.items()):
                report(done, len(manifest.files))
                path = self.folder / name
                if not path.is_file() or downloads.sha256_of(path) != kept.sha256:
                    damaged.append(name)
            replace(manifest, damaged=tuple(damaged)).write(self.folder)

    def install_zip(self, zip_path: Path, *, source: str, sha256: str, report: Report = unheard) -> None:
        """Raises DamagedWeights, DiskFull, and what ``report`` raises; then all is as it was before."""
        training = PurePosixPath(self.dataset.folder, self.dataset.training)
        with disk.errors_translated():
            found = archives.find_folder(zip_path, training)
            if found is None:
                raise DamagedWeights(f"{zip_path.name} does not hold the folder {training}.", hint=RESTORE_HINT)
            self._start_beside(archives.unpacked_bytes(zip_path))
            try:
                files = archives.unpack(zip_path, found, self._beside / self.dataset.training, report=report)
                self._put_in_place(files, source, sha256)
            finally:
                _remove(self._beside)

    def install_folder(self, dataset_folder: Path, *, report: Report = unheard) -> None:
        """Copy the training from ``dataset_folder``, which stays as it is. ``report`` counts files. Raises as above."""
        training = dataset_folder / self.dataset.training
        with disk.errors_translated():
            names = _names(training)
            self._start_beside(sum((training / name).stat().st_size for name in names))
            try:
                files = {}
                for done, name in enumerate(names):
                    report(done, len(names))
                    with (training / name).open("rb") as original:
                        copied = archives.copy(original, self._beside / self.dataset.training / name)
                    files[str(name)] = copied
                self._put_in_place(files, dataset_folder.name, None)
            finally:
                _remove(self._beside)

    def found_in(self, folder: Path) -> Path | None:
        """The dataset's folder, if ``folder`` is it, holds it, or is a home of TotalSegmentator's that holds it."""
        if folder.name == self.dataset.folder:
            return folder
        candidates = (folder / layout / self.dataset.folder for layout in LAYOUTS)
        return next((path for path in candidates if path.is_dir()), None)

    def remove(self) -> int:
        """Delete everything that belongs to the dataset; how many bytes that frees."""
        freed_bytes = sum(self.sizes_bytes())
        with disk.errors_translated():
            if self.folder.exists():
                # Renamed first, so that a half deleted folder is never taken for a model.
                _remove(self._old)
                self.folder.replace(self._old)
            for leftover in (self._old, self._beside):
                _remove(leftover)
            downloads.discard(self.zip_path)
            if self.parent.is_dir() and not any(self.parent.iterdir()):
                self.parent.rmdir()
        return freed_bytes

    def _look(self) -> Condition:
        manifest = Manifest.read(self.folder)
        if manifest is not None:
            faults = self._faults(manifest)
            return Condition("damaged" if faults else "ready", manifest, faults)
        if self.folder.exists():
            return Condition("damaged", damaged_files=(MANIFEST,))
        begun = self.zip_path.exists() or downloads.part_bytes(self.zip_path)
        return Condition("partial" if begun else "absent")

    def _faults(self, manifest: Manifest) -> tuple[str, ...]:
        changed = (name for name, kept in manifest.files.items() if _size_bytes(self.folder / name) != kept.size_bytes)
        return tuple(dict.fromkeys((*changed, *manifest.damaged)))

    def _start_beside(self, needed_bytes: int) -> None:
        self.parent.mkdir(parents=True, exist_ok=True)
        _remove(self._beside)
        disk.require_room(self.parent, needed_bytes)

    def _put_in_place(self, files: Mapping[str, KeptFile], source: str, zip_sha256: str | None) -> None:
        missing = [name for name in REQUIRED if name not in files or files[name].size_bytes == 0]
        if missing:
            raise DamagedWeights(f"The weights lack {', '.join(missing)}.", hint=RESTORE_HINT)
        placed = {f"{self.dataset.training}/{name}": kept for name, kept in files.items()}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        Manifest(source, zip_sha256, now, placed).write(self._beside)
        _remove(self._old)
        if self.folder.exists():
            self.folder.replace(self._old)
        self._beside.replace(self.folder)
        _remove(self._old)


def _names(training: Path) -> list[PurePosixPath]:
    """The files of a training, without links, which could lead anywhere, and without junk."""
    paths = [path for path in sorted(training.rglob("*")) if path.is_file() and not path.is_symlink()]
    names = [PurePosixPath(path.relative_to(training).as_posix()) for path in paths]
    return [name for name in names if not archives.is_junk(name)]


def _sizes_bytes(path: Path) -> Iterator[int]:
    """Of the file, or of every file below the folder; what vanishes meanwhile does not count."""
    below = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for file in (path, *below):
        size_bytes = _size_bytes(file)
        if size_bytes is not None:
            yield size_bytes


def _size_bytes(path: Path) -> int | None:
    """None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
