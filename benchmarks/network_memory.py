"""What the full-size networks take in memory beside what `networks.patch_bytes` reckons, each in a new process.

python -m benchmarks.network_memory [--datasets 292 297 298 756]
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil

from benchmarks.detect import training_folder
from openscans import networks
from openscans.types import InferenceOptions

MB = 1e6


def measure(folder: Path, precision: str, cache: Path) -> str:
    """One line about one network: its weights as they are loaded, and the rest that stays after a patch."""
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    network = networks.load_folder(folder, device="cpu", options=InferenceOptions(None, precision, cache))
    loaded_bytes = process.memory_info().rss
    for _ in range(2):
        network.logits(np.zeros(network.plan.patch_zyx, np.float32))
    run_bytes = process.memory_info().rss
    reckoned_bytes = networks.patch_bytes(network.plan, "cpu")
    return (
        f"| {folder.parent.name[:10]} {precision} | {(loaded_bytes - before_bytes) / MB:.0f} MB "
        f"| {(run_bytes - loaded_bytes) / MB:.0f} MB | {reckoned_bytes / MB:.0f} MB |"
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, nargs="+", default=[292, 297, 298, 756])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        folder, precision, cache = arguments.one
        logging.getLogger(__name__).info(measure(Path(folder), precision, Path(cache)))
        return
    from phantom import layout

    with tempfile.TemporaryDirectory() as nowhere:
        for dataset in arguments.datasets:
            layout.write_random(Path(nowhere), dataset)
            for precision in ("auto", "float32"):
                folder = training_folder(Path(nowhere), dataset)
                command = [sys.executable, "-m", "benchmarks.network_memory", "--one", str(folder), precision, nowhere]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
