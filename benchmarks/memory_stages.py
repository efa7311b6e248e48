"""Which step of a detection takes the most memory, and what is alive then: one process's resident memory by step.

    python -m benchmarks.memory_stages [--size 457 379 224] [--spacing 0.8 0.8 1.49] [--fast]
                                       [--precisions auto float32] [--compiled]

`compare`'s CT and weights, a new process for each precision, one detection in it. Without ``--compiled`` networks are
compiled in it, as at the very first start; with it an earlier process did that. Linux only. Writes Markdown.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import compare, detect, scan
from inference import Pipeline
from openscans import networks
from openscans.progress import Forecast
from openscans.types import InferenceOptions, Point, TrainedModel, Voxel

SAMPLE_S = 0.002
"""Between two looks, each of which reads one small file of the kernel's."""

STATUS = Path("/proc/self/status")

MB = 1e6

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Held:
    """Resident bytes: of the process's own (heap, arrays), and of files that are mapped (libraries, blobs)."""

    own_bytes: int
    file_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.own_bytes + self.file_bytes


def held_now() -> Held:
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    own, file, shared = (int(fields[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile", "RssShmem"))
    return Held(own + shared, file)


class Watch:
    """Looks at the memory all the time, and keeps the most of each step.

    Rules for threads. Its own thread alone looks and keeps; whoever works only says in `step` what it does now.
    """

    def __init__(self) -> None:
        self.step = "imports"
        self.most: dict[str, Held] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            step, now = self.step, held_now()
            if step not in self.most or now.total_bytes > self.most[step].total_bytes:
                self.most[step] = now


class Watched(networks.Network):
    """A network that says when it computes."""

    def __init__(self, network: networks.Network, watch: Watch) -> None:
        self.plan, self.device, self.runs, self._network = network.plan, network.device, network.runs, network
        self.patch_s, self._watch = network.patch_s, watch

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        stage, self._watch.step = self._watch.step, f"{self.plan.dataset_name[7:10]} computes"
        found = self._network.logits(patch)
        self.patch_s, self._watch.step = self._network.patch_s, stage
        return found

    def release(self) -> None:
        self._network.release()


def measure(image: Path, results: Path, cache: Path, *, fast: bool, precision: str) -> dict[str, Held]:
    """The most that this process held in each step of one detection, in their order."""
    with Watch() as watch:

        def load(model: TrainedModel, plan: networks.Plan, *, device: str, options: InferenceOptions) -> Watched:
            return Watched(networks.load(model, plan, device=device, options=options), watch)

        def told(stage: str, _done: int, _total: int, _forecast: Forecast | None = None, /) -> None:
            watch.step = stage

        pipeline = Pipeline(InferenceOptions(None, precision, cache), load)
        pipeline.detect(detect.task(image, results, fast=fast), told)
        watch.step = "afterwards, networks kept"
        threading.Event().wait(10 * SAMPLE_S)
    return watch.most


def table(most: dict[str, Held], precision: str) -> list[str]:
    lines = [f"| {precision}, step | most MB | of it libraries and files |", "|---|---|---|"]
    lines += [f"| {step} | {held.total_bytes / MB:.0f} | {held.file_bytes / MB:.0f} |" for step, held in most.items()]
    return lines


def main(given: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=3, default=compare.SIZE, metavar=("X", "Y", "Z"))
    parser.add_argument("--spacing", type=float, nargs=3, default=compare.SPACING_MM, metavar=("X", "Y", "Z"))
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--precisions", nargs="+", default=["auto", "float32"], choices=detect.PRECISIONS)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.one:
        image, results, cache, precision = arguments.one
        found = measure(Path(image), Path(results), Path(cache), fast=arguments.fast, precision=precision)
        for line in table(found, precision):
            log.info(line)
        return
    with tempfile.TemporaryDirectory() as nowhere:
        image, results = Path(nowhere) / "ct.nii.gz", Path(nowhere) / "results"
        scan.write_ct(image, scan.Field(Voxel(*arguments.size), Point(*arguments.spacing)))
        scan.write_weights(results, fast=arguments.fast)
        fast = ["--fast"] if arguments.fast else []
        for precision in arguments.precisions:
            cache = Path(nowhere) / precision
            command = [sys.executable, "-m", "benchmarks.memory_stages", *fast]
            command += ["--one", str(image), str(results), str(cache), precision]
            if arguments.compiled:
                subprocess.run(command, check=True, capture_output=True)
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
