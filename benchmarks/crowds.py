"""How soon health answers while others do what they should not, and whether everything is served afterwards.

    python -m benchmarks.crowds [--seconds 60] [--megabytes 250]

Forty requests at a time that are abandoned after a second each, about a sparse file of 4 GiB, and about a pipe that
lies where a file should; 260 connections that say nothing; a download and a detection, one after another. The networks
are as in `benchmarks.health`. Writes Markdown.
"""

import argparse
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from benchmarks import health, scan
from benchmarks.download import process, write_model
from openscans.weights.catalogue import VERTEBRAE_MR

ABANDONED = 40
LEFT_AFTER_S = 1.0

IDLE = 260

SPARSE_BYTES = 4 << 30

DETECT = b"POST /api/detect-vertebrae HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

log = logging.getLogger(__name__)

Crowd = Callable[[threading.Event], None]
"""Goes on until it is told that it is enough."""


def abandon(port: int, image: Path, enough: threading.Event) -> None:
    """Ask for detections in ``image``, and go away."""
    body = json.dumps({"file_path": str(image)}).encode()
    request = DETECT + b"Content-Length: %d\r\n\r\n" % len(body) + body
    asked: deque[socket.socket] = deque()
    while not enough.wait(LEFT_AFTER_S / ABANDONED):
        asked.append(socket.create_connection(("127.0.0.1", port)))
        asked[-1].sendall(request)
        if len(asked) > ABANDONED:
            asked.popleft().close()
    for connection in asked:
        connection.close()


def stay_idle(port: int, enough: threading.Event) -> None:
    """Hold connections; where the server closes one, open another."""
    held: list[socket.socket] = []
    while not enough.wait(0.1):
        held = [connection for connection in held if is_open(connection)]
        held += [socket.create_connection(("127.0.0.1", port)) for _ in range(IDLE - len(held))]
    for connection in held:
        connection.close()


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    with suppress(BlockingIOError):
        with suppress(ConnectionError):
            connection.recv(1)
        connection.close()
        return False
    return True


def detect_and_download(client: httpx.Client, image: Path, enough: threading.Event) -> None:
    with health.meanwhile(lambda over: health.download(client, over)):
        while not enough.is_set():
            detect(client, image)


def detect(client: httpx.Client, image: Path) -> None:
    client.post("/api/detect-vertebrae", json={"file_path": str(image), "use_cache": False}).raise_for_status()


def served_s(client: httpx.Client, image: Path) -> float:
    """Seconds until all kinds of routes have answered, a detection among them."""
    began_s = time.perf_counter()
    for path in ("/api/health", "/api/models/status", "/api/jobs", "/docs", "/openapi.json"):
        client.get(path).raise_for_status()
    detect(client, image)
    return time.perf_counter() - began_s


def rows(client: httpx.Client, crowds: Mapping[str, Crowd], image: Path, seconds: float) -> list[str]:
    """A line of the table for each crowd."""
    port = client.base_url.port
    assert port is not None
    found = []
    for name, crowd in crowds.items():
        with health.meanwhile(crowd):
            asked = health.ask_repeatedly(port, lambda: time.sleep(seconds))
        found.append(f"{health.row(name, asked)} {served_s(client, image):.1f} s |")
        log.info(found[-1])
    return found


def crowds_of(client: httpx.Client, folder: Path, image: Path) -> dict[str, Crowd]:
    port = client.base_url.port
    assert port is not None
    vast, pipe = folder / "vast.nii", folder / "series" / "pipe.dcm"
    vast.touch()
    os.truncate(vast, SPARSE_BYTES)
    pipe.parent.mkdir()
    if sys.platform != "win32":
        os.mkfifo(pipe)
    return {
        "nothing else": lambda enough: None,
        "40 abandoned requests about 4 GiB": lambda enough: abandon(port, vast, enough),
        "40 abandoned requests about a pipe": lambda enough: abandon(port, pipe, enough),
        "40 abandoned requests about a pipe's folder": lambda enough: abandon(port, pipe.parent, enough),
        "260 idle connections": lambda enough: stay_idle(port, enough),
        "a download and a detection": lambda enough: detect_and_download(client, image, enough),
    }


def measure(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Lines of Markdown."""
    image, model, results = folder / "ct.nii.gz", folder / "model.zip", folder / "results"
    scan.write_ct(image, health.FIELD)
    for fast in (True, False):
        scan.write_weights(results, fast=fast)
    write_model(model, VERTEBRAE_MR, arguments.megabytes * 1_000_000)
    with process([sys.executable, "-m", "benchmarks.download", "--serve", str(model)]) as (release, _):
        env = {"PORT": "0", "OPENSCANS_HOME": str(folder / "home"), "OPENSCANS_WEIGHTS_URL": release}
        with (
            process([sys.executable, "main.py"], env) as (line, _),
            httpx.Client(base_url=line.split()[1], timeout=600, trust_env=False) as client,
        ):
            for task in ("total_body", "vertebrae"):
                client.post(f"/api/models/import/{task}", json={"file_path": str(results)}).raise_for_status()
            detect(client, image)
            own = rows(client, crowds_of(client, folder, image), image, arguments.seconds)
    return ["| while | questions | median | p99 | slowest | all served after |", "|---|---|---|---|---|---|", *own]


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--megabytes", type=int, default=250)
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder), parser.parse_args()):
            log.info(line)


if __name__ == "__main__":
    main()
