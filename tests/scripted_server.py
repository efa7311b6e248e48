"""The real server and worker over a pipeline from `tests.pipelines`, so that a test decides what a detection does.

Run as a program by `tests.live_server`; takes the same flags and environment as main.py.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from config import Settings
from main import Parts, parse_flags, serve
from model_manager import Models
from openscans.jobs.detector import STAGE_WEIGHTS, Detector
from openscans.jobs.image_files import ImageAccess
from openscans.jobs.queue import JobQueue
from openscans.jobs.worker import Worker
from openscans.jobs.worker_process import LogPlan
from openscans.progress import Report
from openscans.system import logs
from openscans.system.listeners import bind_sockets
from openscans.system.private_folders import PrivateFolders
from openscans.types import TrainedModel
from openscans.weights.catalogue import TASKS
from openscans.weights.dataset_locks import DatasetLocks
from openscans.weights.releases import Installer
from tests import pipelines


class WeightsOnPaper:
    """Weights that are said to be there; the scripted pipeline opens none, but nobody can delete what it would open."""

    def __init__(self, home: Path) -> None:
        self._locks = DatasetLocks(home / "models/totalsegmentator/locks")

    @contextmanager
    def ready(self, key: str, report: Report, *, download: bool) -> Iterator[Mapping[int, TrainedModel]]:
        if download:
            report(1, 1)
        opened = TASKS[key].opened
        with self._locks.shared([dataset.folder for dataset in opened], partial(report, 0, 1)):
            yield {dataset.number: self.trained_model(dataset.number) for dataset in opened}

    def trained_model(self, dataset_id: int) -> TrainedModel:
        return TrainedModel(f"Dataset{dataset_id}_paper", Path("/weights"), "0" * 64, spacing_mm=1.5, step=0.8)


def run() -> int:
    settings = Settings.from_env({**os.environ, **parse_flags(sys.argv[1:])})
    logs.set_up(settings.log_folder, file_name="server.log", debug=settings.debug)
    worker = Worker(
        pipelines.make,
        keep_warm_s=settings.keep_warm_s,
        hang_s=settings.hang_s,
        log_plan=LogPlan(settings.log_folder),
    )
    models = Models(settings.home, Installer(settings.weights_urls, offline=True))
    private_folders = PrivateFolders(settings.private_folder)
    detector = Detector(
        worker,
        WeightsOnPaper(settings.home),
        pipelines.NO_RESULTS,
        ImageAccess(private_folders, settings.allowed_roots),
        auto_download=settings.auto_download,
        device=settings.device,
    )
    jobs = JobQueue(detector, weights=STAGE_WEIGHTS, most_waiting=settings.queue)
    parts = Parts(models, detector, jobs, worker, private_folders)
    return serve(settings, parts, bind_sockets(settings.host, settings.port))


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(run())
