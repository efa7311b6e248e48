"""What passes through the pipe between the server and its worker process; knows what is asked, not how it is done."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from openscans.errors import OpenScansError
from openscans.jobs.fingerprint import Fingerprint
from openscans.progress import Forecast
from openscans.types import DetectionTask, TrainedModel, UidLocation


@dataclass(frozen=True)
class OpenRequest:
    """Which modality the image at ``path`` has; its headers are kept for the detection that follows."""

    path: Path
    series_uid: str | None


@dataclass(frozen=True)
class UnpackRequest:
    """To unpack the zip at ``path`` into ``folder``, unless that was done, and to tell what is to be read there."""

    path: Path
    folder: Path


@dataclass(frozen=True)
class WarmUp:
    """To build the pipeline and do nothing with it yet."""


@dataclass(frozen=True)
class LoadRequest:
    """To load the networks of ``models`` for what ``device`` names, before any image is there."""

    models: tuple[TrainedModel, ...]
    device: str


@dataclass(frozen=True)
class LookRequest:
    """Whether the path ``text`` may be read under ``roots`` (`readable_path`), and which image lies there."""

    text: str
    roots: tuple[Path, ...]
    series_uid: str | None


@dataclass(frozen=True)
class Located:
    """The path, its links followed, and what its files alone tell of the image; None where they do not."""

    path: Path
    fingerprint: Fingerprint | None


@dataclass(frozen=True)
class ZipRequest:
    """Whether the file at ``path`` is a zip."""

    path: Path


@dataclass(frozen=True)
class UnchangedRequest:
    """Whether the image is still the one that ``fingerprint`` tells."""

    fingerprint: Fingerprint


@dataclass(frozen=True)
class UidsRequest:
    """What stands in the image's files at ``locations``."""

    locations: tuple[UidLocation, ...]


PipelineRequest: TypeAlias = OpenRequest | DetectionTask | LoadRequest | UnpackRequest | WarmUp
"""What the one pipeline does, or what is done in its thread, one after another."""

FileRequest: TypeAlias = LookRequest | UnchangedRequest | UidsRequest | ZipRequest
"""What files tell without a pipeline; nobody waits for it behind a detection, or behind another's disk that hangs."""

Request: TypeAlias = PipelineRequest | FileRequest


@dataclass(frozen=True)
class Call:
    number: int
    request: Request


@dataclass(frozen=True)
class Stop:
    """Nobody wants the answer to the call of this number any more."""

    number: int


@dataclass(frozen=True)
class Ready:
    """The pipeline is built."""


@dataclass(frozen=True)
class Progress:
    number: int
    stage: str
    done: int
    total: int
    forecast: Forecast | None = None


@dataclass(frozen=True)
class Reply:
    """``number`` is the call's."""

    number: int
    value: object


@dataclass(frozen=True)
class Failure:
    number: int
    error: OpenScansError


Message: TypeAlias = Progress | Reply | Failure
"""What comes back for a call: any number of the first, then one of the others."""
