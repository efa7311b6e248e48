"""One detection that is waited for, as state to read: how far it is, and what came of it.

Knows progress and time; nothing of the line that it waits in, or of what is done.
"""

import time
import uuid
from collections.abc import Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from openscans.errors import Cancelled, OpenScansError
from openscans.progress import Forecast, LongTask
from openscans.types import LAST_STATUSES, JobStatus, ResultWarning

RequestT = TypeVar("RequestT", bound=Hashable)
ResultT = TypeVar("ResultT")

UNFORESEEN = "The detection failed for a reason that was not foreseen."

PROGRESS_DIGITS = 3
"""Changes below a thousandth are not told: a bar has no more pixels, and bytes would come in thousands a second."""


@dataclass(frozen=True)
class JobSnapshot(Generic[ResultT]):
    """A job as it stands. ``status`` is queued, a stage's name, complete, error or cancelled.

    ``placed``: its image was looked at, and it has its place in the line, or has joined another job there.
    ``warnings``: what is known before there is a result.
    """

    job_id: str
    status: JobStatus = "queued"
    progress: float = 0.0
    eta_s: float | None = None
    elapsed_ms: int = 0
    placed: bool = False
    warnings: tuple[ResultWarning, ...] = ()
    result: ResultT | None = None
    error: OpenScansError | None = None

    @property
    def over(self) -> bool:
        return self.status in LAST_STATUSES


@dataclass(frozen=True)
class Look(Generic[RequestT, ResultT]):
    """What a look at a request's image told.

    ``request`` is as clear as the look made it. ``image`` is equal for two looks at the same image, None where nothing
    tells which it is; ``known`` is the answer where that is known.
    """

    request: RequestT
    image: Hashable | None = None
    known: ResultT | None = None


class ProgressTracker:
    """Turns stages and units of work into one share of the whole that never falls.

    ``weights`` are the seconds that each stage takes on a usual machine, in their order. A stage that is left out
    leaves its share to those that come. What the work forecasts itself takes the place of their seconds.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._stage, self._total = "", 0
        self._start = self._span = self._progress = 0.0
        self._since_s = 0.0

    def advance(
        self, stage: str, done: int, total: int, forecast: Forecast | None = None
    ) -> tuple[float, float | None]:
        """The progress of the whole, and the seconds that remain; None where nothing tells them yet.

        Without a ``forecast`` the first unit of a stage tells its pace, and until then there is none.
        """
        now_s = time.monotonic()
        if stage != self._stage:
            self._start, self._span = self._progress, (1 - self._progress) * self._share(stage)
        if (stage, total) != (self._stage, self._total):
            # What came before the units were counted, such as loading, tells nothing of their pace.
            self._stage, self._total, self._since_s = stage, total, now_s
        within = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
        self._progress = max(self._progress, self._start + self._span * within)
        own_s, later_s = self._foreseen(stage, total - done, forecast)
        if within > 0:
            own_s = (now_s - self._since_s) * (1 - within) / within
        return self._progress, None if own_s is None or later_s is None else own_s + later_s

    def _foreseen(self, stage: str, units: int, forecast: Forecast | None) -> tuple[float | None, float | None]:
        """The seconds of so many ``units`` of ``stage`` that are still to do, and of all that follows them."""
        if forecast is None:
            return None, sum(self._later(stage))
        own_s = self._weights.get(stage, 0.0) if forecast.unit_s is None else units * forecast.unit_s
        return own_s, forecast.later_s

    def _share(self, stage: str) -> float:
        if stage not in self._weights:
            return 0.0
        return self._weights[stage] / (self._weights[stage] + sum(self._later(stage)))

    def _later(self, stage: str) -> list[float]:
        """The weights of the stages after ``stage``."""
        stages = list(self._weights)
        return [self._weights[later] for later in stages[stages.index(stage) + 1 :]] if stage in stages else []


class Job(LongTask[JobSnapshot[ResultT]], Generic[RequestT, ResultT]):
    """One detection that somebody, or several, wait for. ``waiting``, how many, is the queue's to change."""

    def __init__(self, request: RequestT, weights: Mapping[str, float]) -> None:
        first: JobSnapshot[ResultT] = JobSnapshot(uuid.uuid4().hex)
        super().__init__(first)
        self.id = first.job_id
        self.look: Look[RequestT, ResultT] = Look(request)
        self.waiting = 1
        self._tracker = ProgressTracker(weights)
        self._began_s: float | None = None
        self._following = ExitStack()

    def begin(self) -> None:
        """The time that it takes counts from now."""
        self._began_s = time.monotonic()

    def report(self, stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        """The `StageReport` that the work is given. Raises Cancelled."""
        self.raise_if_stopped()
        progress, eta_s = self._tracker.advance(stage, done, total, forecast)
        progress = round(progress, PROGRESS_DIGITS)
        known = self.snapshot()
        warnings = known.warnings if forecast is None else forecast.warnings or known.warnings
        first_eta = known.eta_s is None and eta_s is not None
        if first_eta or (stage, progress, warnings) != (known.status, known.progress, known.warnings):
            eta_s = None if eta_s is None else round(eta_s, 1)
            self._tell(status=stage, progress=progress, eta_s=eta_s, warnings=warnings)

    def take_place(self) -> None:
        """Its image was looked at, and it waits in the line."""
        self._began_s = None
        self._tell(status="queued", placed=True)

    def finish(self, result: ResultT | None, error: OpenScansError | None) -> None:
        """Give the job its one last state. What fails after somebody stopped it counts as cancelled."""
        if error is None:
            self._tell(status="complete", progress=1.0, eta_s=0.0, result=result)
        elif self.stopped or isinstance(error, Cancelled):
            self._tell(status="cancelled", eta_s=None, error=Cancelled())
        else:
            self._tell(status="error", eta_s=None, error=error)

    def follow(self, other: "Job[RequestT, ResultT]") -> None:
        """Stand as ``other`` stands from now on, with its id."""

        def copy() -> None:
            self._put(lambda _: other.snapshot())

        self._following.enter_context(other.subscribe(copy))
        self.forget_look()
        copy()

    def follow_no_more(self) -> None:
        """Nobody reads this job any more."""
        self._following.close()

    def forget_look(self) -> None:
        """What told its image: of thousands of files that is megabytes."""
        self.look = Look(self.look.request)

    def _tell(self, **values: object) -> None:
        elapsed_ms = 0 if self._began_s is None else round((time.monotonic() - self._began_s) * 1000)
        self.update(elapsed_ms=elapsed_ms, **values)
