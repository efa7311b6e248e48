"""What is on disk, as it is told to those who ask: of one task, and of all together.

Knows tasks and the places of their datasets; changes nothing.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from openscans.system.files import printable
from openscans.system.folders import user_home
from openscans.types import ModelState, ResultWarning, WarningCode, describe
from openscans.weights import catalogue
from openscans.weights.catalogue import Dataset, Task
from openscans.weights.digest_rules import DigestRules
from openscans.weights.installation import DatasetCondition, Installation


@dataclass(frozen=True)
class ModelStatus:
    """What is on disk of one task, without what it needs besides, or what a download would bring."""

    downloaded: bool = field(metadata=describe("Whether every file is there and was verified."))
    size_mb: float = field(metadata=describe("On disk if downloaded, else what a download would fetch."))
    path: str = field(metadata=describe("The folder of all models; ~ is the user's home."))
    task: str = field(metadata=describe("The task's key, as addresses name it."))
    name: str = field(metadata=describe("The task's name for a person."))
    description: str = field(metadata=describe("What its models do, for a person."))
    state: ModelState = field(metadata=describe("How its models stand on disk; partial: a download can go on."))
    cache_path: str = field(metadata=describe("The folder of this task's models, in full."))
    structures: tuple[str, ...] = field(metadata=describe("The labels that it finds, from head to foot."))
    needs: tuple[str, ...] = field(metadata=describe("Other tasks whose models it uses; a download fetches them too."))
    ready_to_detect: bool = field(
        metadata=describe("Whether a detection can begin at once: its own models and those that it needs are here.")
    )
    missing: tuple[str, ...] = field(
        metadata=describe("What a detection still lacks: folders' names of models that are not whole here, or refused.")
    )
    importable: str | None = field(
        metadata=describe("A folder of TotalSegmentator's that holds what is missing; null where there is none.")
    )
    warnings: tuple[ResultWarning, ...] = field(metadata=describe("What should be known of the files on disk."))


@dataclass(frozen=True)
class TaskUsage:
    """How much room one task's models take on disk."""

    size_mb: float = field(metadata=describe("Megabytes (10⁶ bytes)."))
    file_count: int = field(metadata=describe("Files."))


@dataclass(frozen=True)
class CacheStats:
    """How much room all models take on disk."""

    cache_directory: str = field(metadata=describe("The folder of all models."))
    total_size_mb: float = field(metadata=describe("Megabytes (10⁶ bytes) of all tasks together."))
    file_count: int = field(metadata=describe("Files of all tasks together."))
    models: Mapping[str, TaskUsage] = field(metadata=describe("The same for every task, by its key."))


@dataclass(frozen=True)
class Deletion:
    """Whether anything was there to remove; ``needed_by`` are downloaded tasks for whose sake whole models stayed."""

    removed: bool
    freed_bytes: int
    needed_by: tuple[str, ...] = ()


def place_of(dataset: Dataset, root: Path) -> Installation:
    """Where it lies, or would lie, below ``root``."""
    return Installation(dataset, root / catalogue.owner_of(dataset).key)


def places_of(task: Task, root: Path) -> list[Installation]:
    """Where the task's datasets lie, or would lie, below ``root``."""
    return [place_of(dataset, root) for dataset in task.datasets]


def places_about(task: Task, root: Path) -> list[Installation]:
    """`places_of` it, then those of the other datasets that a detection opens."""
    foreign = [dataset for dataset in task.opened if dataset not in task.datasets]
    return [*places_of(task, root), *(place_of(dataset, root) for dataset in foreign)]


def status_of(
    task: Task,
    root: Path,
    *,
    state: ModelState,
    found: Mapping[Installation, DatasetCondition],
    digests: DigestRules,
    totalsegmentator_results: Path | None,
) -> ModelStatus:
    """``found`` are `places_about` it; ``totalsegmentator_results`` is where TotalSegmentator keeps its own weights."""
    ready = state == "ready"
    own = [place for place in found if place.dataset in task.datasets]
    missing = [place for place in own if found[place].state != "ready"]
    unusable = {place.dataset.folder for place in found if not found[place].is_usable(place.dataset, digests)}
    lacking = tuple(dataset.folder for dataset in task.opened if dataset.folder in unusable)
    importable = [place for place in missing if not digests.are_binding(place.dataset)]
    return ModelStatus(
        downloaded=ready,
        size_mb=_megabytes(
            sum(sum(place.sizes_bytes()) for place in own)
            if ready
            else sum(place.dataset.zip_bytes for place in missing)
        ),
        path=_with_tilde(root),
        task=task.key,
        name=task.name,
        description=task.description,
        state=state,
        cache_path=printable(str(root / task.key)),
        structures=task.structures,
        needs=task.needs,
        ready_to_detect=not lacking,
        missing=lacking,
        importable=None if totalsegmentator_results is None else _importable(importable, totalsegmentator_results),
        warnings=tuple(dict.fromkeys(one for place in own for one in _warnings(place, found[place], digests))),
    )


def cache_stats(root: Path) -> CacheStats:
    """How much room every task takes."""
    models = {}
    for key, task in catalogue.TASKS.items():
        sizes_bytes = [size for place in places_of(task, root) for size in place.sizes_bytes()]
        models[key] = TaskUsage(_megabytes(sum(sizes_bytes)), len(sizes_bytes))
    total_mb = round(sum(usage.size_mb for usage in models.values()), 1)
    count = sum(usage.file_count for usage in models.values())
    return CacheStats(printable(str(root)), total_mb, count, models)


def _warnings(place: Installation, found: DatasetCondition, digests: DigestRules) -> Iterator[ResultWarning]:
    if found.manifest is not None:
        yield from place.weights_warnings(digests, found.manifest.zip_sha256)
    for name in found.damaged_files:
        message = f"{place.dataset.folder}/{printable(name)} is missing or not what was installed."
        yield ResultWarning(WarningCode.DAMAGED_FILE, message)


def _importable(missing: Collection[Installation], totalsegmentator_results: Path) -> str | None:
    """The folder, where something in it is missing here and the path can be sent back."""
    name = str(totalsegmentator_results)
    usable = name == printable(name) and any(place.is_whole_in(totalsegmentator_results) for place in missing)
    return name if usable else None


def _megabytes(size_bytes: int) -> float:
    return round(size_bytes / 1e6, 1)


def _with_tilde(path: Path) -> str:
    home = user_home()
    inside = home is not None and path.is_relative_to(home)
    return printable(f"~/{path.relative_to(home).as_posix()}" if home is not None and inside else str(path))
