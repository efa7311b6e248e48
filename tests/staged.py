"""A home, an image and a server with which every stage of a detection lasts long enough to be met in it.

The networks are the phantom's small localiser and a labelling one of random weights, whose patches take some tenths of
a second.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from phantom import drawing, grid, layout, specs, spine
from phantom.demo import WEIGHTS
from phantom.files import write_dicom_series, write_nifti
from tests.live_server import LiveServer, eventually, live_server

OVER = {"complete", "error", "cancelled"}

COARSE_MM = (2.1, 2.1, 3.0)
FINER = 3
"""Drawing a fine image takes long; one whose voxels are repeated is as large, and the spine is found in it."""

LOWER = slice(0, 150)
"""The lower part of the spine: some hundred slices are enough to be met while they are read."""

LABELLER = specs.small(specs.SPECS[292], base_features=16, max_features=160, patch_zyx=(96, 96, 96))


@dataclass(frozen=True)
class Images:
    """A series of some hundred slices, and a piece of it that takes a fraction of a second."""

    long: Path
    short: Path


def write_images(folder: Path) -> Images:
    phantom = spine.describe(7)
    shape, affine = grid.axial(phantom, COARSE_MM)
    coarse, _ = drawing.render(phantom, shape, affine, seed=12)
    voxels = coarse[LOWER].repeat(FINER, axis=0).repeat(FINER, axis=1).repeat(FINER, axis=2)
    write_dicom_series(folder / "long", voxels, affine @ np.diag([1 / FINER, 1 / FINER, 1 / FINER, 1.0]))
    write_nifti(folder / "short.nii.gz", coarse[100:114], affine)
    return Images(folder / "long", folder / "short.nii.gz")


def write_home(home: Path, results: Path) -> None:
    """``home`` with the models imported from ``results``, which are written first.

    Without the network that looks again: what random weights call vertebrae is cut by every crop.
    """
    pytest.importorskip("torch")
    layout.write_training_folder(results, LABELLER, layout.random_state_dict(LABELLER, 0))
    for dataset in (297, 298):
        shutil.copytree(WEIGHTS / specs.SPECS[dataset].folder, results / specs.SPECS[dataset].folder)
    with live_server(home) as server:
        for task in ("total_body", "vertebrae"):
            assert server.post(f"/api/models/import/{task}", {"file_path": str(results)}).json()["state"] == "ready"
    shutil.rmtree(home / "models/totalsegmentator/total_body" / specs.SPECS[297].folder)


def worker_of(server: LiveServer) -> psutil.Process | None:
    """The server's worker process, where it has one that lives."""
    for child in psutil.Process(server.process.pid).children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline()):
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def living_worker(server: LiveServer) -> psutil.Process:
    worker = worker_of(server)
    assert worker is not None
    return worker


@dataclass
class Followed:
    """A detection whose stream is read in a thread of its own, so that no event is missed."""

    server: LiveServer
    events: list[dict[str, Any]] = field(default_factory=list)
    begun: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def job_id(self) -> str:
        return str(self.events[0]["job_id"])

    @property
    def last(self) -> dict[str, Any]:
        """The one event that ends the stream."""
        assert self.ended.wait(60)
        assert [event["status"] in OVER for event in self.events] == [False] * (len(self.events) - 1) + [True]
        return self.events[-1]

    def reaches(self, stage: str) -> bool:
        """Wait until the detection is in ``stage``; "loading" is told by the worker's state, others by the job's."""
        return eventually(lambda: self.is_in(stage), within_s=30, every_s=0.002)

    def is_in(self, stage: str) -> bool:
        """Whether it is there just now."""
        if stage == "loading":
            return bool(self.server.get("/api/health").json()["worker"] == "loading")
        job = self.server.get(f"/api/jobs/{self.job_id}").json()
        # A job that still loads libraries says that it reads, too.
        return bool(job["status"] == stage and (job["progress"] > 0 or stage == "queued"))

    def read(self, image: Path) -> None:
        with self.server.detection_events(image, use_cache=False) as events:
            for event in events:
                self.events.append(event)
                self.begun.set()
        self.ended.set()


def followed(server: LiveServer, image: Path) -> Followed:
    """A new detection of ``image``, once the server has accepted it."""
    detection = Followed(server)
    threading.Thread(target=detection.read, args=(image,), daemon=True).start()
    assert detection.begun.wait(20)
    return detection


@contextmanager
def health_watched(server: LiveServer) -> Iterator[list[float]]:
    """The seconds that health took to answer, asked over and over for the length of a block."""
    seconds: list[float] = []
    enough = threading.Event()

    def watch() -> None:
        with server.client() as client:
            while not enough.wait(0.02):
                began_s = time.perf_counter()
                assert client.get("/api/health").status_code == 200
                seconds.append(time.perf_counter() - began_s)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seconds
    finally:
        enough.set()
        watching.join()


def tree_bytes(server: LiveServer) -> int:
    """Memory of the server and all its processes, pages that they share counted once where the system tells."""
    root = psutil.Process(server.process.pid)
    infos = [process.memory_full_info() for process in (root, *root.children(recursive=True))]
    return sum(getattr(info, "pss", 0) or info.rss for info in infos)
