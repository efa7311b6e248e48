"""The real server over a worker that cannot be ended. Run as a program by `tests.live_server`."""

import multiprocessing
import os
import sys
import time

from config import Settings
from main import Parts, parse_flags, serve
from model_manager import Models
from openscans.jobs.detector import STAGE_WEIGHTS, Detector
from openscans.jobs.image_files import ImageAccess
from openscans.jobs.queue import JobQueue
from openscans.jobs.worker import Worker
from openscans.jobs.worker_process import LogPlan
from openscans.system.listeners import bind_sockets
from openscans.system.private_folders import PrivateFolders
from openscans.weights.releases import Installer
from tests import pipelines
from tests.scripted_server import WeightsOnPaper

FAR_TOO_LONG_S = 60


class StuckWorker(Worker):
    def close(self) -> None:
        time.sleep(FAR_TOO_LONG_S)


def run() -> int:
    settings = Settings.from_env({**os.environ, **parse_flags(sys.argv[1:])})
    worker = StuckWorker(pipelines.make, keep_warm_s=None, hang_s=FAR_TOO_LONG_S, log_plan=LogPlan(settings.log_folder))
    models = Models(settings.home, Installer(settings.weights_urls, offline=True))
    private_folders = PrivateFolders(settings.private_folder)
    detector = Detector(
        worker,
        WeightsOnPaper(settings.home),
        pipelines.NO_RESULTS,
        ImageAccess(private_folders),
        auto_download=False,
        device=settings.device,
    )
    jobs = JobQueue(detector, weights=STAGE_WEIGHTS, most_waiting=settings.queue)
    parts = Parts(models, detector, jobs, worker, private_folders)
    return serve(settings, parts, bind_sockets(settings.host, settings.port))


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(run())
