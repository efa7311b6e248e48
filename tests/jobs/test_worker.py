"""The worker process: questions, crashes, cancelling, idling, and the death of either side, with real processes."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from openscans.errors import Cancelled, InputNotFound, OpenScansError, OutOfMemory, TooFewSlices, WorkerCrashed
from openscans.jobs.child import CANCEL_S, MOST_LEFT
from openscans.jobs.fingerprint import LARGEST_WHOLE_BYTES, Fingerprint, Listing
from openscans.jobs.worker import Worker
from openscans.jobs.worker_messages import LookRequest
from openscans.jobs.worker_process import LogPlan
from openscans.progress import Forecast, StageReport
from openscans.types import TrainedModel, UidLocation
from tests import pipelines
from tests.live_server import eventually, is_running

ROOT = Path(__file__).resolve().parents[2]

MakeWorker = Callable[..., Worker]

HANG_S = 3.0
"""Long enough for what a busy machine does between two words."""


def look(path: Path) -> LookRequest:
    return LookRequest(str(path), (), None)


def nobody(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
    """A report that nobody listens to."""


def stopped_when(wanted: Callable[[str, int], bool]) -> StageReport:
    def report(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        if wanted(stage, done):
            raise Cancelled

    return report


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[MakeWorker]:
    made = []

    def make(
        pipeline: Callable[[], object] = pipelines.make, *, keep_warm_s: float | None = None, hang_s: float = 60
    ) -> Worker:
        log_plan = LogPlan(tmp_path / "logs")
        made.append(Worker(pipeline, keep_warm_s=keep_warm_s, hang_s=hang_s, log_plan=log_plan))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def test_a_detection_runs_in_another_process_that_stays_for_the_next(make_worker: MakeWorker) -> None:
    worker = make_worker()
    first = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    second = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    assert first == second != os.getpid()


def test_the_modality_is_asked_in_the_same_way(make_worker: MakeWorker) -> None:
    assert make_worker().open(Path("/images/a"), "MR", nobody) == "MR"


def test_a_large_folder_is_no_hang(make_worker: MakeWorker) -> None:
    assert make_worker(hang_s=1).open(Path("/images/folder"), None, nobody) == "CT"


def test_while_a_large_folder_is_looked_at_the_call_can_be_cancelled(make_worker: MakeWorker) -> None:
    worker = make_worker()
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    heard = itertools.count()
    with pytest.raises(Cancelled):
        worker.open(Path("/images/folder"), None, stopped_when(lambda stage, done: next(heard) > 3))
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) == before


def test_what_files_tell_is_answered_while_a_detection_runs(make_worker: MakeWorker, tmp_path: Path) -> None:
    (tmp_path / "image.nii").write_bytes(b"an image")
    worker = make_worker()
    begun, told = threading.Event(), threading.Event()

    def go_on_until_told(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        begun.set()
        if told.is_set():
            raise Cancelled

    with ThreadPoolExecutor(1) as other:
        detecting = other.submit(worker.detect, pipelines.task("long"), go_on_until_told)
        assert begun.wait(10)
        found = worker.look(look(tmp_path / "image.nii"), nobody).fingerprint
        assert found is not None
        assert worker.is_unchanged(found, nobody)
        assert worker.read_uids((UidLocation(found.files[0], 3, 5),), nobody) == ("image",)
        assert not detecting.done()
        told.set()
        assert isinstance(detecting.exception(10), Cancelled)


def test_what_files_tell_needs_no_pipeline(make_worker: MakeWorker, tmp_path: Path) -> None:
    worker = make_worker(pipelines.make_nothing)
    with pytest.raises(InputNotFound):
        worker.look(look(tmp_path / "nothing"), nobody)
    assert worker.state == "cold"


def test_a_look_at_a_large_file_ends_when_nobody_wants_it_and_the_process_stays(
    make_worker: MakeWorker, tmp_path: Path
) -> None:
    vast = tmp_path / "vast.nii"
    vast.touch()
    os.truncate(vast, LARGEST_WHOLE_BYTES)
    worker = make_worker()
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    heard = itertools.count()
    began_s = time.monotonic()
    with pytest.raises(Cancelled):
        worker.look(look(vast), stopped_when(lambda stage, done: next(heard) > 3))
    assert time.monotonic() - began_s < 2
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) == before


@pytest.fixture
def over_a_bad_disk(make_worker: MakeWorker, tmp_path: Path) -> Worker:
    """A worker whose pipeline is built, and files that it has trouble with."""
    for name in ("fine", "memory", "hang"):
        (tmp_path / f"{name}.nii").write_bytes(b"an image")
    worker = make_worker(pipelines.make_over_a_bad_disk)
    worker.open(Path("/images/a"), None, nobody)
    return worker


def test_a_look_that_lacks_memory_ends_no_detection(over_a_bad_disk: Worker, tmp_path: Path) -> None:
    before = pipelines.process_of(over_a_bad_disk.detect(pipelines.task(), nobody))
    with pytest.raises(OutOfMemory):
        over_a_bad_disk.look(look(tmp_path / "memory.nii"), nobody)
    assert pipelines.process_of(over_a_bad_disk.detect(pipelines.task(), nobody)) == before


def leave_a_look(worker: Worker, file: Path) -> None:
    with pytest.raises(Cancelled):
        worker.look(look(file), stopped_when(lambda stage, done: True))


def test_who_leaves_a_disk_that_hangs_leaves_at_once_and_alone(over_a_bad_disk: Worker, tmp_path: Path) -> None:
    before = pipelines.process_of(over_a_bad_disk.detect(pipelines.task(), nobody))
    began_s = time.monotonic()
    leave_a_look(over_a_bad_disk, tmp_path / "hang.nii")
    assert time.monotonic() - began_s < CANCEL_S / 2
    assert over_a_bad_disk.look(look(tmp_path / "fine.nii"), nobody).fingerprint is not None
    assert pipelines.process_of(over_a_bad_disk.detect(pipelines.task(), nobody)) == before


def test_a_process_with_too_many_looks_on_a_disk_that_hangs_is_replaced(
    over_a_bad_disk: Worker, tmp_path: Path
) -> None:
    before = pipelines.process_of(over_a_bad_disk.detect(pipelines.task(), nobody))
    for _ in range(MOST_LEFT + 1):
        leave_a_look(over_a_bad_disk, tmp_path / "hang.nii")
    assert pipelines.process_of(over_a_bad_disk.detect(pipelines.task(), nobody)) != before
    assert eventually(lambda: not is_running(before))


def test_a_process_that_can_start_no_thread_says_so_and_goes_on(make_worker: MakeWorker, tmp_path: Path) -> None:
    worker = make_worker(pipelines.make_without_threads)
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    with pytest.raises(OutOfMemory):
        worker.look(look(tmp_path), nobody)
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) == before


def test_a_process_that_reads_nothing_holds_nobody_longer_than_one_that_hangs(make_worker: MakeWorker) -> None:
    worker = make_worker(hang_s=1)
    process = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    os.kill(process, signal.SIGSTOP)
    files = tuple(f"/images/{number:0200}.dcm" for number in range(10_000))
    vast = Fingerprint("0" * 64, files, Listing(Path("/images"), deep=True, stats=()))
    with pytest.raises(WorkerCrashed):
        worker.is_unchanged(vast, nobody)
    assert eventually(lambda: not is_running(process))


def test_progress_comes_out_in_order_with_every_patch(make_worker: MakeWorker) -> None:
    heard = []
    make_worker().detect(pipelines.task(), lambda *units: heard.append(units))
    patches = [done for stage, done, *_ in heard if stage == "segmenting"]
    assert sorted(set(patches)) == list(range(pipelines.PATCHES + 1))
    assert patches == sorted(patches)
    assert heard[-1] == ("measuring", 1, 1, None)


def test_state_goes_from_cold_through_loading_and_busy_to_ready(make_worker: MakeWorker, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    worker = make_worker(partial(pipelines.make_when_told, sign))
    states = [worker.state]

    def watch(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
        states.append(worker.state)
        sign.touch()

    worker.detect(pipelines.task(), watch)
    states.append(worker.state)
    assert [state for before, state in zip([None, *states], states, strict=False) if state != before] == [
        "cold",
        "loading",
        "busy",
        "ready",
    ]


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [
        ("bad", TooFewSlices, "too_few_slices"),
        ("bug", OpenScansError, "internal_error"),
    ],
)
def test_an_error_in_the_child_comes_out_as_itself_and_the_child_goes_on(
    make_worker: MakeWorker, name: str, error: type[OpenScansError], code: str
) -> None:
    worker = make_worker()
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    with pytest.raises(error) as caught:
        worker.detect(pipelines.task(name), nobody)
    assert caught.value.code == code
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) == before


@pytest.mark.parametrize("name", ["memory", "library"])
def test_a_child_whose_memory_did_not_suffice_gives_it_back(make_worker: MakeWorker, name: str) -> None:
    worker = make_worker()
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    with pytest.raises(OutOfMemory):
        worker.detect(pipelines.task(name), nobody)
    assert not is_running(before)
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) != before


def test_a_bug_is_logged_with_its_line_but_without_its_message(make_worker: MakeWorker, tmp_path: Path) -> None:
    with pytest.raises(OpenScansError):
        make_worker().detect(pipelines.task("bug"), nobody)
    written = (tmp_path / "logs" / "worker.log").read_text()
    assert "ZeroDivisionError" in written
    assert "have_a_bug" in written
    assert pipelines.PATIENT not in written


def test_a_pipeline_that_cannot_be_built_is_an_error_and_not_a_crash(make_worker: MakeWorker) -> None:
    with pytest.raises(OpenScansError) as caught:
        make_worker(pipelines.make_nothing).detect(pipelines.task(), nobody)
    assert caught.value.code == "internal_error"


def test_a_crash_fails_that_detection_alone(make_worker: MakeWorker) -> None:
    worker = make_worker()
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    with pytest.raises(WorkerCrashed):
        worker.detect(pipelines.task("die"), nobody)
    assert worker.state == "failed"
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) != before
    assert worker.state == "ready"


def test_children_that_died_leave_no_descriptors_though_their_errors_are_remembered(make_worker: MakeWorker) -> None:
    worker = make_worker(pipelines.make)
    worker.detect(pipelines.task(), nobody)
    before = psutil.Process().num_fds()
    remembered = []
    for _ in range(3):
        with pytest.raises(WorkerCrashed) as caught:
            worker.detect(pipelines.task("die"), nobody)
        remembered.append(caught.value)
        worker.detect(pipelines.task(), nobody)
    assert len(remembered) == 3
    # Fewer where something that other tests left was collected meanwhile.
    assert psutil.Process().num_fds() <= before


def test_a_worker_killed_while_it_idles_is_replaced_without_an_error(make_worker: MakeWorker) -> None:
    worker = make_worker()
    pid = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: worker.state == "failed", within_s=2)
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) != pid


def test_a_killed_process_that_is_not_gone_yet_is_asked_nothing_more(make_worker: MakeWorker) -> None:
    worker = make_worker(hang_s=3)
    pid = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    # As a process looks whose disk hangs: killed, and still there.
    with stopped_from_dying(worker), pytest.raises(WorkerCrashed, match="no progress"):
        worker.detect(pipelines.task("hang"), nobody)
    assert is_running(pid)
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) != pid
    os.kill(pid, signal.SIGKILL)


@contextmanager
def stopped_from_dying(worker: Worker) -> Iterator[None]:
    assert worker._child is not None
    process = worker._child._process
    kill, process.kill = process.kill, lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        process.kill = kill  # type: ignore[method-assign]


def test_a_worker_that_idles_not_at_all_is_kept_from_the_modality_to_the_detection(make_worker: MakeWorker) -> None:
    worker = make_worker(keep_warm_s=0)
    worker.open(pipelines.task().path, None, nobody)
    before = {child.pid for child in psutil.Process().children()}
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) in before
    assert eventually(lambda: worker.state == "cold")


def test_cancelling_ends_the_call_and_keeps_the_process(make_worker: MakeWorker) -> None:
    worker = make_worker()
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    with pytest.raises(Cancelled):
        worker.detect(pipelines.task("long"), stopped_when(lambda stage, done: stage == "segmenting" and done > 3))
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) == before


def test_a_call_that_does_not_react_to_cancelling_is_killed(make_worker: MakeWorker) -> None:
    worker = make_worker()
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    began_s = time.monotonic()
    with pytest.raises(Cancelled):
        worker.detect(pipelines.task("hang"), stopped_when(lambda stage, _: stage == "segmenting"))
    assert 4 < time.monotonic() - began_s < 7
    assert not is_running(before)
    assert worker.state == "cold"


def test_a_call_that_says_nothing_for_too_long_is_a_crash_and_the_child_is_ended(make_worker: MakeWorker) -> None:
    worker = make_worker(hang_s=1)
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    with pytest.raises(WorkerCrashed, match="no progress for 1 s"):
        worker.detect(pipelines.task("hang"), nobody)
    assert not is_running(before)
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) != before


def started(worker: Worker) -> Worker:
    """``worker``, once its process is up, which on a busy machine takes longer than some call a hang."""
    worker.warm_up()
    assert eventually(lambda: worker.state == "ready", within_s=30)
    return worker


def test_a_call_that_said_how_long_its_units_take_has_ten_times_that(make_worker: MakeWorker) -> None:
    heard = []
    started(make_worker(hang_s=1)).detect(pipelines.task("patient"), lambda *units: heard.append(units))
    assert ("segmenting", 0, 2, Forecast(unit_s=0.3, later_s=0.0)) in heard
    assert heard[-1][:3] == ("measuring", 1, 1)


def test_a_call_that_said_how_long_its_units_take_is_ended_when_it_hangs_all_the_same(make_worker: MakeWorker) -> None:
    with pytest.raises(WorkerCrashed, match="no progress for 2 s"):
        started(make_worker(hang_s=1)).detect(pipelines.task("promise"), nobody)


def test_a_slow_call_that_goes_on_is_no_hang(make_worker: MakeWorker) -> None:
    began_s = time.monotonic()
    make_worker(hang_s=1).detect(pipelines.task("slow"), nobody)
    assert time.monotonic() - began_s > 1.5


def test_warmed_up_it_is_ready_before_anybody_asks(make_worker: MakeWorker) -> None:
    worker = make_worker()
    worker.warm_up()
    assert eventually(lambda: worker.state == "ready", within_s=10)
    [child] = multiprocessing.active_children()
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) == child.pid


def test_what_went_wrong_in_warming_up_is_told_to_who_asks_first(make_worker: MakeWorker) -> None:
    worker = make_worker(pipelines.make_nothing)
    worker.warm_up()
    with pytest.raises(OpenScansError) as caught:
        worker.detect(pipelines.task(), nobody)
    assert caught.value.code == "internal_error"


def network(dataset: str = "Dataset298") -> TrainedModel:
    return TrainedModel(dataset, Path("/weights"), "0" * 64, spacing_mm=6, step=0.8)


def test_networks_that_find_no_room_early_leave_the_child_as_it_was(make_worker: MakeWorker) -> None:
    worker = make_worker()
    before = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    with pytest.raises(OutOfMemory):
        worker.load((network("full"),), "cpu")
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) == before


def test_it_is_not_ready_before_its_networks_are_loaded(make_worker: MakeWorker, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    worker = make_worker(partial(pipelines.make_to_load_when_told, sign))
    loading = threading.Thread(target=worker.load, args=((network(),), "cpu"))
    loading.start()
    assert eventually(lambda: sign.with_suffix(".asked").exists(), within_s=10)
    assert worker.state == "loading"
    sign.touch()
    loading.join()
    assert worker.state == "ready"


def test_networks_that_wait_for_a_long_detection_are_no_hang(make_worker: MakeWorker) -> None:
    worker = make_worker(hang_s=HANG_S)
    pid = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    under_way = threading.Event()

    def go_on_longer_than_a_hang(_stage: str, _done: int, _total: int, _forecast: Forecast | None = None, /) -> None:
        under_way.set()
        if time.monotonic() > ends_s:
            raise Cancelled

    ends_s = time.monotonic() + 1.5 * HANG_S
    with ThreadPoolExecutor(1) as pool:
        detecting = pool.submit(worker.detect, pipelines.task("long"), go_on_longer_than_a_hang)
        assert under_way.wait(HANG_S)
        worker.load((network(),), "cpu")
        with pytest.raises(Cancelled):
            detecting.result()
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) == pid


def test_a_detection_that_waits_for_networks_is_cancelled_at_once(make_worker: MakeWorker, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    worker = make_worker(partial(pipelines.make_to_load_when_told, sign))
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(worker.load, (network(),), "cpu")
        assert eventually(lambda: sign.with_suffix(".asked").exists(), within_s=10)
        with pytest.raises(Cancelled):
            worker.detect(pipelines.task(), stopped_when(lambda _stage, _done: True))
        # The process goes on with what others wait for.
        sign.touch()
        loading.result()
    assert worker.state == "ready"


def test_warmed_up_for_nothing_it_gives_its_memory_back(make_worker: MakeWorker) -> None:
    worker = make_worker(keep_warm_s=0.2)
    worker.warm_up()
    assert worker.state == "loading"
    assert eventually(lambda: worker.state == "cold", within_s=3)


def test_an_idle_worker_gives_its_memory_back_and_the_next_call_starts_another(make_worker: MakeWorker) -> None:
    worker = make_worker(keep_warm_s=0.2)
    first = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    assert eventually(lambda: worker.state == "cold" and not is_running(first), within_s=3)
    assert pipelines.process_of(worker.detect(pipelines.task(), nobody)) != first


def test_closing_ends_a_call_that_runs_and_leaves_no_process(make_worker: MakeWorker) -> None:
    worker = make_worker()
    pid = pipelines.process_of(worker.detect(pipelines.task(), nobody))
    begun = threading.Event()
    ended = []

    def ask() -> None:
        try:
            worker.detect(pipelines.task("hang"), lambda stage, *_: begun.set() if stage == "segmenting" else None)
        except WorkerCrashed as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert begun.wait(5)
    worker.close()
    asking.join(3)
    assert len(ended) == 1
    assert not is_running(pid)
    with pytest.raises(Cancelled):
        worker.detect(pipelines.task(), nobody)


def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from tests import pipelines\n"
        "from openscans.jobs.worker import Worker\n"
        "from openscans.jobs.worker_process import LogPlan\n"
        "if __name__ == '__main__':\n"
        f"    worker = Worker(pipelines.make, keep_warm_s=None, hang_s=60, log_plan=LogPlan(Path({str(tmp_path)!r})))\n"
        "    pid = pipelines.process_of(worker.detect(pipelines.task(), lambda *_: None))\n"
        "    print(pid, flush=True)\n"
        "    worker.detect(pipelines.task('hang'), lambda stage, *_: print(stage, flush=True))\n"
    )
    path = tmp_path / "owner.py"
    path.write_text(script)
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        while owner.stdout.readline().strip() != "segmenting":
            continue
        owner.kill()
        assert eventually(lambda: not is_running(pid), within_s=2)


def test_no_child_of_these_tests_is_left() -> None:
    assert multiprocessing.active_children() == []
