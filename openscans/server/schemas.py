"""The JSON of requests, answers and events, exactly as the HTTP contract has it, and how the API describes it.

What a detection found, and what is on disk of the models, is told as its dataclass holds and describes it. Here stands
only what has another form on the wire. Knows nothing of disk, numpy, or what is inside a job.
"""

import os
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Annotated, Literal, TypeVar, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from openscans import errors
from openscans.server.unknown_keys import RequestBody
from openscans.system import devices
from openscans.types import (
    Decimals,
    Detection,
    DetectionTask,
    DownloadStatus,
    ImageFacts,
    JobStatus,
    Precision,
    ResultWarning,
    RunningNetwork,
    Vertebra,
    WorkerState,
)
from openscans.weights.catalogue import TASKS

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
        raise ValueError(f"must be {devices.WISHES}")
    return text


FilePath = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_PATH, json_schema_extra={"pattern": ABSOLUTE_PATH}),
    AfterValidator(_without_nul),
]
Device = Annotated[
    str, Field(json_schema_extra={"pattern": f"^({devices.WISH.pattern})$"}), AfterValidator(_known_device)
]
Uid = Annotated[str, Field(max_length=256, json_schema_extra={"pattern": WITHOUT_NUL}), AfterValidator(_without_nul)]
KnownTask = Annotated[str, Field(json_schema_extra={"enum": list(TASKS)})]
"""For the API's description alone: what it does not name is an unknown task, rather than an invalid request."""

ErrorCode = Annotated[
    str, Field(json_schema_extra={"enum": sorted({kind.code for kind in errors.kinds_of(errors.OpenScansError)})})
]

FailedOrAbsent = Annotated[
    Literal[False] | None, Field(description="False where it ended with an error; absent without one.")
]
Detail = Annotated[str | None, Field(description="The same as ``error``, for clients that look here.")]

Holder = TypeVar("Holder")


def round_numbers(found: Holder, decimals: int | None = None) -> Holder:
    """``found``, a dataclass, with every number rounded as the `Decimals` of its field say, or of one that holds it."""
    kind: type = type(found)
    own = _decimals_of(kind)
    parts = {part.name: getattr(found, part.name) for part in fields(found)}  # type: ignore[arg-type]
    rounded = {name: _round(part, own.get(name, decimals)) for name, part in parts.items()}
    return replace(found, **rounded)  # type: ignore[type-var]


def _round(value: object, decimals: int | None) -> object:
    if is_dataclass(value):
        return round_numbers(value, decimals)
    if isinstance(value, tuple):
        return tuple(_round(part, decimals) for part in value)
    return round(value, decimals) if isinstance(value, float) and decimals is not None else value


@cache
def _decimals_of(kind: type) -> dict[str, int]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: mark.count
        for name, hint in hints.items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Decimals)
    }


class DetectBody(RequestBody):
    """What a detection is asked for with; keys that are not known are ignored, and told by a warning."""

    file_path: FilePath = Field(
        description="Absolute path of a DICOM file, of a folder with one or more series, of a DICOMDIR, of a NIfTI"
        " file, or of a zip of one study."
    )
    fast_mode: bool = Field(default=False, description="Use the model at 3 mm: sooner, and less exact.")
    device: Device | None = Field(default=None, description=f"{devices.WISHES}; null is the server's setting.")
    series_uid: Uid | None = Field(
        default=None,
        description="SeriesInstanceUID of the series to read. Null: the given file's, or a folder's largest.",
    )
    model: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The task whose model is used; null is chosen by the image's modality."
    )
    use_cache: bool = Field(default=True, description="Whether what was found in the same image before may be told.")


class ImportBody(RequestBody):
    """Weights that came by other means: a zip, or a folder of TotalSegmentator's results."""

    file_path: FilePath = Field(description="Absolute path of the zip or folder; it stays as it is.")


class ModelAnswer(BaseModel):
    """The networks that found the vertebrae: the one that labels first, then the one that localises."""

    task: str = Field(description="The task whose model it is.")
    datasets: list[str] = Field(description="The folder's name of each network's weights.")
    weights_sha256: list[str] = Field(description="A digest over each network's weights.")

    @classmethod
    def of(cls, task: DetectionTask) -> "ModelAnswer":
        return cls(
            task=task.key,
            datasets=[network.dataset for network in task.networks],
            weights_sha256=[network.sha256 for network in task.networks],
        )


class DetectionAnswer(BaseModel):
    """All vertebrae of one image, from head to foot."""

    # What the dataclasses hold is looked at again, so that a whole number is told as the fraction that was promised.
    model_config = ConfigDict(revalidate_instances="always")

    success: Literal[True] = Field(default=True, description="Also where nothing was found.")
    vertebrae: list[Vertebra] = Field(description="From head to foot; empty where none was found.")
    processing_time_ms: int = Field(description="From the detection's start to its end, without waiting in the queue.")
    detected_at: str = Field(description="When it was found: UTC, ISO 8601.")
    device: str = Field(description="Where the networks ran.")
    precision: Precision = Field(description="In what numbers the network that labels computed.")
    fast_mode: bool = Field(description="As it was asked for.")
    cached: bool = Field(description="Whether it was found some earlier time.")
    job_id: str = Field(description="The detection's job, for /api/jobs.")
    warnings: list[ResultWarning] = Field(description="What the reader should know of this result.")
    image: ImageFacts = Field(description="What was read.")
    model: ModelAnswer = Field(description="The networks that were used.")
    timings_ms: dict[str, int] = Field(description="How long each stage took, by its name.")

    @classmethod
    def of(cls, detection: Detection, *, job_id: str, processing_time_ms: int) -> "DetectionAnswer":
        return cls(
            # Said, though it is the default: events and jobs leave out what was never set.
            success=True,
            vertebrae=[round_numbers(vertebra) for vertebra in detection.vertebrae],
            processing_time_ms=processing_time_ms,
            detected_at=detection.detected_at,
            device=detection.device,
            precision=detection.precision,
            fast_mode=detection.task.fast_mode,
            cached=detection.cached,
            job_id=job_id,
            warnings=list(detection.warnings),
            image=detection.image,
            model=ModelAnswer.of(detection.task),
            timings_ms=dict(detection.timings_ms),
        )


