"""What is asked of a detection and what it answers, in plain numbers and words.

These cross from the worker process to the server, so nothing here needs numpy, and nothing here knows JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HEAD_TO_FOOT = (
    *(f"C{number}" for number in range(1, 8)),
    *(f"T{number}" for number in range(1, 14)),
    *(f"L{number}" for number in range(1, 7)),
    "S1",
)
"""Every vertebra that is labelled, in anatomical order."""


@dataclass(frozen=True)
class ResultWarning:
    """Something the reader of a result should know; ``code`` is stable, ``message`` is for a person."""

    code: str
    message: str


@dataclass(frozen=True)
class Point:
    """A position. Its frame (image, volume, model grid, or LPS millimetres) is named by the field that holds it."""

    x: float
    y: float
    z: float


@dataclass(frozen=True)
class Voxel:
    """A whole voxel's index, or a size in voxels."""

    x: int
    y: int
    z: int


@dataclass(frozen=True)
class Bounds:
    """Inclusive box of whole voxels."""

    min: Voxel
    max: Voxel


@dataclass(frozen=True)
class SlicePixel:
    """The DICOM instance nearest to a point, and the point's pixel (column x, row y) on it."""

    sop_instance_uid: str
    instance_number: int | None
    x: int
    y: int


@dataclass(frozen=True)
class Vertebra:
    """One labelled vertebra, in the voxel grid of the image as the client sees it."""

    label: str
    center: Point
    center_mm: Point
    bounds: Bounds
    confidence: float
    volume_ml: float
    truncated: bool
    slice: SlicePixel | None = None


@dataclass(frozen=True)
class ImageFacts:
    """The image that was read. ``modality`` is None where the format does not tell (NIfTI)."""

    modality: str | None
    size: Voxel
    spacing_mm: Point
    series_instance_uid: str | None


@dataclass(frozen=True)
class TrainedModel:
    """One network's weights on disk: ``folder`` holds plans.json, dataset.json and fold_0/checkpoint_final.pth.

    ``sha256`` is one digest over all three. ``spacing_mm`` is the distance between samples, along every axis, that its
    plans.json must name. ``step`` is the sliding window's step as a share of the patch.
    """

    dataset: str
    folder: Path
    sha256: str
    spacing_mm: float
    step: float


@dataclass(frozen=True)
class DetectionTask:
    """One detection that somebody asked for, with the weights it needs.

    ``localiser`` finds the spine in the whole image first; None lets ``segmenter`` see the whole image.
    """

    path: Path
    task: str
    segmenter: TrainedModel
    localiser: TrainedModel | None
    series_uid: str | None = None
    fast_mode: bool = False
    device: str = "auto"

    @property
    def networks(self) -> tuple[TrainedModel, ...]:
        """The one that labels, then the one that localises."""
        return (self.segmenter,) if self.localiser is None else (self.segmenter, self.localiser)


@dataclass(frozen=True)
class InferenceOptions:
    """How networks are run: CPU threads (None: all physical cores), "auto" (bfloat16 where the processor has it)
    or "float32", the folder for compiled networks, and which patches: those along the "spine" or "exact", all that
    nnU-Net computes."""

    threads: int | None
    precision: str
    cache_folder: Path
    tiles: str = "spine"


@dataclass(frozen=True)
class Detection:
    """The answer to an `DetectionTask`; ``cached`` if it was found some earlier time."""

    vertebrae: tuple[Vertebra, ...]
    image: ImageFacts
    order: DetectionTask
    device: str
    warnings: tuple[ResultWarning, ...] = ()
    timings_ms: Mapping[str, int] = field(default_factory=dict)
    cached: bool = False
