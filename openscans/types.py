"""What is asked of a detection and what it answers, in plain numbers and words, and the words that have a fixed list.

These cross from the worker process to the server, so nothing here needs numpy, and nothing here knows JSON. Where a
field that a caller sees is defined, it says what it means: the API describes it so, and tells it in the same order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

JobStatus: TypeAlias = Literal[
    "queued",
    "downloading",
    "reading",
    "localising",
    "segmenting",
    "measuring",
    "complete",
    "error",
    "cancelled",
]
"""Of a detection: it waits, one of its stages, or one of the three last."""

DownloadStatus: TypeAlias = Literal[
    "starting", "downloading", "verifying", "extracting", "complete", "error", "cancelled"
]
"""Of a download; one of the last three ends it."""

LAST_STATUSES = frozenset({"complete", "error", "cancelled"})
"""Those that end a detection or a download."""

ModelState: TypeAlias = Literal["absent", "partial", "downloading", "ready", "damaged"]
"""Of a task's models on disk; partial: a download can go on."""

WorkerState: TypeAlias = Literal["cold", "loading", "ready", "busy", "failed"]
"""Of the process that runs the networks; cold: none was started, or it gave its memory back."""


Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "int8"]
"""In what numbers a network computes its convolutions."""


class WarningCode(StrEnum):
    """What a warning is about. A code keeps its meaning for ever; there may be more."""

    COUNT_UNUSUAL = "count_unusual"
    DAMAGED_FILE = "damaged_file"
    DEMONSTRATION_WEIGHTS = "demonstration_weights"
    DEVICE_FALLBACK = "device_fallback"
    FAST_MODE_UNAVAILABLE = "fast_mode_unavailable"
    FEW_SLICES = "few_slices"
    FRAGMENTS_IGNORED = "fragments_ignored"
    GANTRY_TILT_CORRECTED = "gantry_tilt_corrected"
    INT8_REFUSED = "int8_refused"
    LABEL_REPEATED = "label_repeated"
    LABELS_MIXED = "labels_mixed"
    LOCALISED_AGAIN = "localised_again"
    MISSING_SLICES = "missing_slices"
    MODALITY_ASSUMED = "modality_assumed"
    NO_VERTEBRAE = "no_vertebrae"
    NUMBERING_GAP = "numbering_gap"
    NUMBERING_UNCERTAIN = "numbering_uncertain"
    ONE_OF_SEVERAL_VOLUMES = "one_of_several_volumes"
    ORIENTATION_DOUBTFUL = "orientation_doubtful"
    OUT_OF_ORDER = "out_of_order"
    PLACEMENT_UNKNOWN = "placement_unknown"
    SECOND_LOOK_MISSING = "second_look_missing"
    SEQUENCE_DIFFERS = "sequence_differs"
    SERIES_ELSEWHERE = "series_elsewhere"
    SERIES_PASSED_OVER = "series_passed_over"
    SERIES_UID_MISSING = "series_uid_missing"
    SFORM_QFORM_DIFFER = "sform_qform_differ"
    SHEARED_AXES = "sheared_axes"
    SLICES_LEFT_OUT = "slices_left_out"
    SLOW_DETECTION = "slow_detection"
    SLOW_ENGINE = "slow_engine"
    SPACING_JUMP = "spacing_jump"
    TOUCHING_BORDER = "touching_border"
    UNEVEN_SPACING = "uneven_spacing"
    UNEXPECTED_DIGEST = "unexpected_digest"
    UNKNOWN_KEYS = "unknown_keys"
    VALUES_NOT_HU = "values_not_hu"
    VOLUME_UNUSUAL = "volume_unusual"


@dataclass(frozen=True)
class Decimals:
    """How many decimals are told of a number, or of each number of what a field holds; without it, all."""

    count: int


def describe(text: str) -> dict[str, object]:
    """What a field means, as the `metadata` under which libraries that describe classes look for it."""
    return {"description": text}


