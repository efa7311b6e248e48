"""One running download as a long task: all who ask look at the same object, and a slow reader delays nobody.

Knows how far each dataset is; nothing of URLs, zips, or where weights are put.

Rules for threads. The work runs in a thread of its own, which alone reports, warns and counts; who cancels ends the
task for everybody at once, and that thread hears of it at its next report. The rest are `progress.LongTask`'s.
"""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from openscans.errors import Busy, Cancelled, OpenScansError
from openscans.progress import LongTask
from openscans.types import LAST_STATUSES, DownloadStatus, ResultWarning
from openscans.weights.catalogue import Dataset

SPANS = {"downloading": (0.0, 0.95), "verifying": (0.95, 0.97), "extracting": (0.97, 1.0)}
"""Which part of a dataset's share each stage fills: unpacking takes seconds, a download minutes."""

TELL_EVERY_S = 0.2
"""Five times a second moves a bar well enough; chunks arrive a thousand times as often."""

SPEED_WINDOW_S = 5.0
"""Long enough to smooth bursts, short enough to show that a line has become slow."""

PROGRESS_DIGITS = 4

log = logging.getLogger("openscans.models")


@dataclass(frozen=True)
class DownloadSnapshot:
    """A download as it stands. ``downloaded_mb`` and ``total_mb`` are over all of its files."""

    status: DownloadStatus = "starting"
    progress: float = 0.0
    downloaded_mb: float | None = None
    total_mb: float | None = None
    file: str | None = None
    speed_mb_s: float | None = None
    eta_s: float | None = None
    failure: OpenScansError | None = None
    warnings: tuple[ResultWarning, ...] = ()

    @property
    def over(self) -> bool:
        return self.status in LAST_STATUSES

    @property
    def error(self) -> str | None:
        return None if self.failure is None else self.failure.message

    @property
    def code(self) -> str | None:
        return None if self.failure is None else self.failure.code

    @property
    def hint(self) -> str | None:
        return None if self.failure is None else self.failure.hint