class ErrorAnswer(BaseModel):
    """Any answer but 2xx."""

    success: Literal[False] = Field(default=False, description="Never true of an error.")
    error: str = Field(description="A sentence for a person.")
    detail: str = Field(description="The same sentence, for clients that look here.")
    code: ErrorCode = Field(description="What it is about; stable.")
    hint: str = Field(description="What to do about it.")


class JobCounts(BaseModel):
    """How many detections are under way."""

    running: int = Field(description="Detections that have begun.")
    queued: int = Field(description="Detections that wait.")


class HealthAnswer(BaseModel):
    """That the server is up, and what it is doing."""

    status: Literal["healthy"] = Field(default="healthy", description="It answers, so it is.")
    message: str = Field(default="OpenScans AI Backend is running", description="A sentence for a person.")
    version: str = Field(description="Of this server.")
    device: str = Field(description="Where networks run unless a request names another: cpu, cuda or mps.")
    cuda_available: bool = Field(description="Whether CUDA can be used here.")
    python_version: str = Field(description="Of the interpreter that runs it.")
    instance_id: str = Field(description="Another after every start.")
    pid: int = Field(description="The server's process.")
    uptime_s: float = Field(description="Seconds since its start.")
    worker: WorkerState = Field(description="The process that runs the networks; cold: it is started when needed.")
    jobs: JobCounts = Field(description="How many detections run and wait.")
    engine: list[RunningNetwork] = Field(description="How the networks of the last detection ran; none before one.")


class JobAnswer(BaseModel):
    """A detection as it stands; ``result`` and ``error`` where it has come to one."""

    job_id: str = Field(description="Its id, for /api/jobs.")
    status: JobStatus = Field(description="Waiting, at one of its stages, or ended in one of the three last ways.")
    progress: float = Field(description="The share that is done, from 0 to 1; it never falls.")
    eta_s: float | None = Field(description="Seconds that it will still take, about; null where nothing can be said.")
    elapsed_ms: int = Field(description="Since its start, without waiting in the queue.")
    warnings: list[ResultWarning] = Field(
        default=[], description="What is known before there is a result; absent where nothing is."
    )
    result: DetectionAnswer | None = Field(default=None, description="What was found; absent until it is complete.")
    success: FailedOrAbsent = None
    error: str | None = Field(default=None, description="Why it ended, for a person; absent without an error.")
    detail: Detail = None
    code: ErrorCode | None = Field(default=None, description="What the error is about; absent without one.")
    hint: str | None = Field(default=None, description="What to do about the error; absent without one.")


class JobsAnswer(BaseModel):
    """All detections that are remembered."""

    jobs: list[JobAnswer] = Field(description="Oldest first, without their results.")


class IndexAnswer(BaseModel):
    """What `GET /` shows."""

    name: str = Field(description="Of this service.")
    version: str = Field(description="Of this server.")
    addresses: dict[str, str] = Field(description="What each address does, by its method and path.")


class SuccessAnswer(BaseModel):
    """Whether anything was there to be done."""

    success: bool = Field(description="Whether anything was done.")
    message: str = Field(description="What was done, for a person.")
    error: str | None = Field(default=None, description="Why nothing was done; absent where something was.")
    detail: Detail = None
    code: ErrorCode | None = Field(default=None, description="Why, as a stable word; absent where something was done.")
    hint: str | None = Field(default=None, description="What to do about it; absent where something was done.")


class DeletedAnswer(SuccessAnswer):
    """Whether anything was there to be removed."""

    freed_space_mb: float = Field(description="Megabytes (10⁶ bytes) that are free now.")


class DownloadEvent(BaseModel):
    """One state of a download; what does not apply to it is absent."""

    model_config = ConfigDict(from_attributes=True)

    status: DownloadStatus = Field(description="At one of its stages, or ended in one of the three last ways.")
    progress: float = Field(description="The share that is done, from 0 to 1; it never falls.")
    downloaded_mb: float | None = Field(default=None, description="Megabytes (10⁶ bytes) that are here.")
    total_mb: float | None = Field(default=None, description="Megabytes (10⁶ bytes) of all files together.")
    file: str | None = Field(default=None, description="The folder that the file in hand becomes.")
    speed_mb_s: float | None = Field(default=None, description="Megabytes (10⁶ bytes) a second, of late.")
    eta_s: float | None = Field(default=None, description="Seconds that the bytes will still take, about.")
    success: FailedOrAbsent = None
    error: str | None = Field(default=None, description="Why it ended, for a person.")
    detail: Detail = None
    code: ErrorCode | None = Field(default=None, description="What the error is about.")
    hint: str | None = Field(default=None, description="What to do about the error.")
    warnings: list[ResultWarning] = Field(default=[], description="What should be known of what came.")