def is_absent(value: object) -> bool:
    """Whether a key is left out rather than null."""
    return value is None


HEAD_TO_FOOT = (
    *(f"C{number}" for number in range(1, 8)),
    *(f"T{number}" for number in range(1, 14)),
    *(f"L{number}" for number in range(1, 7)),
    "S1",
)
"""Every vertebra that is labelled, in anatomical order."""


@dataclass(frozen=True)
class ResultWarning:
    """Something the reader of a result should know."""

    code: WarningCode = field(metadata=describe("What it is about; stable."))
    message: str = field(metadata=describe("A sentence for a person."))


@dataclass(frozen=True)
class Point:
    """A position. Its frame (image, volume, model grid, or LPS millimetres) is named by the field that holds it."""

    x: float = field(metadata=describe("Across the columns; in patient space towards the left."))
    y: float = field(metadata=describe("Across the rows; in patient space towards the back."))
    z: float = field(metadata=describe("Across the slices; in patient space towards the head."))


@dataclass(frozen=True)
class Voxel:
    """A whole voxel's index, or a size in voxels."""

    x: int = field(metadata=describe("Columns; in a NIfTI file the array's first index."))
    y: int = field(metadata=describe("Rows; in a NIfTI file the array's second index."))
    z: int = field(metadata=describe("Slices; in a NIfTI file the array's third index."))


@dataclass(frozen=True)
class Bounds:
    """Inclusive box of whole voxels."""

    min: Voxel = field(metadata=describe("The first voxel of the box along every axis."))
    max: Voxel = field(metadata=describe("The last voxel of the box along every axis."))


@dataclass(frozen=True)
class UidLocation:
    """Where a UID stands: ``length`` bytes of ``file`` from the byte ``start`` on, ASCII without its padding.

    Counted in what is packed, where the file is. ``entry``: the number of an entry, where the file is a zip.
    """

    file: str
    start: int
    length: int
    entry: int | None = None


@dataclass(frozen=True)
class LocatedUid:
    """A UID, empty where there is none, and where it stands; None where it does not stand there as it is."""

    uid: str = ""
    location: UidLocation | None = None


NO_UID = LocatedUid()


@dataclass(frozen=True)
class SlicePixel:
    """The DICOM instance nearest to a point, and the point's pixel on it."""

    sop_instance_uid: str = field(metadata=describe("The instance's SOPInstanceUID."))
    instance_number: int = field(
        metadata=describe("The instance's InstanceNumber; the slice's index and 1 where it has none.")
    )
    index: int = field(metadata=describe("The slice's index along the normal, from 0: the nearest to the point's z."))
    frame_number: int | None = field(
        metadata=describe("Which frame of the instance it is, from 1; null where the instance has only one.")
    )
    x: int = field(metadata=describe("The pixel's column, from 0."))
    y: int = field(metadata=describe("The pixel's row, from 0."))


@dataclass(frozen=True)
class Body:
    """The middle of a vertebral body, in the same frames as the vertebra's centre."""

    center: Annotated[Point, Decimals(3)] = field(metadata=describe("As an index of voxels."))
    center_mm: Annotated[Point, Decimals(3)] = field(metadata=describe("In DICOM patient space (LPS), millimetres."))
    slice: SlicePixel | None = field(
        default=None,
        metadata=describe("The DICOM instance nearest to it; absent for NIfTI.") | {"exclude_if": is_absent},
    )


@dataclass(frozen=True)
class Alternative:
    """Another level that a bone may be."""

    label: str = field(metadata=describe("The level, as labels are written."))
    probability: Annotated[float, Decimals(4)] = field(
        metadata=describe("Between 0 and 1, beside the same vertebra's level_confidence.")
    )


