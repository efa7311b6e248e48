"""The queue: one at a time, shared by equal requests, cancelled, refused when full; and how progress adds up."""

import gc
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from openscans.errors import Busy, Cancelled, InputNotFound, OpenScansError, TooFewSlices, UnknownJob
from openscans.jobs.job import Job, JobSnapshot, Look, ProgressTracker
from openscans.jobs.queue import JOBS_REMEMBERED, JobQueue
from openscans.progress import Forecast, StageReport
from openscans.types import ResultWarning, WarningCode

WEIGHTS = {"downloading": 4.0, "reading": 1.0, "segmenting": 3.0}
SLOW = ResultWarning(WarningCode.SLOW_DETECTION, "It takes long.")
SOON_S = 5.0


@dataclass
class Workshop:
    """Performs requests, which are names; those that begin with "wait" go on until `open` or cancelled."""

    open: threading.Event = field(default_factory=threading.Event)
    begun: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    known: dict[str, str] = field(default_factory=dict)
    image: Hashable | None = "an image"
    looks: list[str] = field(default_factory=list)
    looking: threading.Event = field(default_factory=threading.Event)

    def look(self, request: str, report: StageReport) -> Look[str, str]:
        """Requests that begin with "stuck" are looked at until `open` or cancelled, with "deaf" until `open`."""
        self.looks.append(request)
        if request.startswith("deaf"):
            self.looking.set()
            self.open.wait(SOON_S)
        while request.startswith("stuck") and not self.open.wait(0.005):
            report("reading", 0, 1)
        if request.startswith("refused"):
            raise InputNotFound("There is nothing.")
        return Look(request.strip(), self.image, self.known.get(request))

    def perform(self, look: Look[str, str], report: StageReport) -> str:
        request = look.request
        self.begun.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            report("reading", 1, 1)
            while request.startswith("wait") and not self.open.wait(0.005):
                report("segmenting", 1, 2)
            if request.startswith("bad"):
                raise TooFewSlices("Found one slice.")
            if request.startswith("bug"):
                raise ZeroDivisionError("Doe^John")
            return request.upper()
        finally:
            self.at_once -= 1


def until(job: Job[str, str], wanted: Callable[[JobSnapshot[str]], bool]) -> JobSnapshot[str]:
    """The first snapshot of ``job`` that is ``wanted``, awaited as a reader does it."""
    changed = threading.Event()
    with job.subscribe(changed.set):
        while not wanted(snapshot := job.snapshot()):
            assert changed.wait(SOON_S), snapshot
            changed.clear()
    return snapshot


def end_of(job: Job[str, str]) -> JobSnapshot[str]:
    return until(job, lambda snapshot: snapshot.over)


def placed(job: Job[str, str]) -> Job[str, str]:
    """``job``, once its image was looked at."""
    until(job, lambda snapshot: snapshot.placed or snapshot.over)
    return job


def running(job: Job[str, str]) -> JobSnapshot[str]:
    return until(job, lambda snapshot: snapshot.placed and snapshot.status != "queued")


@pytest.fixture
def workshop() -> Workshop:
    return Workshop()


@pytest.fixture
def jobs(workshop: Workshop) -> Iterator[JobQueue[str, str]]:
    made = JobQueue(workshop, weights=WEIGHTS, most_waiting=2)
    yield made
    made.close()


def test_a_job_ends_complete_with_its_result(jobs: JobQueue[str, str]) -> None:
    snapshot = end_of(jobs.submit("a"))
    assert (snapshot.status, snapshot.progress, snapshot.result, snapshot.error) == ("complete", 1.0, "A", None)


def test_an_error_of_ours_is_the_jobs_error(jobs: JobQueue[str, str]) -> None:
    snapshot = end_of(jobs.submit("bad"))
    assert snapshot.status == "error"
    assert isinstance(snapshot.error, TooFewSlices)


def test_any_other_error_becomes_a_general_one_and_the_next_job_runs(jobs: JobQueue[str, str]) -> None:
    snapshot = end_of(jobs.submit("bug"))
    assert type(snapshot.error) is OpenScansError
    assert "Doe" not in snapshot.error.message
    assert end_of(jobs.submit("b")).result == "B"


