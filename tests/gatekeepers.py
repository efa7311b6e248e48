"""What may stand between us and a server: a proxy that refuses, and a certificate that nobody has vouched for."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

SELF_SIGNED = (
    ("req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
    ("-addext", "keyUsage=critical,digitalSignature,keyCertSign"),
)


class _Silent(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Silence."""


@contextmanager
def refusing_proxy(status: int) -> Iterator[tuple[int, list[str]]]:
    """Gives whoever wants to be connected this answer: its port, and what it was asked for."""
    asked: list[str] = []

    class Handler(_Silent):
        def do_CONNECT(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(status)

    with _served(HTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield port, asked


@contextmanager
def certified(folder: Path) -> Iterator[tuple[int, Path]]:
    """An https server for localhost that has no file, with a certificate of its own: its port, and the certificate."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    options = [option for line in SELF_SIGNED for option in line]
    subprocess.run(
        ["openssl", *options, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )

    class Handler(_Silent):
        def do_GET(self) -> None:
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with _served(server) as port:
        yield port, certificate


@contextmanager
def _served(server: HTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
