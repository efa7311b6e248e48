"""What is told of a download is true, never falls, comes at a bearable rate, and ends once."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from openscans.errors import Cancelled, DownloadFailed
from openscans.weights.catalogue import TOTAL_3_MM, TOTAL_6_MM, VERTEBRAE, Dataset
from openscans.weights.download_task import SPEED_WINDOW_S, TELL_EVERY_S, DownloadSnapshot, DownloadTask, Speedometer
from tests.model_homes import followed

ALL = (TOTAL_6_MM, TOTAL_3_MM, VERTEBRAE)
ALL_BYTES = sum(dataset.zip_bytes for dataset in ALL)


def told(*reports: tuple[Dataset, str, int, int]) -> list[DownloadSnapshot]:
    """What stands after each report, when there is time enough between them to tell."""
    states = []

    def work(download: DownloadTask) -> None:
        for report in reports:
            download.report(*report)
            states.append(download.snapshot())
            time.sleep(TELL_EVERY_S)

    download = DownloadTask(ALL, work)
    download.start()
    followed(download)
    return states


def clock(*times_s: float) -> Callable[[], float]:
    return iter(times_s).__next__


def test_progress_is_the_share_of_all_bytes() -> None:
    half = TOTAL_6_MM.zip_bytes // 2
    (state,) = told((TOTAL_6_MM, "downloading", half, TOTAL_6_MM.zip_bytes))
    assert state.progress == pytest.approx(0.95 * half / ALL_BYTES, abs=1e-3)
    assert state.downloaded_mb == pytest.approx(half / 1e6, abs=0.1)
    assert state.total_mb == pytest.approx(ALL_BYTES / 1e6, abs=0.1)


def test_what_was_here_before_is_counted_as_done_and_not_as_speed() -> None:
    kept, total = 100_000_000, TOTAL_6_MM.zip_bytes
    begun, going_on = told(
        (TOTAL_6_MM, "downloading", kept, total), (TOTAL_6_MM, "downloading", kept + 1_000_000, total)
    )
    assert begun.progress == pytest.approx(0.95 * kept / ALL_BYTES, abs=1e-3)
    assert going_on.speed_mb_s is not None
    assert 0 < going_on.speed_mb_s <= 1 / TELL_EVERY_S


def test_a_file_that_is_begun_anew_takes_nothing_back() -> None:
    total = TOTAL_6_MM.zip_bytes
    before, restarted, regained = told(
        (TOTAL_6_MM, "downloading", 100_000_000, total),
        (TOTAL_6_MM, "downloading", 0, total),
        (TOTAL_6_MM, "downloading", 2_000_000, total),
    )
    assert before.progress == restarted.progress == regained.progress
    assert before.downloaded_mb == restarted.downloaded_mb == regained.downloaded_mb
    assert restarted.speed_mb_s == 0
    assert regained.speed_mb_s is not None
    assert regained.speed_mb_s > 0
    assert regained.eta_s is not None
    assert regained.eta_s == pytest.approx((ALL_BYTES - 2_000_000) / 1e6 / regained.speed_mb_s, rel=0.01)


def test_a_file_that_becomes_longer_takes_nothing_back() -> None:
    states = told(
        (TOTAL_6_MM, "downloading", 100_000_000, TOTAL_6_MM.zip_bytes),
        (TOTAL_6_MM, "downloading", 100_000_000, 3 * TOTAL_6_MM.zip_bytes),
        (TOTAL_6_MM, "downloading", 100_000_000, TOTAL_6_MM.zip_bytes // 2),
    )
    assert all(before.progress <= after.progress for before, after in itertools.pairwise(states))
    assert states[1].total_mb == pytest.approx((ALL_BYTES + 2 * TOTAL_6_MM.zip_bytes) / 1e6, abs=0.1)


def test_a_file_of_unknown_length_is_measured_by_the_catalogue() -> None:
    (state,) = told((TOTAL_6_MM, "downloading", TOTAL_6_MM.zip_bytes // 2, 0))
    assert state.progress == pytest.approx(0.95 * TOTAL_6_MM.zip_bytes / 2 / ALL_BYTES, abs=1e-3)
    assert state.total_mb == pytest.approx(ALL_BYTES / 1e6, abs=0.1)


def test_verifying_and_unpacking_move_the_bar_too() -> None:
    reports = [
        ("downloading", 1, 1),
        ("verifying", 0, 1),
        ("verifying", 1, 1),
        ("extracting", 1, 2),
        ("extracting", 1, 1),
    ]
    states = told(*((VERTEBRAE, *report) for report in reports))
    shares = [state.progress * ALL_BYTES / VERTEBRAE.zip_bytes for state in states]
    assert shares == pytest.approx([0.95, 0.95, 0.97, 0.985, 1.0], abs=1e-3)
    assert [state.eta_s for state in states[1:]] == [None] * 4


def test_a_fast_line_is_told_of_five_times_a_second() -> None:
    lasted_s = 3 * TELL_EVERY_S

    def work(download: DownloadTask) -> None:
        end_s = time.monotonic() + lasted_s
        for done in itertools.count(1):
            download.report(TOTAL_6_MM, "downloading", done, TOTAL_6_MM.zip_bytes)
            if time.monotonic() > end_s:
                return

    download = DownloadTask(ALL, work)
    download.start()
    started_s = time.monotonic()
    states = followed(download)
    assert len(states) <= 2 + (time.monotonic() - started_s) / TELL_EVERY_S
    assert [state.over for state in states] == [False] * (len(states) - 1) + [True]


def test_after_the_last_state_there_is_no_other() -> None:
    def work(download: DownloadTask) -> None:
        raise DownloadFailed("Nobody answers.")

    download = DownloadTask(ALL, work)
    download.start()
    assert followed(download)[-1].status == "error"
    assert download.cancel() is False
    assert download.snapshot().error == "Nobody answers."


def test_cancelled_it_is_over_for_everybody_though_the_work_has_not_noticed() -> None:
    noticed, may_go_on = threading.Event(), threading.Event()

    def work(download: DownloadTask) -> None:
        may_go_on.wait(10)
        try:
            download.report(TOTAL_6_MM, "downloading", 1, 2)
        except Cancelled:
            noticed.set()
            raise

    heard: list[str] = []
    download = DownloadTask(ALL, work)
    with download.subscribe(lambda: heard.append(download.snapshot().status)):
        download.start()
        assert download.cancel()
        assert followed(download)[-1].status == "cancelled"
        assert not download.cancel()
        may_go_on.set()
        assert noticed.wait(10)
    assert heard == ["cancelled"]


def test_speed_is_that_of_the_last_seconds() -> None:
    speedometer = Speedometer(clock(0, 1, 2, 2 + SPEED_WINDOW_S, 4 + SPEED_WINDOW_S))
    speedometer.start()
    assert speedometer.speed() is None
    speedometer.count(100)
    assert speedometer.speed() == 100
    speedometer.count(300)
    assert speedometer.speed() == 200
    assert speedometer.speed() == 0
    assert speedometer.speed() == 0
