"""Detections in a new process, from import to answer, without HTTP: what `compare` times and weighs.

    python -m benchmarks.detect IMAGE --results FOLDER [--fast] [--precision float32 | int8] [--runs 2] [--cache FOLDER]

Every run after the first is a warm one. Writes one line of JSON for each.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference import Pipeline
from openscans import networks
from openscans.networks import int8_trials
from openscans.types import Detection, DetectionTask, InferenceOptions, TrainedModel
from openscans.weights import catalogue

PRECISIONS = ("auto", "float32", "int8")
"""What can be asked for, as in `InferenceOptions`."""

DATASETS = {dataset.number: dataset for task in catalogue.TASKS.values() for dataset in task.datasets}


class Timed(networks.Network):
    """A network that tells how long it has computed, all patches together."""

    def __init__(self, network: networks.Network) -> None:
        self.plan, self.device, self.runs, self._network = network.plan, network.device, network.runs, network
        self.patch_s, self.seconds = network.patch_s, 0.0

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        began_s = time.perf_counter()
        found = self._network.logits(patch)
        self.patch_s = time.perf_counter() - began_s
        self.seconds += self.patch_s
        # A patch may have decided how the next ones are run.
        self.runs, self.warnings = self._network.runs, self._network.warnings
        return found

    def release(self) -> None:
        self._network.release()


class Timer:
    """Loads networks that are timed, and keeps them in sight."""

    def __init__(self) -> None:
        self.networks: list[Timed] = []

    def __call__(
        self, model: TrainedModel, plan: networks.Plan, *, device: str, options: InferenceOptions
    ) -> networks.Network:
        timed = Timed(networks.load(model, plan, device=device, options=options))
        self.networks.append(timed)
        return timed

    def seconds(self) -> dict[str, float]:
        """Of each network by the first letters of its name, since the last call."""
        found = {network.plan.dataset_name[:10]: network.seconds for network in self.networks}
        for network in self.networks:
            network.seconds = 0.0
        return found


def training_folder(results: Path, dataset: int) -> Path:
    """The one training of ``dataset`` under ``results``; found without `phantom.layout`, which would load PyTorch."""
    [folder] = results.glob(f"Dataset{dataset}_*/*__nnUNetPlans__3d_fullres")
    return folder


def model(results: Path, dataset: int) -> TrainedModel:
    """What an installation would know of it; other weights in the same place have another digest."""
    folder = training_folder(results, dataset)
    written = (folder / "fold_0" / "checkpoint_final.pth").stat()
    digest = f"{folder.parent.name} {written.st_size} {written.st_mtime_ns}"
    known = DATASETS[dataset]
    return TrainedModel(folder.parent.name, folder, digest, spacing_mm=known.spacing_mm, step=known.step)


def task(image: Path, results: Path, *, fast: bool) -> DetectionTask:
    """What `detection` would ask of the worker for ``image``."""
    return DetectionTask(
        path=image,
        key="total_body" if fast else "vertebrae",
        segmenter=model(results, 297 if fast else 292),
        localiser=model(results, 298),
        fast_mode=fast,
        device="cpu",
    )


def run_detection(pipeline: Pipeline, timer: Timer, task: DetectionTask) -> str:
    """Run one detection; what `compare` needs to know of it, as JSON."""
    patches: dict[str, int] = {}
    began_s, used_s = time.perf_counter(), time.process_time()
    found: Detection = pipeline.detect(task, lambda stage, _, total, *_more: patches.update({stage: total}))
    return json.dumps(
        {
            "seconds": time.perf_counter() - began_s,
            "processor_s": time.process_time() - used_s,
            "processor_so_far_s": time.process_time(),
            "finished_s": time.time(),
            "network_s": timer.seconds(),
            "precision": found.precision,
            "kernels": dict(found.networks[-1].kernels),
            "vertebrae": len(found.vertebrae),
            "patches": {stage: patches[stage] for stage in ("localising", "segmenting") if stage in patches},
            "timings_ms": found.timings_ms,
        }
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--tiles", default="spine", choices=["spine", "course", "exact"])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="compiled networks are kept here (default: nowhere)")
    arguments = parser.parse_args()
    if arguments.precision == "int8":
        # Random weights give too many voxels another label to be accepted; what is timed is how they are computed.
        int8_trials.PLAIN_AGREEMENT = int8_trials.LEAST_AGREEMENT = 0.0
    with tempfile.TemporaryDirectory() as nowhere:
        cache = arguments.cache or Path(nowhere)
        options = InferenceOptions(None, arguments.precision, cache, arguments.tiles)
        timer = Timer()
        pipeline = Pipeline(options, timer)
        for _ in range(arguments.runs):
            logging.getLogger(__name__).info(
                run_detection(pipeline, timer, task(arguments.image, arguments.results, fast=arguments.fast))
            )


if __name__ == "__main__":
    main()
