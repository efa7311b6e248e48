"""The real server over a worker that cannot be ended. Run as a program by `tests.live_server`."""

import multiprocessing
import os
import sys
import time

from arrivals import Arrivals
from config import Settings
from detection import STAGE_WEIGHTS, Detector
from jobs import Jobs
from main import Parts, bound, flags, serve
from model_manager import Models
from tests import pipelines
from tests.scripted_server import WeightsOnPaper
from worker import Worker
from worker_child import LogPlan

FAR_TOO_LONG_S = 60


class StuckWorker(Worker):
    def close(self) -> None:
        time.sleep(FAR_TOO_LONG_S)


def run() -> int:
    settings = Settings.from_env({**os.environ, **flags(sys.argv[1:])})
    worker = StuckWorker(pipelines.make, keep_warm_s=None, hang_s=FAR_TOO_LONG_S, log_plan=LogPlan(settings.log_folder))
    models = Models(settings.home, Arrivals(settings.weights_urls, offline=True, strict_digests=False))
    detector = Detector(
        worker, WeightsOnPaper(models), pipelines.NO_RESULTS, auto_download=False, device=settings.device
    )
    jobs = Jobs(detector, weights=STAGE_WEIGHTS, queue=settings.queue)
    return serve(settings, Parts(models, jobs, worker), bound(settings.host, settings.port))


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(run())
