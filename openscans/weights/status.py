"""What is on disk, as it is told to those who ask: of one task, and of all together.

Knows tasks and the places of their datasets; changes nothing.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openscans.types import ResultWarning
from openscans.weights import catalogue
from openscans.weights.catalogue import Dataset, Task
from openscans.weights.installation import DatasetCondition, Installation


@dataclass(frozen=True)
class ModelStatus:
    """What is on disk of one task, without what it needs besides.

    ``size_mb``: on disk if downloaded, else what a download would fetch. ``importable``: a folder of TotalSegmentator's
    that holds what is missing.
    """

    downloaded: bool
    size_mb: float
    path: str
    task: str
    name: str
    description: str
    state: str
    cache_path: str
    structures: tuple[str, ...]
    needs: tuple[str, ...]
    importable: str | None = None
    warnings: tuple[ResultWarning, ...] = ()


@dataclass(frozen=True)
class CacheStats:
    cache_directory: str
    total_size_mb: float
    file_count: int
    models: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Deletion:
    """Whether anything was there to remove; ``needed_by`` are downloaded tasks for whose sake whole models stayed."""

    removed: bool
    freed_bytes: int
    needed_by: tuple[str, ...] = ()


def places_of(task: Task, root: Path) -> list[Installation]:
    """Where the task's datasets lie, or would lie, below ``root``."""
    return [Installation(dataset, root / task.key) for dataset in task.datasets]


def status_of(
    task: Task, root: Path, *, state: str, found: Mapping[Installation, DatasetCondition], neighbour: Path | None
) -> ModelStatus:
    """``neighbour`` is where TotalSegmentator keeps weights of its own."""
    ready = state == "ready"
    missing = [place for place in found if found[place].state != "ready"]
    return ModelStatus(
        downloaded=ready,
        size_mb=_megabytes(
            sum(sum(place.sizes_bytes()) for place in found)
            if ready
            else sum(place.dataset.zip_bytes for place in missing)
        ),
        path=_with_tilde(root),
        task=task.key,
        name=task.name,
        description=task.description,
        state=state,
        cache_path=str(root / task.key),
        structures=task.structures,
        needs=task.needs,
        importable=None if neighbour is None else _importable(missing, neighbour),
        warnings=tuple(warning for place in found for warning in _warnings(place.dataset, found[place])),
    )


def cache_stats(root: Path) -> CacheStats:
    """How much room every task takes."""
    models = {}
    for key, task in catalogue.TASKS.items():
        sizes_bytes = [size for place in places_of(task, root) for size in place.sizes_bytes()]
        models[key] = {"size_mb": _megabytes(sum(sizes_bytes)), "file_count": len(sizes_bytes)}
    total_mb = round(sum(model["size_mb"] for model in models.values()), 1)
    count = sum(int(model["file_count"]) for model in models.values())
    return CacheStats(str(root), total_mb, count, models)


def digest_warnings(dataset: Dataset, sha256: str | None) -> Sequence[ResultWarning]:
    """What is to be said of a dataset that came from a zip with this digest."""
    if None in {sha256, dataset.zip_sha256} or sha256 == dataset.zip_sha256:
        return ()
    return (ResultWarning("unexpected_digest", f"{dataset.folder} came from a zip with an unknown SHA-256."),)


def _warnings(dataset: Dataset, found: DatasetCondition) -> Iterator[ResultWarning]:
    if found.manifest is not None:
        yield from digest_warnings(dataset, found.manifest.zip_sha256)
    for name in found.damaged_files:
        yield ResultWarning("damaged_file", f"{dataset.folder}/{name} is missing or not what was installed.")


def _importable(missing: Collection[Installation], neighbour: Path) -> str | None:
    return str(neighbour) if any(place.is_whole_in(neighbour) for place in missing) else None


def _megabytes(size_bytes: int) -> float:
    return round(size_bytes / 1e6, 1)


def _with_tilde(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)
