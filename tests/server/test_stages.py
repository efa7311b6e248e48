"""In whatever stage a detection is cancelled, killed or short of memory, it ends alone and the next is right.

Real networks in the real server; the worker is a real process that gets real signals and limits.
"""

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from phantom.files import write_nifti
from tests.live_server import LiveServer, eventually, live_server
from tests.staged import (
    Images,
    followed,
    health_watched,
    living_worker,
    tree_bytes,
    worker_of,
    write_home,
    write_images,
)

STAGES = ("loading", "reading", "localising", "segmenting", "measuring")

LIMITABLE = pytest.mark.skipif(not hasattr(psutil, "RLIMIT_AS"), reason="the system limits no other process's memory")

CANCEL_S = 5.0
"""What a worker has to react before it is ended."""

ROOM_BYTES = 100_000_000
"""Enough for the small image beside the most that a worker has reserved so far, not for a large one."""

LARGE_ZYX = (400, 512, 512)
"""Voxels of two bytes that take twice as much room as there is."""


TOO_LITTLE = 0.85
"""Of what a warm worker has: enough for its libraries, not for the networks."""


@dataclass(frozen=True)
class Place:
    """A home with models, images, and what is found in the short one."""

    home: Path
    images: Images


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("staged")
    write_home(folder / "home", folder / "results")
    return Place(folder / "home", write_images(folder))


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[LiveServer]:
    with live_server(place.home) as running:
        yield running


@pytest.fixture(scope="module")
def images(place: Place) -> Images:
    return place.images


@pytest.fixture(scope="module")
def reference(server: LiveServer, images: Images) -> list[dict[str, Any]]:
    """What an undisturbed worker finds in the short image."""
    return found_in(server, images.short)


def found_in(server: LiveServer, image: Path) -> list[dict[str, Any]]:
    answer = server.detect(image, use_cache=False)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["vertebrae"])


def make_cold(server: LiveServer) -> None:
    worker = worker_of(server)
    if worker is not None:
        worker.kill()
        # The system takes a while to close what a process held, and only then does the server see that it is gone.
        assert eventually(lambda: server.get("/api/health").json()["worker"] in {"failed", "cold"})


@pytest.mark.parametrize("stage", STAGES)
def test_a_detection_is_cancelled_in_each_stage(
    server: LiveServer, images: Images, reference: list[dict[str, Any]], stage: str
) -> None:
    if stage == "loading":
        make_cold(server)
    detection = followed(server, images.long)
    assert detection.reaches(stage)
    began_s = time.monotonic()
    assert server.delete(f"/api/jobs/{detection.job_id}").status_code == 200
    assert detection.last["status"] == "cancelled"
    assert time.monotonic() - began_s < CANCEL_S + 1
    assert found_in(server, images.short) == reference


def test_cancelled_between_two_patches_the_worker_stays(server: LiveServer, images: Images) -> None:
    found_in(server, images.short)
    before = living_worker(server)
    detection = followed(server, images.long)
    assert detection.reaches("segmenting")
    server.delete(f"/api/jobs/{detection.job_id}")
    assert detection.last["status"] == "cancelled"
    assert living_worker(server) == before


def test_a_detection_that_waits_is_cancelled_at_once_and_the_one_before_it_goes_on(
    server: LiveServer, images: Images
) -> None:
    running = followed(server, images.long)
    waiting = followed(server, images.short)
    assert waiting.reaches("queued")
    server.delete(f"/api/jobs/{waiting.job_id}")
    assert waiting.last["status"] == "cancelled"
    assert not running.ended.is_set()
    assert running.last["status"] == "complete"


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_that_is_killed_in_any_stage_fails_that_detection_alone(
    server: LiveServer, images: Images, reference: list[dict[str, Any]], stage: str
) -> None:
    if stage == "loading":
        make_cold(server)
    with health_watched(server) as health_s:
        detection = followed(server, images.long)
        assert eventually(lambda: worker_of(server) is not None)
        killed = living_worker(server)
        assert detection.reaches(stage)
        # Stopped, it cannot leave the stage before it is killed.
        killed.suspend()
        waiting = followed(server, images.short)
        assert detection.is_in(stage)
        killed.kill()
        assert (detection.last["status"], detection.last["code"]) == ("error", "worker_crashed")
        assert waiting.last["result"]["vertebrae"] == reference
    assert living_worker(server) != killed
    assert max(health_s) < 1


