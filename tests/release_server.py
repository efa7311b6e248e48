"""A release server of one's own: real HTTP over a folder, with ranges, a record of every request, and faults to order.

Also builds tiny zips in the layout of the real releases.
"""

import gzip
import hashlib
import json
import random
import re
import threading
import time
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Self

from openscans.weights import catalogue
from openscans.weights.catalogue import Dataset
from phantom import layout, specs
from tests import checkpoints

PIECE_BYTES = 4096
CHECKPOINT_BYTES = 300_000
DATASETS: Mapping[int, Dataset] = {
    dataset.number: dataset for task in catalogue.TASKS.values() for dataset in task.datasets
}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer. ``drop_after`` and ``stall_after`` count bytes of its body.

    A stalled answer goes on when the server's ``resume`` is set. ``gap_s`` passes before each piece. ``announce``
    replaces Content-Length, ``chunked`` leaves it out, ``surplus`` is sent after the body. ``headers`` are added, and
    replace the usual ones; an empty value takes one away. ``location`` is where a redirect leads.
    """

    status: int | None = None
    drop_after: int | None = None
    stall_after: int | None = None
    gap_s: float = 0.0
    announce: int | None = None
    chunked: bool = False
    surplus: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    location: str | None = None
    ignore_range: bool = False
    ignore_if_range: bool = False
    compress: bool = False


@dataclass(frozen=True)
class Sent:
    """One request and what it got; ``body_bytes`` were meant to be sent, whether or not the client stayed."""

    path: str
    range: str | None
    status: int
    body_bytes: int
    at_s: float
    asked: Mapping[str, str]


@dataclass
class ReleaseServer:
    """``faults`` are used up one a request; afterwards, and without any, ``always`` applies."""

    folder: Path
    url: str = ""
    requests: list[Sent] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault = Fault()
    stalled: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def over(cls, folder: Path) -> Iterator[Self]:
        """Serve ``folder`` for the length of a block."""
        server = cls(folder)
        handler = type("Handler", (_Handler,), {"release": server})
        http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.resume.set()
            http.shutdown()
            thread.join()
            http.server_close()

    def body_bytes(self, path_end: str = "") -> int:
        """How much was sent of the files whose path ends so."""
        return sum(sent.body_bytes for sent in self.requests if sent.path.endswith(path_end))


class _Handler(BaseHTTPRequestHandler):
    release: ClassVar[ReleaseServer]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fault = self.release.faults.popleft() if self.release.faults else self.release.always
        path = self.release.folder / self.path.lstrip("/")
        if fault.status is not None or not path.is_file():
            headers = {} if fault.location is None else {"Location": fault.location}
            self._answer(fault.status or 404, headers, b"", fault)
            return
        content = path.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        start = self._start({tag, *fault.headers.values()}, fault)
        if start is None or start == 0:
            self._answer(200, headers, content, fault)
        elif start >= len(content):
            self._answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"", fault)
        else:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206, headers, content[start:], fault)

    def _start(self, validators: set[str], fault: Fault) -> int | None:
        """The first byte asked for; None where the whole file is to be sent."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        changed = self.headers.get("If-Range") not in {None, *validators}
        if asked is None or fault.ignore_range or (changed and not fault.ignore_if_range):
            return None
        return int(asked[1])

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, fault: Fault) -> None:
        if fault.compress:
            body = gzip.compress(body, 1)
            headers = {**headers, "Content-Encoding": "gzip"}
        stop = len(body) if fault.drop_after is None else min(fault.drop_after, len(body))
        # Recorded first: afterwards the client may already look.
        self.release.requests.append(
            Sent(self.path, self.headers.get("Range"), status, stop, time.monotonic(), dict(self.headers))
        )
        length = {} if fault.chunked else {"Content-Length": str(fault.announce or len(body))}
        framing = {"Transfer-Encoding": "chunked"} if fault.chunked else length
        self.send_response(status)
        # Said beforehand: a redirect's client would else send its next request into a connection that is closing.
        for name, value in {**headers, **framing, "Connection": "close", **fault.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):
            self._send(body, stop, fault)
        self.close_connection = True

    def _send(self, body: bytes, stop: int, fault: Fault) -> None:
        hold = len(body) + 1 if fault.stall_after is None else fault.stall_after
        for start in range(0, stop, PIECE_BYTES):
            if start >= hold and not self.release.resume.is_set():
                self.release.stalled.set()
                self.release.resume.wait(10)
            if fault.gap_s:
                self.release.resume.wait(fault.gap_s)
            self._write(body[start : min(start + PIECE_BYTES, stop)], fault)
        if stop == len(body):
            self._write(fault.surplus, fault)
            self._write(b"", fault, last=True)

    def _write(self, piece: bytes, fault: Fault, *, last: bool = False) -> None:
        if fault.chunked and (piece or last):
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        self.wfile.write(piece)

    def log_message(self, *_: object) -> None:
        """Silence; `ReleaseServer.requests` is the record."""


def training_files(number: int, checkpoint_bytes: int = CHECKPOINT_BYTES) -> dict[str, bytes]:
    """A training's files by their path in the release's zip; the same bytes every time.

    The plans are those of a small network, the weights random, and no network's.
    """
    root = f"{DATASETS[number].folder}/{DATASETS[number].training}"
    spec = specs.small(specs.SPECS[number], base_features=4, max_features=16, patch_zyx=(64, 64, 64))
    weights = random.Random(number).randbytes(max(checkpoint_bytes - checkpoints.OVERHEAD_BYTES, 1))
    return {
        f"{root}/plans.json": json.dumps(layout.plans_of(spec)).encode(),
        f"{root}/dataset.json": json.dumps(layout.dataset_of(spec)).encode(),
        f"{root}/dataset_fingerprint.json": b"{}",
        f"{root}/fold_0/checkpoint_final.pth": checkpoints.checkpoint(weights),
    }


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_folder(parent: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (parent / name).parent.mkdir(parents=True, exist_ok=True)
        (parent / name).write_bytes(content)
    return parent


def release_zip(release: Path, number: int) -> Path:
    """Where the zip of a dataset lies below ``release``."""
    return release / DATASETS[number].release_path


def write_release(release: Path, *numbers: int) -> Path:
    """The zips of these datasets, of all without any."""
    for number in numbers or DATASETS:
        write_zip(release_zip(release, number), training_files(number))
    return release
