"""The executable's size, start, memory and first detection, beside the same service run by Python.

python -m benchmarks.executable dist/openscans-backend-1.0.0/openscans-backend-1.0.0 [--runs 5]

Nothing else should run on the machine meanwhile.
"""

import argparse
import logging
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import psutil

from benchmarks.weigh import ROOT
from phantom import drawing, grid, spine
from phantom.demo import WEIGHTS
from phantom.files import write_dicom_series

log = logging.getLogger(__name__)

DETECTION_S = 600.0


@dataclass(frozen=True)
class Start:
    """One start of the service and its first detections, in seconds; memory before them."""

    health_s: float
    resident_mb: float
    very_first_s: float
    new_process_s: float


@contextmanager
def serving(command: Sequence[str], home: Path) -> Iterator[tuple[httpx.Client, int, float]]:
    """A client of a new server, the server's process id, and the seconds until it answered for its health."""
    env = {**os.environ, "PORT": "0", "OPENSCANS_HOME": str(home), "OPENSCANS_OFFLINE": "1"}
    began_s = time.monotonic()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            address = process.stdout.readline().split()[1] if process.stdout else ""
            with httpx.Client(base_url=address, timeout=DETECTION_S, trust_env=False) as client:
                client.get("/api/health").raise_for_status()
                yield client, process.pid, time.monotonic() - began_s
        finally:
            process.terminate()


def detection_s(client: httpx.Client, image: Path) -> float:
    began_s = time.monotonic()
    client.post("/api/detect-vertebrae", json={"file_path": str(image), "use_cache": False}).raise_for_status()
    return time.monotonic() - began_s


def start(command: Sequence[str], image: Path) -> Start:
    """On a home of its own: first without compiled networks, then a new process with them."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with serving(command, home) as (client, _, _):
            for task in ("total_body", "vertebrae"):
                client.post(f"/api/models/import/{task}", json={"file_path": str(WEIGHTS)}).raise_for_status()
            very_first_s = detection_s(client, image)
        with serving(command, home) as (client, pid, health_s):
            resident_mb = psutil.Process(pid).memory_info().rss / 1e6
            return Start(health_s, resident_mb, very_first_s, detection_s(client, image))


def unpacked_mb(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def packed_mb(folder: Path) -> float:
    """As tar.xz, in xz's usual setting."""
    with tempfile.TemporaryFile() as packed:
        with lzma.open(packed, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
            archive.add(folder, folder.name)
        return packed.tell() / 1e6


def row(name: str, starts: Sequence[Start]) -> str:
    health_s, resident_mb = median(start.health_s for start in starts), median(start.resident_mb for start in starts)
    very_first_s, new_s = median(s.very_first_s for s in starts), median(s.new_process_s for s in starts)
    return f"| {name} | {health_s:.2f} | {resident_mb:.0f} | {very_first_s:.1f} | {new_s:.1f} |"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("executable", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    folder = arguments.executable.resolve().parent
    log.info("%.0f MB unpacked, %.0f MB as tar.xz", unpacked_mb(folder), packed_mb(folder))
    phantom = spine.describe(7)
    shape, affine = grid.axial(phantom, (1.2, 1.2, 1.5))
    commands = {"executable": [str(arguments.executable.resolve())], "Python": [sys.executable, str(ROOT / "main.py")]}
    starts: dict[str, list[Start]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as images:
        image = write_dicom_series(Path(images), drawing.render(phantom, shape, affine, seed=7)[0], affine)[0]
        for _ in range(arguments.runs):
            for name, command in commands.items():
                starts[name].append(start(command, image))
    log.info(
        "| | health after s | MB resident | very first detection s | first of a new process s |\n|---|---|---|---|---|"
    )
    for name, measured in starts.items():
        log.info("%s", row(name, measured))


if __name__ == "__main__":
    main()