def test_progress_and_time_come_from_units_of_work(server: LiveServer, images: Images) -> None:
    detection = followed(server, images.long)
    assert detection.last["status"] == "complete"
    progress = [event["progress"] for event in detection.events]
    assert all(before <= after for before, after in itertools.pairwise(progress))
    reading = {event["progress"] for event in detection.events if event["status"] == "reading"}
    patches = {event["progress"] for event in detection.events if event["status"] == "segmenting"}
    # Slices may come faster than events are sent.
    assert reading
    assert max(reading) < min(patches)
    assert len(patches) > 3
    measured = [
        event["eta_s"] for event in detection.events if event["status"] == "segmenting" and event["eta_s"] is not None
    ]
    assert measured[-1] < measured[0]
    assert detection.last["eta_s"] == 0


def test_how_long_it_takes_is_known_from_the_first_event_of_a_stage_once_the_networks_have_run_here(
    place: Place, server: LiveServer, images: Images
) -> None:
    found_in(server, images.short)
    with live_server(place.home) as another:
        detection = followed(another, images.long)
        assert detection.last["status"] == "complete"
    first = {event["status"]: event for event in reversed(detection.events)}
    assert [first[stage]["eta_s"] is not None for stage in ("localising", "segmenting")] == [True, True]
    # Until the image was opened nobody knows how much there is to do.
    reading = [event["eta_s"] for event in detection.events if event["status"] == "reading"]
    assert reading[-1] is not None


def most_reserved_bytes(process: psutil.Process) -> int:
    """Of addresses, so far; networks give some back after they ran."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmPeak:")[2].split()[0]) * 1024


@LIMITABLE
def test_an_image_that_needs_more_memory_than_the_worker_may_take_is_refused_and_a_smaller_one_is_not(
    tmp_path: Path, place: Place, images: Images, reference: list[dict[str, Any]]
) -> None:
    write_nifti(tmp_path / "large.nii", np.zeros(LARGE_ZYX, np.int16), np.eye(4))
    with live_server(place.home) as server:
        assert found_in(server, images.short) == reference
        warm = living_worker(server)
        # The next worker inherits the limit, as it would one that was set for the service.
        limit_bytes = most_reserved_bytes(warm) + ROOM_BYTES
        psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_AS, (limit_bytes, limit_bytes))
        make_cold(server)
        assert found_in(server, images.short) == reference
        limited = living_worker(server)
        answer = server.detect(tmp_path / "large.nii", use_cache=False)
        assert (answer.status_code, answer.json().get("code")) == (507, "out_of_memory")
        assert found_in(server, images.short) == reference
        assert living_worker(server) != limited


@LIMITABLE
def test_where_the_memory_does_not_suffice_for_the_networks_it_is_said_so_until_it_does(
    place: Place, images: Images, reference: list[dict[str, Any]]
) -> None:
    with live_server(place.home) as server:
        assert found_in(server, images.short) == reference
        process = psutil.Process(server.process.pid)
        process.rlimit(psutil.RLIMIT_AS, (int(living_worker(server).memory_info().vms * TOO_LITTLE), -1))
        make_cold(server)
        answer = server.detect(images.short, use_cache=False)
        # A library that cannot even say that it lacks memory ends its process.
        assert answer.json()["code"] in {"out_of_memory", "worker_crashed"}
        process.rlimit(psutil.RLIMIT_AS, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        assert found_in(server, images.short) == reference


def test_a_new_worker_removes_what_a_killed_one_left_of_a_compiled_network(server: LiveServer, images: Images) -> None:
    make_cold(server)
    left = server.home / "cache" / "left.part"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    os.utime(left, (0, 0))
    found_in(server, images.short)
    assert not left.exists()


def test_an_idle_worker_gives_its_memory_back_and_the_next_detection_starts_another(
    place: Place, images: Images, reference: list[dict[str, Any]]
) -> None:
    with live_server(place.home, {"OPENSCANS_KEEP_WARM_S": "1"}) as server:
        assert found_in(server, images.short) == reference
        first = living_worker(server)
        assert tree_bytes(server) > 150_000_000
        assert eventually(lambda: server.get("/api/health").json()["worker"] == "cold")
        assert eventually(lambda: worker_of(server) is None)
        assert tree_bytes(server) <= 90_000_000
        assert found_in(server, images.short) == reference
        assert living_worker(server) != first
