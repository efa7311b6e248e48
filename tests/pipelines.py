"""Small pipelines for the worker, each of which does one thing that a real one may do. Named after the image's file.

They live in a module because the worker process imports them.
"""

import os
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from openscans.errors import OutOfMemory, TooFewSlices
from openscans.jobs import worker_process
from openscans.jobs.fingerprint import Fingerprint, FingerprintCache
from openscans.jobs.result_cache import ResultCache
from openscans.progress import Forecast, Report, StageReport
from openscans.types import Detection, DetectionTask, ImageFacts, Point, TrainedModel, ValueRange, Voxel
from tests.sample_vertebra import SAMPLE

NO_RESULTS = ResultCache(Path(os.devnull), settings=(), most=0)
"""Keeps nothing, so that every request is worked for."""

PATCHES = 20
LONG_S = 60.0
FILES_OF_A_LARGE_FOLDER = 180
PATIENT = "Doe^John"


class Scripted:
    """Answers every image with one vertebra, or misbehaves as the image's file name says."""

    def open(self, path: Path, series_uid: str | None, report: StageReport) -> str | None:
        files = FILES_OF_A_LARGE_FOLDER if path.name == "folder" else 1
        for _ in range(files):
            report("reading", 0, files)
            time.sleep(0.01 if files > 1 else 0)
        return series_uid or "CT"

    def detect(self, task: DetectionTask, report: StageReport) -> Detection:
        report("reading", 1, 1)
        act = ACTS.get(task.path.name.split("-")[0])
        if act is not None:
            act(report)
        for done in range(PATCHES + 1):
            report("segmenting", done, PATCHES)
        report("measuring", 1, 1)
        return detection_of(task)

    def load(self, models: tuple[TrainedModel, ...], device: str) -> None:
        act = LOADS.get(models[0].dataset)
        if act is not None:
            act()


def make() -> Scripted:
    return Scripted()


def make_when_told(sign: Path) -> Scripted:
    """Loads until ``sign`` is a file, however fast the machine is."""
    while not sign.exists():
        time.sleep(0.01)
    return Scripted()


@dataclass
class LoadingWhenTold(Scripted):
    """Loads networks until ``sign`` is a file, and tells by another beside it that it has begun."""

    sign: Path

    def load(self, models: tuple[TrainedModel, ...], device: str) -> None:
        self.sign.with_suffix(".asked").touch()
        while not self.sign.exists():
            time.sleep(0.01)


def make_to_load_when_told(sign: Path) -> Scripted:
    return LoadingWhenTold(sign)


def make_over_a_bad_disk() -> Scripted:
    """In its process a look at a file named "hang…" never ends, and one at "memory…" finds no memory."""
    take_fingerprint = worker_process.take_fingerprint

    def take(
        path: Path, series_uid: str | None, report: Report, cache: FingerprintCache, *, look_beside: bool
    ) -> Fingerprint | None:
        if path.name.startswith("hang"):
            time.sleep(LONG_S)
        if path.name.startswith("memory"):
            raise MemoryError
        return take_fingerprint(path, series_uid, report, cache, look_beside=look_beside)

    worker_process.take_fingerprint = take  # type: ignore[assignment]
    return Scripted()


def make_without_threads() -> Scripted:
    """In its process no further thread can be started."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threading.Thread.start = start  # type: ignore[method-assign]
    return Scripted()


def make_nothing() -> Scripted:
    raise ImportError("a library is missing")


def die(report: StageReport) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_out_of_memory(report: StageReport) -> None:
    raise MemoryError


def run_out_of_memory_in_a_library(report: StageReport) -> None:
    raise RuntimeError("Exception from cpu_memory.cpp:257: Failed to allocate 95551488 bytes of memory")


def meet_a_bad_file(report: StageReport) -> None:
    raise TooFewSlices("Found one slice.")


def have_a_bug(report: StageReport) -> None:
    raise ZeroDivisionError(PATIENT)


def go_on(report: StageReport) -> None:
    """Works until it is stopped, one patch after another."""
    end_s = time.monotonic() + LONG_S
    done = 0
    while time.monotonic() < end_s:
        done += 1
        report("segmenting", done, 10_000)
        time.sleep(0.01)


def go_slowly(report: StageReport) -> None:
    """Works longer than some call a hang, but every now and then a patch is done."""
    for done in range(6):
        report("segmenting", done, 6)
        time.sleep(0.3)


def go_as_slowly_as_said(report: StageReport) -> None:
    """Two patches that each take longer than some call a hang, and several times what was said."""
    for done in range(3):
        report("segmenting", done, 2, Forecast(unit_s=0.3, later_s=0.0))
        if done < 2:
            time.sleep(1.6)


def hang_after_a_promise(report: StageReport) -> None:
    """Says how long a patch takes, and never ends one."""
    report("segmenting", 1, 100, Forecast(unit_s=0.2, later_s=0.0))
    time.sleep(LONG_S)


def take_minutes(report: StageReport) -> None:
    """Says, before a patch is computed, that all of them take long, and works until it is stopped."""
    report("reading", 0, 10, Forecast(later_s=600.0))
    end_s = time.monotonic() + LONG_S
    while time.monotonic() < end_s:
        report("localising", 0, 10, Forecast(unit_s=30.0, later_s=300.0))
        time.sleep(0.01)


def seem_slow(report: StageReport) -> None:
    """Ends at once what was to take ten minutes."""
    report("localising", 0, 1, Forecast(unit_s=300.0, later_s=300.0))


def hang(report: StageReport) -> None:
    """Works without a word, like a network whose one patch never ends."""
    report("segmenting", 1, 100)
    time.sleep(LONG_S)


def refuse_to_load() -> None:
    raise OutOfMemory("There is not enough memory.")


LOADS = {"full": refuse_to_load}
"""What loading does where the first of its models is named so; all others are loaded."""

ACTS = {
    "die": die,
    "memory": run_out_of_memory,
    "library": run_out_of_memory_in_a_library,
    "bad": meet_a_bad_file,
    "bug": have_a_bug,
    "long": go_on,
    "hang": hang,
    "minutes": take_minutes,
    "patient": go_as_slowly_as_said,
    "promise": hang_after_a_promise,
    "seemingly": seem_slow,
    "slow": go_slowly,
}


IMAGE = ImageFacts(
    modality="CT",
    size=Voxel(10, 10, 10),
    spacing_mm=Point(0.8, 0.8, 1.0),
    series_instance_uid=None,
    study_instance_uid=None,
    frame_of_reference_uid=None,
    values=ValueRange(-1000.0, 1500.0, "HU"),
)


def task(name: str = "fine") -> DetectionTask:
    model = TrainedModel("Dataset292_small", Path("/weights"), "0" * 64, spacing_mm=1.5, step=0.8)
    return DetectionTask(Path("/images") / name, "vertebrae", model, None)


def detection_of(task: DetectionTask) -> Detection:
    vertebra = replace(SAMPLE, center=Point(float(number_of(task.path)), 4.0, float(os.getpid())))
    return Detection((vertebra,), IMAGE, task, "cpu", "float32", "2026-01-02T03:04:05+00:00", timings_ms={"read": 1})


def number_of(path: Path) -> int:
    """The number behind the dash of an image's name, 3 where there is none: what its answer says is its own."""
    return int(path.name.partition("-")[2] or 3)


def process_of(detection: Detection) -> int:
    """The process that made ``detection``: `detection_of` writes its id where a centre's z would be."""
    return int(detection.vertebrae[0].center.z)
