"""How soon health answers: after ``python main.py``, and while a detection and downloads run.

    python -m benchmarks.health [--starts 5] [--detections 3] [--megabytes 250]

The CT is a phantom, the network that labels has full size and random weights. Downloads of a whole model, over the
loopback interface, follow one another for as long as the detections take: fetched, checked, unpacked, deleted. Every
question is a connection of its own. Writes Markdown.
"""

import argparse
import http.client
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks import scan
from benchmarks.download import process, write_model
from benchmarks.weigh import ROOT
from openscans.types import Point, Voxel
from openscans.weights.catalogue import VERTEBRAE_MR

PAUSE_S = 0.02
"""Between two questions: about 40 a second, which is not yet a load of its own."""

QUIET_S = 5.0

FIELD = scan.Field(Voxel(457, 379, 224), Point(0.8, 0.8, 1.49))

log = logging.getLogger(__name__)


def ask_s(port: int) -> float:
    """Seconds until health has answered over a new connection. Raises OSError while nobody listens."""
    began_s = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/api/health")
        answer = json.load(connection.getresponse())
    finally:
        connection.close()
    assert answer["status"] == "healthy", answer
    return time.perf_counter() - began_s


def start_s(home: Path) -> float:
    """Seconds from the start of ``python main.py`` to its first answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began_s = time.perf_counter()
    env = {**os.environ, "PORT": str(port), "OPENSCANS_HOME": str(home)}
    server = subprocess.Popen(
        [sys.executable, "main.py"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                ask_s(port)
            except ConnectionRefusedError:
                time.sleep(0.005)
            else:
                return time.perf_counter() - began_s
    finally:
        server.terminate()
        server.wait()


@contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """``work`` runs in a thread for the length of a block, and is told when to end. What it raises is raised after."""
    enough = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as threads:
        working = threads.submit(work, enough)
        try:
            yield
        finally:
            enough.set()
        working.result()


def ask_repeatedly(port: int, work: Callable[[], object]) -> list[float]:
    """The seconds of every question while ``work`` runs."""
    seconds: list[float] = []

    def ask(enough: threading.Event) -> None:
        while not enough.wait(PAUSE_S):
            seconds.append(ask_s(port))

    with meanwhile(ask):
        work()
    return seconds


def download(client: httpx.Client, enough: threading.Event) -> None:
    """One download after another, each of them undone."""
    while not enough.is_set():
        answer = client.post("/api/models/download/vertebrae_mr").text
        assert '"status": "complete"' in answer, answer
        client.delete("/api/models/vertebrae_mr").raise_for_status()


def under_load(client: httpx.Client, image: Path, detections: int) -> dict[str, list[float]]:
    """The seconds of all questions, under each load."""
    port = client.base_url.port
    assert port is not None

    def detect() -> None:
        for _ in range(detections):
            body = {"file_path": str(image), "use_cache": False}
            client.post("/api/detect-vertebrae", json=body).raise_for_status()

    seconds = {
        "nothing runs": ask_repeatedly(port, lambda: time.sleep(QUIET_S)),
        "detections": ask_repeatedly(port, detect),
    }
    with meanwhile(lambda enough: download(client, enough)):
        seconds["downloads"] = ask_repeatedly(port, lambda: time.sleep(QUIET_S))
        seconds["detections and downloads"] = ask_repeatedly(port, detect)
    return seconds


def measure(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Lines of Markdown."""
    starts = [start_s(folder / "empty") for _ in range(arguments.starts)]
    image, model, results = folder / "ct.nii.gz", folder / "model.zip", folder / "results"
    scan.write_ct(image, FIELD)
    scan.write_weights(results, fast=True)
    scan.write_weights(results, fast=False)
    write_model(model, VERTEBRAE_MR, arguments.megabytes * 1_000_000)
    with process([sys.executable, "-m", "benchmarks.download", "--serve", str(model)]) as (release, _):
        env = {"PORT": "0", "OPENSCANS_HOME": str(folder / "home"), "OPENSCANS_WEIGHTS_URL": release}
        with (
            process([sys.executable, "main.py"], env) as (line, _),
            httpx.Client(base_url=line.split()[1], timeout=600, trust_env=False) as client,
        ):
            for task in ("total_body", "vertebrae"):
                body = {"file_path": str(results)}
                client.post(f"/api/models/import/{task}", json=body).raise_for_status()
            seconds = under_load(client, image, arguments.detections)
    return [
        f"First answer {statistics.median(starts):.2f} s after the start ({min(starts):.2f} to {max(starts):.2f}).",
        "",
        "| while | questions | median | p99 | slowest |",
        "|---|---|---|---|---|",
        *(row(name, own) for name, own in seconds.items()),
    ]


def row(name: str, seconds: list[float]) -> str:
    figures = (statistics.median(seconds), statistics.quantiles(seconds, n=100)[98], max(seconds))
    return f"| {name} | {len(seconds)} | {' | '.join(f'{figure * 1000:.1f} ms' for figure in figures)} |"


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--detections", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=250)
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder), parser.parse_args()):
            log.info(line)


if __name__ == "__main__":
    main()
