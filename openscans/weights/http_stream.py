"""One request: what its answer's headers tell, and its body as it comes, or an error with a sentence that says why.

With `http_errors`, `proxies` and `trust`, the only user of httpx. Knows nothing of files, of what was begun before, or
of asking again.

Rules for threads. Every request runs in a thread of its own, so that who waits can leave at once, whatever the server
does; a thread that was left touches nothing more and ends by itself, at the latest when the server counts as dead.
`_changed` guards what has arrived, and is never held while anything is read, written or reported.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import httpx

from openscans.errors import Busy, DownloadFailed
from openscans.weights.http_errors import (
    WHOLE,
    check_response,
    connection_broken,
    translate_http_errors,
    translate_setting_errors,
    unreached,
)
from openscans.weights.proxies import ProxyTransport
from openscans.weights.retry_policy import RetryPolicy
from openscans.weights.trust import trusted_certificates

AHEAD_BYTES = 1 << 20
"""How far the network may be ahead of the disk. More leaves the processor's cache; less makes threads wait."""

TICK_S = 0.1
"""How often a wait asks whether it is still wanted."""


@dataclass(frozen=True)
class ResponseHead:
    """What the headers of a good answer tell of the file. ``total_bytes``: of the whole of it; 0 if that is not told.

    ``validator`` changes with the file's bytes; "" if the server gives none. ``first_byte`` is where the body begins.
    ``gives_rests``: the server says that it can leave out of a file what is here already.
    """

    status: int
    validator: str
    total_bytes: int
    first_byte: int | None
    gives_rests: bool

    @classmethod
    def of(cls, response: httpx.Response) -> "ResponseHead":
        tag = response.headers.get("etag", "")
        # A weak tag promises the same meaning, not the same bytes.
        validator = tag if tag.startswith('"') else response.headers.get("last-modified", "")
        told = response.headers.get("content-range", "")
        first, total = re.match(r"bytes ([0-9]+)-", told), re.search(r"/([0-9]+)$", told)
        length = response.headers.get("content-length", "0") if response.status_code == WHOLE else "0"
        return cls(
            status=response.status_code,
            validator=validator,
            total_bytes=int(total[1]) if total else int(length),
            first_byte=int(first[1]) if first else None,
            gives_rests=response.headers.get("accept-ranges", "").strip().lower() == "bytes",
        )


class BackgroundResponse:
    """A running request. While it waits, ``idle`` is called, which may raise to give up."""

    def __init__(self, url: str, *, idle: Callable[[], None]) -> None:
        self._url = url
        self._idle = idle
        self._changed = threading.Condition()
        self._reached = False
        self._head: ResponseHead | None = None
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._over = False
        self._left = False
        self._failure: DownloadFailed | None = connection_broken(url)

    def start(self, make_client: Callable[[], httpx.Client], headers: Mapping[str, str]) -> None:
        """Raises Busy where the system has no thread left for it."""
        thread = threading.Thread(target=self._run, args=(make_client, headers), name="response", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise Busy("The system has no threads left.") from error

    def head(self, *, reach_s: float) -> ResponseHead:
        """Raises DownloadFailed, also where there is no connection after ``reach_s``, and what ``idle`` raises."""
        end_s = time.monotonic() + reach_s
        # Nothing else bounds how long a name is looked up.
        self._await(lambda: self._reached or time.monotonic() > end_s)
        if not (self._reached or self._over):
            raise unreached(self._url)
        self._await(lambda: self._head is not None)
        if self._head is None:
            raise self._failure or connection_broken(self._url)
        return self._head

    def pieces(self) -> Iterator[bytes]:
        """The body; every byte that came, also when the connection breaks. Raises as above."""
        while True:
            self._await(lambda: bool(self._pieces))
            with self._changed:
                pieces, self._pieces, self._held_bytes = self._pieces, [], 0
                self._changed.notify_all()
            if not pieces:
                break
            # One write and one digest of many small pieces cost a fraction of as many of each.
            yield b"".join(pieces)
        if self._failure is not None:
            raise self._failure

    def leave(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def _await(self, come: Callable[[], bool]) -> None:
        """Until it has come, or will not come any more."""
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._over or come(), TICK_S):
                    return
            self._idle()

    def _run(self, make_client: Callable[[], httpx.Client], headers: Mapping[str, str]) -> None:
        try:
            with translate_http_errors(self._url), make_client() as client:
                self._ask(client, headers)
            self._failure = None
        except DownloadFailed as error:
            self._failure = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _ask(self, client: httpx.Client, headers: Mapping[str, str]) -> None:
        # Compressed on the way, a file's ranges would be those of the compressed one.
        headers = {"Accept-Encoding": "identity", **headers}
        with client.stream("GET", self._url, headers=headers, extensions={"trace": self._trace}) as response:
            check_response(self._url, response)
            self._take_head(ResponseHead.of(response))
            # As they come: a chunk size would keep back bytes that a broken connection then loses.
            for piece in response.iter_raw():
                if not self._take(piece):
                    return

    def _trace(self, event: str, _: Mapping[str, object]) -> None:
        """What httpx tells of a request: a connection is the first thing that is complete."""
        if not self._reached and event.endswith(".complete"):
            with self._changed:
                self._reached = True
                self._changed.notify_all()

    def _take_head(self, head: ResponseHead) -> None:
        with self._changed:
            self._head = head
            self._changed.notify_all()

    def _take(self, piece: bytes) -> bool:
        """Whether somebody still wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self._left or self._held_bytes < AHEAD_BYTES)
            self._pieces.append(piece)
            self._held_bytes += len(piece)
            if len(self._pieces) == 1:
                self._changed.notify_all()
            return not self._left


class HttpClient:
    """What the requests of one download share. Raises DownloadFailed where the environment's settings are unusable."""

    def __init__(self, retry_policy: RetryPolicy) -> None:
        self._policy = retry_policy
        with translate_setting_errors():
            self._trusted = trusted_certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

    @contextmanager
    def ask(
        self, url: str, headers: Mapping[str, str], *, reach_s: float, idle: Callable[[], None]
    ) -> Iterator[BackgroundResponse]:
        """Ask for ``url`` with these headers besides the usual ones; leaving the block leaves the request.

        Who waits ``reach_s`` for a connection hears of the second address of a host whose first one is dead.
        """
        response = BackgroundResponse(url, idle=idle)
        response.start(partial(self._client, reach_s / 2), headers)
        try:
            yield response
        finally:
            response.leave()

    def _client(self, connect_s: float) -> httpx.Client:
        policy = self._policy
        timeout = httpx.Timeout(policy.stall_s, connect=min(policy.connect_s, policy.stall_s, connect_s))
        return httpx.Client(timeout=timeout, follow_redirects=True, transport=ProxyTransport(self._trusted))
