"""A release server that sends piece by piece, with a gate that a test can close, over TLS if wanted; and a proxy.

Both are real servers that write down what they did.
"""

import http.client
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

PIECE_BYTES = 8192


@dataclass
class SlowRelease:
    """Serves ``folder``, a piece every ``pause_s``, as long as ``gate`` is set.

    ``sent_bytes`` counts per path what was handed to the system; ``asked`` are all requests as (path, first byte).
    """

    folder: Path
    pause_s: float = 0.0
    url: str = ""
    sent_bytes: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def over(cls, folder: Path, *, pause_s: float = 0.0, tls: ssl.SSLContext | None = None) -> Iterator[Self]:
        release = cls(folder, pause_s)
        release.gate.set()
        with _served(_FileHandler, release=release, tls=tls) as port:
            release.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
            yield release
            release.closing.set()
            release.gate.set()

    def total_bytes(self) -> int:
        return sum(self.sent_bytes.values())


@dataclass
class Proxy:
    """Passes on plain requests and tunnels; ``asked`` are the addresses it was asked for."""

    url: str = ""
    asked: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        proxy = cls()
        with _served(_ProxyHandler, proxy=proxy) as port:
            proxy.url = f"http://127.0.0.1:{port}"
            yield proxy


@contextmanager
def _served(
    handler: type[BaseHTTPRequestHandler], *, tls: ssl.SSLContext | None = None, **known: object
) -> Iterator[int]:
    """The port of a server that runs for the length of the block; its handlers know ``known``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), known))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _FileHandler(BaseHTTPRequestHandler):
    release: ClassVar[SlowRelease]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.release.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.release.asked.append((self.path, start))
        status = 416 if start >= len(content) else 206 if start else 200
        body = content[start:]
        self.send_response(status)
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        elif status == 416:
            self.send_header("Content-Range", f"bytes */{len(content)}")
        self.send_header("Connection", "close")
        self.end_headers()
        with suppress(OSError):
            self._send(body)
        self.close_connection = True

    def _send(self, body: bytes) -> None:
        for start in range(0, len(body), PIECE_BYTES):
            self.release.gate.wait()
            if self.release.closing.is_set():
                return
            piece = body[start : start + PIECE_BYTES]
            self.wfile.write(piece)
            self.release.sent_bytes[self.path] = self.release.sent_bytes.get(self.path, 0) + len(piece)
            time.sleep(self.release.pause_s)

    def log_message(self, *_: Any) -> None:
        """Silence; the lists are the record."""


class _ProxyHandler(BaseHTTPRequestHandler):
    proxy: ClassVar[Proxy]

    def do_GET(self) -> None:
        self.proxy.asked.append(self.path)
        address = urlsplit(self.path)
        there = http.client.HTTPConnection(address.netloc, timeout=10)
        there.request("GET", address.path, headers={"Range": self.headers.get("Range", "bytes=0-")})
        answer = there.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name in ("ETag", "Content-Length", "Content-Range"):
            if answer.headers[name]:
                self.send_header(name, answer.headers[name])
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.proxy.asked.append(self.path)
        host, port = self.path.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as there:
            self.send_response(200)
            self.end_headers()
            _relay(self.connection, there)

    def log_message(self, *_: Any) -> None:
        """Silence; the list is the record."""


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until one side ends."""
    opposite = {one: other, other: one}
    with suppress(OSError):
        while True:
            readable, _, _ = select.select(list(opposite), [], [], 10)
            for end in readable:
                received = end.recv(65_536)
                if not received:
                    return
                opposite[end].sendall(received)