def test_only_one_job_runs_at_a_time_in_the_order_of_asking(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    asked = [placed(jobs.submit(name)) for name in ("wait a", "b", "c")]
    running(asked[0])
    assert jobs.counts() == {"running": 1, "queued": 2}
    workshop.open.set()
    assert [end_of(job).status for job in asked] == ["complete"] * 3
    assert workshop.begun == ["wait a", "b", "c"]
    assert workshop.most_at_once == 1


def test_beyond_the_queue_the_answer_is_busy(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    running(jobs.submit("wait a"))
    waiting = [placed(jobs.submit(name)) for name in ("b", "c")]
    refused = jobs.submit("d")
    assert isinstance(end_of(refused).error, Busy)
    with pytest.raises(UnknownJob):
        jobs.get(refused.id)
    workshop.open.set()
    assert [end_of(job).result for job in waiting] == ["B", "C"]
    assert end_of(jobs.submit("d")).result == "D"


def test_equal_requests_share_one_job_even_when_the_queue_is_full(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    first = placed(jobs.submit("wait a"))
    for name in ("b", "c"):
        placed(jobs.submit(name))
    second = placed(jobs.submit("wait a"))
    assert second.snapshot().job_id == first.id
    assert jobs.get(second.id) is first
    assert len(jobs.snapshots()) == 3
    workshop.open.set()
    assert end_of(second) == end_of(first)
    assert workshop.begun.count("wait a") == 1


def test_who_asks_after_the_image_was_replaced_does_not_share(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    first = placed(jobs.submit("wait"))
    workshop.image = "another image"
    second = placed(jobs.submit("wait"))
    workshop.open.set()
    assert end_of(second).job_id != end_of(first).job_id
    assert workshop.begun == ["wait", "wait"]


def test_two_spellings_of_one_request_share_a_job(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    first, second = placed(jobs.submit("wait")), placed(jobs.submit("wait  "))
    workshop.open.set()
    assert end_of(second).job_id == end_of(first).job_id
    assert workshop.begun == ["wait"]


def test_what_is_refused_at_the_first_look_never_was_a_job(jobs: JobQueue[str, str]) -> None:
    refused = jobs.submit("refused")
    assert isinstance(end_of(refused).error, InputNotFound)
    assert not refused.snapshot().placed
    assert jobs.snapshots() == []
    with pytest.raises(UnknownJob):
        jobs.get(refused.id)


def test_where_nothing_tells_which_image_it_is_nobody_shares(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    workshop.image = None
    asked = [placed(jobs.submit("wait")) for _ in range(2)]
    workshop.open.set()
    assert len({end_of(job).job_id for job in asked}) == 2


def test_what_is_known_is_answered_while_the_line_is_full(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    workshop.known["d"] = "D of old"
    for name in ("wait a", "b", "c"):
        placed(jobs.submit(name))
    known = jobs.submit("d")
    assert end_of(known).result == "D of old"
    assert jobs.get(known.id) is known
    assert "d" not in workshop.begun


def test_an_image_that_takes_long_to_look_at_keeps_nobody_waiting(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    stuck = [jobs.submit(f"stuck {number}") for number in range(5)]
    assert end_of(jobs.submit("a")).result == "A"
    for job in stuck:
        until(job, lambda snapshot: snapshot.status == "reading")
    assert jobs.counts() == {"running": 5, "queued": 0}
    jobs.cancel(stuck[0].id)
    assert end_of(stuck[0]).status == "cancelled"
    jobs.release(stuck[1])
    assert end_of(stuck[1]).status == "cancelled"
    workshop.open.set()
    assert end_of(stuck[2]).result == "STUCK 2"


def test_a_job_that_follows_is_cancelled_with_the_one_that_it_follows(jobs: JobQueue[str, str]) -> None:
    first = placed(jobs.submit("wait"))
    second = placed(jobs.submit("wait"))
    jobs.cancel(second.id)
    assert end_of(first).status == end_of(second).status == "cancelled"


def test_a_request_after_the_end_of_an_equal_one_runs_again(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    end_of(jobs.submit("a"))
    end_of(jobs.submit("a"))
    assert workshop.begun == ["a", "a"]


def test_cancelling_a_running_job_stops_it(jobs: JobQueue[str, str]) -> None:
    job = jobs.submit("wait a")
    running(job)
    jobs.cancel(job.id)
    snapshot = end_of(job)
    assert snapshot.status == "cancelled"
    assert isinstance(snapshot.error, Cancelled)


def test_cancelling_a_waiting_job_ends_it_at_once_and_frees_its_place(
    jobs: JobQueue[str, str], workshop: Workshop
) -> None:
    running(jobs.submit("wait a"))
    waiting = [placed(jobs.submit(name)) for name in ("b", "c")]
    jobs.cancel(waiting[0].id)
    assert waiting[0].snapshot().status == "cancelled"
    late = placed(jobs.submit("d"))
    workshop.open.set()
    assert end_of(late).result == "D"
    assert workshop.begun == ["wait a", "c", "d"]


def test_cancelling_a_job_that_is_over_changes_nothing(jobs: JobQueue[str, str]) -> None:
    job = jobs.submit("a")
    before = end_of(job)
    assert jobs.cancel(job.id).snapshot() == before


def test_the_last_to_leave_cancels_and_nobody_before(jobs: JobQueue[str, str]) -> None:
    job = placed(jobs.submit("wait a"))
    placed(jobs.submit("wait a"))
    running(job)
    jobs.release(job)
    assert not job.stopped
    jobs.release(job)
    assert end_of(job).status == "cancelled"


def test_who_asks_while_the_last_one_leaves_is_not_cancelled(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    with ThreadPoolExecutor(1) as other:
        for _ in range(200):
            first = placed(jobs.submit("wait"))
            leaving = other.submit(jobs.release, first)
            second = placed(jobs.submit("wait"))
            leaving.result()
            assert second.snapshot().status != "cancelled"
            jobs.release(second)
            end_of(first)


def test_who_joined_and_left_is_kept_by_nobody(jobs: JobQueue[str, str]) -> None:
    placed(jobs.submit("wait"))
    second = placed(jobs.submit("wait"))
    jobs.release(second)
    left = weakref.ref(second)
    del second
    gc.collect()
    assert left() is None


def test_of_a_job_that_is_over_what_told_its_image_is_not_kept(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    workshop.image = frozenset(("many", "files"))
    job = jobs.submit("a")
    end_of(job)
    told = weakref.ref(workshop.image)
    workshop.image = None
    end_of(jobs.submit("b"))
    gc.collect()
    assert told() is None


@pytest.mark.parametrize("known", [{}, {"deaf": "D"}], ids=["new", "known"])
def test_a_job_that_was_cancelled_while_its_image_was_looked_at_is_cancelled(
    jobs: JobQueue[str, str], workshop: Workshop, known: dict[str, str]
) -> None:
    workshop.known = known
    job = jobs.submit("deaf")
    assert workshop.looking.wait(SOON_S)
    jobs.cancel(job.id)
    workshop.open.set()
    assert end_of(job).status == "cancelled"


def test_a_request_equal_to_a_job_that_is_being_cancelled_gets_its_own(
    jobs: JobQueue[str, str], workshop: Workshop
) -> None:
    first = jobs.submit("wait a")
    running(first)
    jobs.release(first)
    second = placed(jobs.submit("wait a"))
    workshop.open.set()
    assert second.snapshot().job_id != first.id
    assert end_of(second).result == "WAIT A"


def test_closing_cancels_everything_and_takes_no_more(jobs: JobQueue[str, str]) -> None:
    asked = [placed(jobs.submit(name)) for name in ("wait a", "b")]
    running(asked[0])
    jobs.close()
    assert [end_of(job).status for job in asked] == ["cancelled", "cancelled"]
    with pytest.raises(Busy):
        jobs.submit("c")


def test_a_job_is_found_by_its_id_and_forgotten_after_many_others(jobs: JobQueue[str, str]) -> None:
    first = jobs.submit("a")
    end_of(first)
    assert jobs.get(first.id) is first
    for number in range(JOBS_REMEMBERED):
        end_of(jobs.submit(f"b{number}"))
    with pytest.raises(UnknownJob):
        jobs.get(first.id)
    assert len(jobs.snapshots()) == JOBS_REMEMBERED


def test_twenty_requests_at_once_are_each_answered_or_refused(jobs: JobQueue[str, str], workshop: Workshop) -> None:
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    start = threading.Barrier(20)

    def ask(name: str) -> None:
        start.wait()
        ended = end_of(jobs.submit(name))
        answers.put("busy" if isinstance(ended.error, Busy) else ended.result or "")

    for number in range(20):
        threading.Thread(target=ask, args=(f"wait {number}",)).start()
    assert [answers.get(timeout=SOON_S) for _ in range(17)] == ["busy"] * 17
    workshop.open.set()
    assert {answers.get(timeout=SOON_S) for _ in range(3)} == {name.upper() for name in workshop.begun}


def progress_of(*steps: tuple[str, int, int]) -> list[float]:
    track = ProgressTracker(WEIGHTS)
    return [track.advance(*step)[0] for step in steps]


def test_progress_weighs_the_stages() -> None:
    assert progress_of(("downloading", 1, 2), ("reading", 0, 1), ("segmenting", 1, 3), ("segmenting", 3, 3)) == (
        pytest.approx([0.25, 0.25, 0.5, 1.0])
    )


def test_a_stage_that_is_left_out_leaves_its_share_to_the_others() -> None:
    assert progress_of(("reading", 1, 1), ("segmenting", 1, 3)) == pytest.approx([0.25, 0.5])


def test_progress_never_falls_whatever_is_reported() -> None:
    steps = [
        (stage, done, total)
        for stage in (*WEIGHTS, "unheard of", *WEIGHTS)
        for total in (10, 0, -1, 5)
        for done in (7, 2)
    ]
    progress = progress_of(*steps)
    assert all(before <= after for before, after in itertools.pairwise(progress))
    assert 0 <= progress[0] <= progress[-1] <= 1


def test_the_time_that_remains_follows_the_pace_of_the_stage() -> None:
    track = ProgressTracker({"segmenting": 1.0})
    assert track.advance("segmenting", 0, 4)[1] is None
    time.sleep(0.1)
    # A report that tells nothing new, as one comes while a patch takes long, changes nothing.
    track.advance("segmenting", 0, 4)
    eta_s = track.advance("segmenting", 1, 4)[1]
    assert eta_s == pytest.approx(0.3, rel=0.5)


def test_the_time_that_remains_counts_later_stages_but_not_what_came_before_the_units() -> None:
    track = ProgressTracker(WEIGHTS)
    track.advance("reading", 0, 1)
    time.sleep(0.2)
    track.advance("reading", 0, 10)
    eta_s = track.advance("reading", 5, 10)[1]
    assert eta_s == pytest.approx(WEIGHTS["segmenting"], abs=0.1)


def test_what_the_work_forecasts_is_the_time_that_remains_before_a_unit_is_done() -> None:
    track = ProgressTracker(WEIGHTS)
    assert track.advance("segmenting", 0, 4, Forecast(unit_s=600.0, later_s=30.0))[1] == 2430.0


def test_of_a_stage_whose_pace_nobody_knows_the_usual_time_is_added_to_what_is_forecast_of_the_others() -> None:
    track = ProgressTracker(WEIGHTS)
    assert track.advance("reading", 0, 10, Forecast(later_s=600.0))[1] == 600.0 + WEIGHTS["reading"]


def test_work_that_cannot_say_what_comes_later_leaves_the_time_that_remains_open() -> None:
    track = ProgressTracker(WEIGHTS)
    track.advance("reading", 0, 10, Forecast())
    assert track.advance("reading", 5, 10, Forecast())[1] is None


def test_once_a_unit_is_done_its_pace_takes_the_place_of_the_forecast() -> None:
    track = ProgressTracker(WEIGHTS)
    track.advance("segmenting", 0, 4, Forecast(unit_s=600.0, later_s=30.0))
    eta_s = track.advance("segmenting", 1, 4, Forecast(unit_s=600.0, later_s=30.0))[1]
    assert eta_s == pytest.approx(30.0, abs=5.0)


def test_a_forecast_that_comes_while_nothing_moves_is_told_once() -> None:
    job: Job[str, str] = Job("a", WEIGHTS)
    told: list[JobSnapshot[str]] = []
    with job.subscribe(lambda: told.append(job.snapshot())):
        job.report("reading", 0, 10)
        for _ in range(3):
            job.report("reading", 0, 10, Forecast(later_s=600.0, warnings=(SLOW,)))
    assert [(one.eta_s, one.warnings) for one in told] == [(None, ()), (600.0 + WEIGHTS["reading"], (SLOW,))]


def test_a_warning_stays_through_stages_that_forecast_nothing_and_to_the_end() -> None:
    job: Job[str, str] = Job("a", WEIGHTS)
    job.report("reading", 0, 10, Forecast(later_s=600.0, warnings=(SLOW,)))
    job.report("segmenting", 1, 2)
    assert job.snapshot().warnings == (SLOW,)
    job.finish("found", None)
    assert job.snapshot().warnings == (SLOW,)