class Speedometer:
    """Bytes per second over the last few seconds, of those that came; not of what was here before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.came_bytes = 0
        self._marks: deque[tuple[float, int]] = deque()

    def start(self) -> None:
        """From now on."""
        self._marks.clear()

    def count(self, came_bytes: int) -> None:
        self.came_bytes += came_bytes

    def speed(self) -> float | None:
        """None as long as nothing can be said."""
        now_s = self._clock()
        self._marks.append((now_s, self.came_bytes))
        while now_s - self._marks[0][0] > SPEED_WINDOW_S:
            self._marks.popleft()
        since_s, before_bytes = self._marks[0]
        return (self.came_bytes - before_bytes) / (now_s - since_s) if now_s > since_s else None


class DownloadTask(LongTask[DownloadSnapshot]):
    """Brings ``datasets`` by calling ``work(self)``, which reports here."""

    def __init__(self, datasets: Sequence[Dataset], work: Callable[["DownloadTask"], None]) -> None:
        super().__init__(DownloadSnapshot())
        self.id = uuid.uuid4().hex
        self._work = work
        self._expected_bytes = {dataset.folder: dataset.zip_bytes for dataset in datasets}
        self._shares = dict(self._expected_bytes)
        self._done_bytes = dict.fromkeys(self._expected_bytes, 0)
        self._done_shares = dict.fromkeys(self._expected_bytes, 0.0)
        self._to_come = set(self._expected_bytes)
        self._thread = threading.Thread(target=self._run, name="download", daemon=True)
        self._speedometer = Speedometer()
        self._told_s = 0.0

    def start(self) -> None:
        """Raises Busy where the system has no thread left for it; then it is over for all who joined meanwhile."""
        # Nothing is lost when the process ends in the middle, so nobody has to wait for a silent server.
        try:
            self._thread.start()
        except RuntimeError as error:
            failure = Busy("The system has no threads left.")
            self._end(failure)
            raise failure from error

    @property
    def at_work(self) -> bool:
        """Whether its thread still runs, as it does for a moment after a cancel, with the lock of what it works at."""
        return self._thread.is_alive()

    @property
    def has_received(self) -> bool:
        """Whether bytes came, of whichever file: there is a network then."""
        return self._speedometer.came_bytes > 0

    def brings(self, datasets: Iterable[Dataset]) -> bool:
        """Whether one of ``datasets`` is among those that are still to come."""
        return any(dataset.folder in self._to_come for dataset in datasets)

    def cancel(self) -> bool:
        """End it for everybody who waits; the thread notices at its next report. Whether it was still running."""
        self.stop()
        return self._end(Cancelled("The download was cancelled."))

    def report(self, dataset: Dataset, status: DownloadStatus, done: int, total: int) -> None:
        """Tell how far a stage of the dataset is; bytes while it is "downloading". Raises Cancelled."""
        self.raise_if_stopped()
        known = self.snapshot()
        changed = (status, dataset.folder) != (known.status, known.file)
        if changed:
            self._speedometer.start()
        if status == "downloading":
            total = self._count(dataset, done, total, begins=changed)
        begin, end = SPANS[status]
        self._done_shares[dataset.folder] = begin + (end - begin) * (done / total if total else 0.0)
        if changed or time.monotonic() - self._told_s >= TELL_EVERY_S:
            self._tell(status, dataset.folder)

    def _count(self, dataset: Dataset, done_bytes: int, total_bytes: int, *, begins: bool) -> int:
        """Remember a file's bytes; how many it will have, by the catalogue where the server does not tell."""
        before_bytes = self._done_bytes[dataset.folder]
        if not begins:
            self._speedometer.count(max(done_bytes - before_bytes, 0))
        self._done_bytes[dataset.folder] = done_bytes
        self._expected_bytes[dataset.folder] = total_bytes or max(done_bytes, dataset.zip_bytes)
        return self._expected_bytes[dataset.folder]

    def warn(self, warning: ResultWarning) -> None:
        """Tell everybody something that does not stop the download, once; it stays to the last state."""
        self.update(warnings=tuple(dict.fromkeys((*self.snapshot().warnings, warning))))

    def finish(self, dataset: Dataset) -> None:
        """The dataset is in its place, whoever brought it."""
        self._to_come.discard(dataset.folder)
        self._done_shares[dataset.folder] = 1.0
        self._done_bytes[dataset.folder] = self._expected_bytes[dataset.folder]

    def _tell(self, status: DownloadStatus, file: str) -> None:
        self._told_s = time.monotonic()
        done_bytes, total_bytes = sum(self._done_bytes.values()), sum(self._expected_bytes.values())
        speed = self._speedometer.speed() if status == "downloading" else None
        known = self.snapshot()
        # A file that has to be begun anew is not counted back before the eyes of who watches.
        downloaded_mb = max(known.downloaded_mb or 0.0, round(done_bytes / 1e6, 1))
        self.update(
            status=status,
            progress=max(known.progress, round(self._progress(), PROGRESS_DIGITS)),
            downloaded_mb=downloaded_mb,
            total_mb=max(downloaded_mb, round(total_bytes / 1e6, 1)),
            file=file,
            speed_mb_s=None if speed is None else round(speed / 1e6, 2),
            eta_s=round((total_bytes - done_bytes) / speed, 1) if speed else None,
        )

    def _progress(self) -> float:
        done = sum(share * self._done_shares[folder] for folder, share in self._shares.items())
        return done / sum(self._shares.values())

    def _run(self) -> None:
        failure: OpenScansError | None = OpenScansError("The download failed for a reason that was not foreseen.")
        try:
            self._work(self)
            failure = None
        except OpenScansError as error:
            log.info("a download ended: %s", error.message)
            failure = error
        finally:
            self._end(failure)

    def _end(self, failure: OpenScansError | None) -> bool:
        """Tell the last state. Whether it was the first to be told so."""
        if failure is None:
            return self.update(status="complete", progress=1.0, speed_mb_s=None, eta_s=None)
        status: DownloadStatus = "cancelled" if isinstance(failure, Cancelled) else "error"
        return self.update(status=status, failure=failure, speed_mb_s=None, eta_s=None)