@dataclass(frozen=True)
class Vertebra:
    """One labelled vertebra, in the voxel grid of the image as the client sees it."""

    label: str = field(metadata=describe("C1…C7, T1…T12, L1…L5, S1; L6 and T13 where a model has them."))
    center: Annotated[Point, Decimals(3)] = field(
        metadata=describe("The centre of mass of the label's largest connected component, as an index of voxels.")
    )
    confidence: Annotated[float, Decimals(4)] = field(
        metadata=describe("Between 0 and 1: the mean probability that the network gave this label over the component.")
    )
    level_confidence: Annotated[float, Decimals(4)] = field(
        metadata=describe(
            "Between 0 and 1: the probability that this level is right, read from the whole spine at once: what the"
            " network gave each level in each bone's core, the order of levels, and the distances between bones."
        )
    )
    alternatives: tuple[Alternative, ...] = field(
        metadata=describe("Other levels for which more than 5 % speak, the likeliest first; mostly none.")
    )
    bounds: Bounds = field(metadata=describe("The component's box."))
    center_mm: Annotated[Point, Decimals(3)] = field(
        metadata=describe("The same centre in DICOM patient space (LPS), millimetres; for NIfTI too.")
    )
    volume_ml: Annotated[float, Decimals(3)] = field(metadata=describe("The component's volume in millilitres."))
    truncated: bool = field(metadata=describe("Whether the component touches the edge of the image."))
    body: Body | None = field(
        metadata=describe("The middle of the vertebral body; null for C1, which has none, and where it cannot be told.")
    )
    slice: SlicePixel | None = field(
        default=None,
        metadata=describe("The DICOM instance nearest to the centre; absent for NIfTI.") | {"exclude_if": is_absent},
    )

    @property
    def marks(self) -> tuple[SlicePixel, ...]:
        """On the image's slices: the centre's, and the body's."""
        both = (self.slice, None if self.body is None else self.body.slice)
        return tuple(mark for mark in both if mark is not None)


@dataclass(frozen=True)
class ValueRange:
    """Of an image's values."""

    min: float = field(metadata=describe("The least."))
    max: float = field(metadata=describe("The most."))
    unit: Literal["HU", "unknown"] = field(metadata=describe("HU where nothing speaks against it."))


@dataclass(frozen=True)
class ImageFacts:
    """The image that was read."""

    modality: str | None = field(metadata=describe("CT or MR; null where the format does not tell (NIfTI)."))
    size: Voxel = field(metadata=describe("Columns, rows and slices."))
    spacing_mm: Point = field(metadata=describe("The distance between neighbouring voxels' centres along every axis."))
    series_instance_uid: str | None = field(
        metadata=describe("The series' SeriesInstanceUID; null for NIfTI, and where each slice has its own.")
    )
    study_instance_uid: str | None = field(metadata=describe("The StudyInstanceUID, null where slices differ in it."))
    frame_of_reference_uid: str | None = field(
        metadata=describe("The FrameOfReferenceUID, null where slices differ in it.")
    )
    values: ValueRange = field(metadata=describe("What the values are."))


@dataclass(frozen=True)
class TrainedModel:
    """One network's weights on disk: ``folder`` holds plans.json, dataset.json and fold_0/checkpoint_final.pth.

    ``sha256`` is one digest over all three. ``spacing_mm`` is the distance between samples, along every axis, that its
    plans.json must name. ``step`` is the sliding window's step as a share of the patch. ``warnings``: what should be
    known of what these weights are and where they came from; of two installations of the same weights it may differ.
    """

    dataset: str
    folder: Path
    sha256: str
    spacing_mm: float
    step: float
    warnings: tuple[ResultWarning, ...] = ()


