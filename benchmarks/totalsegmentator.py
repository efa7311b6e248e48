"""TotalSegmentator's own Python API on given weights, in a process of its own: judge of parity and rival in time.

Nothing of it is changed: it is only told where the weights lie, and not to send usage statistics.

    python -m benchmarks.totalsegmentator IMAGE OUTPUT.nii.gz --results WEIGHTS_FOLDER [--fast | --task vertebrae_mr]
                                          [--runs 2]

Every run after the first is a warm one. Writes one line of JSON for each.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

log = logging.getLogger(__name__)


def segment(image: Path, output: Path, results: Path, *, fast: bool = False, task: str = "total") -> None:
    """Write TotalSegmentator's label map (numbers of its class map ``task``) of ``image``'s vertebrae to ``output``.

    ``results`` holds the Dataset… folders. Raises CalledProcessError where TotalSegmentator fails.
    """
    subprocess.run(command(image, output, results, fast=fast, task=task), cwd=ROOT, check=True, capture_output=True)


def command(
    image: Path, output: Path, results: Path, *, fast: bool = False, task: str = "total", runs: int = 1
) -> list[str]:
    """What calls TotalSegmentator ``runs`` times in one process. Raises SystemExit where it is not installed."""
    if find_spec("nnunetv2") is None:
        raise SystemExit("The comparison needs TotalSegmentator with PyTorch, which the lean environment lacks.")
    arguments = [str(image), str(output), "--results", str(results), "--task", task, *(["--fast"] if fast else [])]
    return [sys.executable, "-m", "benchmarks.totalsegmentator", *arguments, "--runs", str(runs)]


def _run(arguments: argparse.Namespace) -> None:
    """Call TotalSegmentator as often as was asked for, and tell of each call."""
    with tempfile.TemporaryDirectory() as home:
        config = {"totalseg_id": "none", "send_usage_stats": False, "prediction_counter": 0}
        (Path(home) / "config.json").write_text(json.dumps(config | {"statistics_disclaimer_shown": True}))
        os.environ["TOTALSEG_HOME_DIR"] = home
        os.environ["TOTALSEG_WEIGHTS_PATH"] = str(arguments.results)
        _pretend_the_unused_parts_are_here(arguments.results)
        for _ in range(arguments.runs):
            log.info(json.dumps(_timed_call(arguments.image, arguments.output, arguments.task, fast=arguments.fast)))


def _timed_call(image: Path, output: Path, task: str, *, fast: bool) -> dict[str, float | str]:
    """Call it once; what `compare` needs to know of it."""
    began_s, used_s = time.perf_counter(), _processor_s()
    import torch
    from totalsegmentator.map_to_binary import class_map
    from totalsegmentator.python_api import totalsegmentator

    vertebrae = [name for name in class_map["total"].values() if name.startswith("vertebrae_")]
    # `vertebrae_mr` knows nothing else, and takes no subset.
    subset = vertebrae if task == "total" else None
    totalsegmentator(image, output, ml=True, task=task, fast=fast, roi_subset=subset, device="cpu", quiet=True)
    return {
        "seconds": time.perf_counter() - began_s,
        "processor_s": _processor_s() - used_s,
        "processor_so_far_s": _processor_s(),
        "finished_s": time.time(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _processor_s() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _pretend_the_unused_parts_are_here(results: Path) -> None:
    """Task ``total`` asks for all five of its models before it runs the one that holds vertebrae."""
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

    for dataset in (291, 293, 294, 295):
        (results / TASK_ID_WEIGHTS_CONFIGS[dataset]["foldername"]).mkdir(exist_ok=True)


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--task", default="total", choices=["total", "vertebrae_mr"])
    parser.add_argument("--runs", type=int, default=1)
    _run(parser.parse_args())


if __name__ == "__main__":
    main()
