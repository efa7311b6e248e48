"""The JSON of requests, answers and events, exactly as the HTTP contract has it.

Knows the findings that are shown; nothing of disk, numpy, or what is inside a job.
"""

import os
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from openscans.system import devices
from openscans.types import Detection, DetectionTask

LONGEST_PATH = 32_767
"""Characters; Windows' limit, the largest of any system."""


ABSOLUTE_PATH = r"^/[^\x00]*$" if os.name == "posix" else r"^([A-Za-z]:)?[\\/][^\x00]*$"
WITHOUT_NUL = r"^[^\x00]*$"
"""For the API's description alone; refusals of a pattern would quote it to a person."""


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    return text


def _known_device(text: str) -> str:
    if not devices.WISH.fullmatch(text):
        raise ValueError("must be auto, cpu, cuda, cuda:N or mps")
    return text


def _rounded(digits: int) -> PlainSerializer:
    return PlainSerializer(lambda number: round(number, digits), return_type=float)


FilePath = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_PATH, json_schema_extra={"pattern": ABSOLUTE_PATH}),
    AfterValidator(_without_nul),
]
Device = Annotated[
    str, Field(json_schema_extra={"pattern": f"^({devices.WISH.pattern})$"}), AfterValidator(_known_device)
]
Uid = Annotated[str, Field(max_length=256, json_schema_extra={"pattern": WITHOUT_NUL}), AfterValidator(_without_nul)]
Coordinate = Annotated[float, _rounded(3)]
Share = Annotated[float, _rounded(4)]


class DetectBody(BaseModel):
    """What a detection is asked for with; keys that are not known are ignored."""

    file_path: FilePath
    fast_mode: bool = False
    device: Device | None = None
    series_uid: Uid | None = None
    model: Annotated[str, Field(max_length=64)] | None = None
    use_cache: bool = True


class ImportBody(BaseModel):
    """Weights that came by other means: a zip, or a folder of TotalSegmentator's results."""

    file_path: FilePath


class Answer(BaseModel):
    """Built from the dataclass that holds the same fields."""

    model_config = ConfigDict(from_attributes=True)


class PointAnswer(Answer):
    x: Coordinate
    y: Coordinate
    z: Coordinate


class VoxelAnswer(Answer):
    x: int
    y: int
    z: int


class SpacingAnswer(Answer):
    x: float
    y: float
    z: float


class BoundsAnswer(Answer):
    min: VoxelAnswer
    max: VoxelAnswer


class SliceAnswer(Answer):
    sop_instance_uid: str
    instance_number: int | None
    x: int
    y: int


class VertebraAnswer(Answer):
    label: str
    center: PointAnswer
    confidence: Share
    bounds: BoundsAnswer
    center_mm: PointAnswer
    volume_ml: Coordinate
    truncated: bool
    slice: SliceAnswer | None = None

    @model_serializer(mode="wrap")
    def _without_empty_slice(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # An image that is no DICOM has no instances; then the key is absent rather than null.
        keys: dict[str, Any] = serialise(self)
        return keys if self.slice is not None else {key: value for key, value in keys.items() if key != "slice"}


class WarningAnswer(Answer):
    code: str
    message: str


class ImageAnswer(Answer):
    modality: str | None
    size: VoxelAnswer
    spacing_mm: SpacingAnswer
    series_instance_uid: str | None


class ModelAnswer(Answer):
    """The networks that found the vertebrae: the one that labels first, then the one that localises."""

    task: str
    datasets: list[str]
    weights_sha256: list[str]

    @classmethod
    def of(cls, order: DetectionTask) -> "ModelAnswer":
        return cls(
            task=order.task,
            datasets=[network.dataset for network in order.networks],
            weights_sha256=[network.sha256 for network in order.networks],
        )


class DetectionAnswer(BaseModel):
    """All vertebrae of one image, from head to foot."""

    success: Literal[True] = True
    vertebrae: list[VertebraAnswer]
    processing_time_ms: int
    device: str
    fast_mode: bool
    cached: bool
    job_id: str
    warnings: list[WarningAnswer]
    image: ImageAnswer
    model: ModelAnswer
    timings_ms: dict[str, int]

    @classmethod
    def of(cls, detection: Detection, *, job_id: str, processing_time_ms: int) -> "DetectionAnswer":
        return cls(
            # Said, though it is the default: events and jobs leave out what was never set.
            success=True,
            vertebrae=[VertebraAnswer.model_validate(vertebra) for vertebra in detection.vertebrae],
            processing_time_ms=processing_time_ms,
            device=detection.device,
            fast_mode=detection.order.fast_mode,
            cached=detection.cached,
            job_id=job_id,
            warnings=[WarningAnswer.model_validate(warning) for warning in detection.warnings],
            image=ImageAnswer.model_validate(detection.image),
            model=ModelAnswer.of(detection.order),
            timings_ms=dict(detection.timings_ms),
        )


class ErrorAnswer(BaseModel):
    """Any answer but 2xx. ``detail`` is the same sentence as ``error``, for clients that look there."""

    success: Literal[False] = False
    error: str
    detail: str
    code: str
    hint: str


class JobCounts(BaseModel):
    running: int
    queued: int


class HealthAnswer(BaseModel):
    status: Literal["healthy"] = "healthy"
    message: str = "OpenScans AI Backend is running"
    version: str
    device: str
    cuda_available: bool
    python_version: str
    instance_id: str
    pid: int
    uptime_s: float
    worker: str
    jobs: JobCounts


class JobAnswer(BaseModel):
    """A detection as it stands; ``result`` and ``error`` where it has come to one."""

    job_id: str
    status: str
    progress: float
    eta_s: float | None
    elapsed_ms: int
    result: DetectionAnswer | None = None
    error: str | None = None
    code: str | None = None
    hint: str | None = None


class JobsAnswer(BaseModel):
    jobs: list[JobAnswer]


class IndexAnswer(BaseModel):
    """What `GET /` shows: method and path of every address, and what it does."""

    name: str
    version: str
    addresses: dict[str, str]


class ModelStatusAnswer(Answer):
    """What is on disk of one task's models, or what a download would bring."""

    downloaded: bool
    size_mb: float
    path: str
    task: str
    name: str
    description: str
    state: str
    cache_path: str
    structures: list[str]
    needs: list[str]
    importable: str | None
    warnings: list[WarningAnswer]


class CacheStatsAnswer(Answer):
    cache_directory: str
    total_size_mb: float
    file_count: int
    models: dict[str, Any]


class SuccessAnswer(BaseModel):
    success: bool
    message: str


class DeletedAnswer(SuccessAnswer):
    freed_space_mb: float


class DownloadEvent(Answer):
    """One state of a download; what does not apply to it is absent."""

    status: str
    progress: float
    downloaded_mb: float | None = None
    total_mb: float | None = None
    file: str | None = None
    speed_mb_s: float | None = None
    eta_s: float | None = None
    error: str | None = None
    code: str | None = None
    hint: str | None = None
    warnings: list[WarningAnswer] = []