@dataclass(frozen=True)
class DetectionTask:
    """One detection that somebody asked for, with the weights it needs.

    ``localiser`` finds the spine in the whole image first; None lets ``segmenter`` see the whole image. ``robust``
    looks again where the localiser finds no spine, or too little of it; where it is the segmenter itself, that sees the
    whole image then. It is None where it is not here, for which ``robust_lacks`` has a sentence for a person; of a
    `Detection`, where it did not look.
    ``modality_assumed``: neither the caller nor the image's format said that it is a CT. ``modality``: "CT" or "MR", of
    the images that the networks were trained on.
    """

    path: Path
    key: str
    segmenter: TrainedModel
    localiser: TrainedModel | None
    series_uid: str | None = None
    fast_mode: bool = False
    device: str = "auto"
    modality_assumed: bool = False
    modality: str = "CT"
    robust: TrainedModel | None = None
    robust_lacks: str = "It is not on disk."

    @property
    def networks(self) -> tuple[TrainedModel, ...]:
        """The one that labels, the one that localises, then the one that looks again; each once."""
        every = (self.segmenter, self.localiser, self.robust)
        return tuple(dict.fromkeys(network for network in every if network is not None))

    @property
    def weights_warnings(self) -> tuple[ResultWarning, ...]:
        """What should be known of the weights of its networks, each thing once."""
        return tuple(dict.fromkeys(warning for network in self.networks for warning in network.warnings))


@dataclass(frozen=True)
class RunningNetwork:
    """How one network is run."""

    network: str = field(metadata=describe("The dataset that it was trained on."))
    library: str = field(metadata=describe("What runs it, with its version."))
    device: str = field(metadata=describe("Where: cpu, cuda or mps."))
    precision: Precision = field(metadata=describe("In what numbers it computes."))
    formulation: str = field(
        metadata=describe("volumes: its convolutions are computed as they are; planes: as sums over planes.")
    )
    kernels: Mapping[str, int] = field(
        metadata=describe("The kernels that compute its convolutions, and how many each; empty where nobody tells.")
    )
    slow: bool = field(metadata=describe("Whether any of them is a reference loop, a hundred times slower."))


@dataclass(frozen=True)
class InferenceOptions:
    """How networks are run: CPU threads (None: the cores that the process may use), "auto" (bfloat16 where the
    processor has it), "float32" or "int8" (where it labels as float32 does), the folder for compiled networks, and
    which patches: "spine" (of nnU-Net's those that hold a part of it), "course" (laid along it) or "exact" (all that
    nnU-Net computes). ``look_beside``: whether folders beside a DICOM file's own are looked into for more of its
    series."""

    threads: int | None
    precision: str
    cache_folder: Path
    tiles: str = "spine"
    look_beside: bool = True


@dataclass(frozen=True)
class PackedLabels:
    """The label map of a detection: on its model grid, packed, in plain types. `segmentation.packing` unpacks it.

    ``axes_xyz``: of each axis the volume's axis along which it runs, the first and last of its voxels, and how many
    samples there are. ``names``: label number → vertebra. ``affine_lps`` (rows of 4 × 4) maps a voxel (x, y, z, 1) of
    the volume of ``volume_size`` to millimetres.
    """

    axes_xyz: tuple[tuple[int, int, int, int], ...]
    names: Mapping[int, str]
    volume_size: Voxel
    affine_lps: tuple[tuple[float, ...], ...]
    content: str


@dataclass(frozen=True)
class Detection:
    """The answer to a `DetectionTask`; ``cached`` if it was found some earlier time.

    ``labels`` is the label map that the vertebrae were measured in, None where the localiser found no spine.

    ``uid_locations`` tells where the UIDs that it names, of the series and of the vertebrae's slices, stand in the
    image's files; it lacks those that stand there in another form, as in deflated ones.

    ``networks`` are those that ran, the one that labels last; ``precision`` is that one's. ``detected_at``: when it was
    found, UTC, ISO 8601.
    """

    vertebrae: tuple[Vertebra, ...]
    image: ImageFacts
    task: DetectionTask
    device: str
    precision: Precision
    detected_at: str
    warnings: tuple[ResultWarning, ...] = ()
    networks: tuple[RunningNetwork, ...] = ()
    timings_ms: Mapping[str, int] = field(default_factory=dict)
    uid_locations: Mapping[str, UidLocation] = field(default_factory=dict)
    labels: PackedLabels | None = None
    cached: bool = False
