"""A worker on a slow machine finishes, one that hangs is ended: the real pipeline, with patches of known lengths."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from openscans.errors import WorkerCrashed
from openscans.jobs.child import Child
from openscans.jobs.worker_messages import OpenRequest
from openscans.jobs.worker_process import LogPlan
from openscans.progress import Forecast
from openscans.types import Detection, DetectionTask
from phantom.files import write_nifti
from tests import slow_engine, small_networks
from tests.live_server import eventually
from tests.test_inference import model

HANG_S = 3.0
"""Enough for what is done between two patches on a busy machine."""

SLOW_S = 4.0
"""Of a patch: longer than what counts as a hang where nothing is known of the machine."""

LONG_S = 60.0

MakeChild = Callable[..., Child]


def ignore(stage: str, done: int, total: int, forecast: Forecast | None = None, /) -> None:
    """A report that nobody listens to."""


@pytest.fixture
def task(tmp_path: Path) -> DetectionTask:
    """A detection of two patches."""
    spacing_mm = small_networks.MR.spacing_mm
    write_nifti(tmp_path / "image.nii", np.ones((20, 60, 60), np.float32), np.diag([*[spacing_mm] * 3, 1.0]))
    segmenter = model(tmp_path / "results", small_networks.MR)
    return DetectionTask(tmp_path / "image.nii", "vertebrae_mr", segmenter, None, device="cpu")


@pytest.fixture
def make_child(tmp_path: Path, task: DetectionTask) -> Iterator[MakeChild]:
    """A worker that has built its pipeline and opened the image, so that only patches are left to take time."""
    made = []

    def make(*, patch_s: float, sleep_s: float) -> Child:
        make_pipeline = partial(slow_engine.make_pipeline, tmp_path / "compiled", patch_s, sleep_s)
        child = Child(make_pipeline, LogPlan(tmp_path / "logs"))
        made.append(child)
        child.ask(OpenRequest(task.path, None), ignore, hang_s=LONG_S)
        return child

    yield make
    for child in made:
        child.kill()


def test_a_hundredfold_slower_engine_that_was_timed_finishes(make_child: MakeChild, task: DetectionTask) -> None:
    heard: list[tuple[object, ...]] = []
    child = make_child(patch_s=SLOW_S / 2, sleep_s=SLOW_S)
    found = child.ask(task, lambda *told: heard.append(told), hang_s=HANG_S)
    assert isinstance(found, Detection)
    patches = dict.fromkeys(told for told in heard if told[0] == "segmenting")
    # What was reckoned, then what the patches took.
    assert [*patches] == [
        ("segmenting", 0, 2, Forecast(SLOW_S / 2, 0.0)),
        ("segmenting", 1, 2, Forecast(SLOW_S, 0.0)),
        ("segmenting", 2, 2, Forecast(SLOW_S, 0.0)),
    ]


def test_one_whose_patch_never_ends_is_ended(make_child: MakeChild, task: DetectionTask) -> None:
    child = make_child(patch_s=0.2, sleep_s=LONG_S)
    with pytest.raises(WorkerCrashed, match="no progress for 3 s"):
        child.ask(task, ignore, hang_s=HANG_S)
    assert eventually(lambda: not child.alive)


def test_while_the_image_is_read_it_is_known_how_long_the_networks_take_that_ran_before(
    make_child: MakeChild, task: DetectionTask
) -> None:
    make_child(patch_s=0.5, sleep_s=0.4).ask(task, ignore, hang_s=LONG_S)
    heard: list[tuple[object, ...]] = []
    make_child(patch_s=0.5, sleep_s=0.0).ask(task, lambda *told: heard.append(told), hang_s=LONG_S)
    reading = [told[3] for told in heard if told[0] == "reading" and told[3] is not None]
    assert reading[0] == Forecast(later_s=2 * 0.4)
