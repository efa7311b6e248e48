"""Which kernels compute the full-size networks here, and how long a patch takes; fails where reference loops do.

python -m benchmarks.kernels [--datasets 292] [--precision float32] [--repeats 3]
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.detect import PRECISIONS
from openscans import networks
from openscans.types import InferenceOptions

log = logging.getLogger(__name__)


def measure(folder: Path, options: InferenceOptions, repeats: int) -> tuple[str, bool]:
    """A row of Markdown about the network in ``folder``, and whether any convolution runs on reference loops."""
    network = networks.load_folder(folder, device="cpu", options=options)
    patch = np.random.default_rng(0).standard_normal(network.plan.patch_zyx, np.float32)
    seconds = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        network.logits(patch)
        seconds.append(time.perf_counter() - began_s)
    runs = network.runs
    kernels = ", ".join(f"{count} × {kernel}" for kernel, count in sorted(runs.kernels.items()))
    row = f"| {runs.network[:10]} | {runs.precision} | {runs.formulation} | {kernels} | {median(seconds):.2f} |"
    return row, runs.slow


def main(given: Sequence[str] | None = None) -> int:
    """The process's exit code: 1 where a convolution runs on reference loops."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, nargs="+", default=[292])
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(given)
    from phantom import layout

    log.info("| network | precision | convolutions over | kernels | seconds a patch, median |")
    log.info("|---|---|---|---|---|")
    slow = False
    with tempfile.TemporaryDirectory() as nowhere:
        options = InferenceOptions(None, arguments.precision, Path(nowhere) / "cache")
        for dataset in arguments.datasets:
            row, on_reference = measure(layout.write_random(Path(nowhere), dataset), options, arguments.repeats)
            log.info(row)
            slow = slow or on_reference
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
