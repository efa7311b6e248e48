"""Throughput of our download of a large file, hashing included, beside curl's, and the service's memory meanwhile.

    python -m benchmarks.download [--megabytes 250] [--runs 5] [--folder /tmp]

One server process hands the file out with sendfile; the two take turns and write to the same disk. The service then
downloads the file as a whole model, and its greatest resident memory is what the kernel noted. Linux only.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import ClassVar

import httpx

from openscans.weights import download
from openscans.weights.catalogue import VERTEBRAE_MR, Dataset
from phantom.layout import write_random, zip_weights

ROOT = Path(__file__).resolve().parents[1]
PIECE_BYTES = 1_000_000

log = logging.getLogger(__name__)


class _FileHandler(BaseHTTPRequestHandler):
    """Gives every request the same file."""

    file: ClassVar[Path]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self.file.open("rb") as content:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(content.fileno()).st_size))
            self.send_header("ETag", '"same"')
            self.end_headers()
            self.connection.sendfile(content)

    def log_message(self, *_: object) -> None:
        """Silence: a line a request would be part of what is measured."""


def serve(file: Path) -> None:
    """Hand out ``file`` for ever, after a line with the address."""
    _FileHandler.file = file
    server = ThreadingHTTPServer(("127.0.0.1", 0), _FileHandler)
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


@contextmanager
def process(command: list[str], env: dict[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """The first line that ``command`` writes, and its process id, for the length of a block."""
    running = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        yield running.stdout.readline().strip(), running.pid
    finally:
        running.terminate()
        running.wait()


def write_model(path: Path, dataset: Dataset, size_bytes: int) -> None:
    """A release's zip of a network with random weights, filled up by noise, which no compression makes smaller."""
    with tempfile.TemporaryDirectory() as results:
        write_random(Path(results), dataset.number)
        zip_weights(Path(results, dataset.folder), path)
    with zipfile.ZipFile(path, "a") as archive, archive.open("filling", "w", force_zip64=True) as filling:
        for _ in range((size_bytes - path.stat().st_size) // PIECE_BYTES):
            filling.write(os.urandom(PIECE_BYTES))


def curl_s(url: str, target: Path) -> float:
    command = ["curl", "--silent", "--fail", "-o", str(target), "-w", "%{time_total}", url]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def ours_s(url: str, target: Path) -> float:
    started_s = time.monotonic()
    download.fetch([url], target)
    return time.monotonic() - started_s


def turns(url: str, folder: Path, runs: int) -> dict[str, list[float]]:
    """Seconds of each run."""
    rivals = {"curl": curl_s, "ours": ours_s}
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(runs):
        for name, rival in rivals.items():
            target = folder / f"{name}.zip"
            seconds[name].append(rival(url, target))
            download.discard(target)
            log.info("%d, %s: %.2f s", turn + 1, name, seconds[name][-1])
    return seconds


def service_peak_bytes(url: str, home: Path) -> int:
    """The service's greatest resident memory after a download of the model from its first byte to its last event."""
    env = {"PORT": "0", "OPENSCANS_HOME": str(home), "OPENSCANS_WEIGHTS_URL": url}
    with process([sys.executable, "main.py"], env) as (line, pid):
        address = line.removeprefix("LISTENING ")
        url = f"{address}/api/models/download/vertebrae_mr"
        with httpx.stream("POST", url, timeout=600, trust_env=False) as response:
            events = [json.loads(text.removeprefix("data: ")) for text in response.iter_lines() if "data: " in text]
        assert events[-1]["status"] == "complete", events[-1]
        status = Path(f"/proc/{pid}/status").read_text()
        return int(next(text.split()[1] for text in status.splitlines() if text.startswith("VmHWM"))) * 1024


def compare(folder: Path, size_bytes: int, runs: int) -> list[str]:
    """Lines of a Markdown table."""
    model = folder / "model.zip"
    write_model(model, VERTEBRAE_MR, size_bytes)
    with process([sys.executable, "-m", "benchmarks.download", "--serve", str(model)]) as (url, _):
        seconds = turns(url, folder, runs)
        peak_bytes = service_peak_bytes(url, folder / "home")
    megabytes = model.stat().st_size / 1e6
    lines = ["| | MB/s (median) | slowest to fastest |", "|---|---|---|"]
    for name, found in seconds.items():
        spread = f"{megabytes / max(found):.0f} to {megabytes / min(found):.0f}"
        lines.append(f"| {name} | {megabytes / median(found):.0f} | {spread} |")
    share = median(seconds["curl"]) / median(seconds["ours"])
    return [*lines, f"Ours / curl: {share:.0%}. Peak memory of the service: {peak_bytes / 1e6:.0f} MB."]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=250)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to write to; a temporary folder is made in it")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    if shutil.which("curl") is None:
        parser.error("curl is not installed")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for line in compare(Path(folder), arguments.megabytes * 1_000_000, arguments.runs):
            log.info(line)


if __name__ == "__main__":
    main()
