"""A URL becomes a complete file with a known digest; what is interrupted goes on where it stopped.

Only user of httpx. Knows nothing of what the file holds.
"""

import hashlib
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx

import disk
from errors import DownloadFailed
from progress import Report, unheard

STALL_S = 30.0
"""Silence after which a connection counts as dead. There is no limit for the whole: slow lines may take hours."""

CONNECT_S = 10.0

WAITS_S = (0.5, 1.5)
"""Pauses before a server that failed in a way that may pass is asked again; bytes gained start the list anew."""

TICK_S = 0.1
"""How often a pause asks whether it is still wanted."""

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses that may be gone a moment later."""

REFUSALS = {
    401: "{host} wants a password for {file} (401).",
    403: "{host} refuses to give out {file} (403).",
    404: "{host} has no file {file} (404).",
    410: "{host} no longer has {file} (410).",
}

log = logging.getLogger("openscans.downloads")


class _Transient(DownloadFailed):
    """A failure that may be gone when asked again."""


@dataclass(frozen=True)
class Fetched:
    """A complete file, and the address that it came from, without a login ("" if it was there before)."""

    path: Path
    sha256: str
    url: str


@dataclass(frozen=True)
class _Origin:
    """Where a partial file's bytes come from, and what tells whether the file there is still the same."""

    url: str
    validator: str
    total_bytes: int

    @classmethod
    def of(cls, url: str, response: httpx.Response) -> "_Origin":
        tag = response.headers.get("etag", "")
        # A weak tag promises the same meaning, not the same bytes.
        validator = tag if tag.startswith('"') else response.headers.get("last-modified", "")
        return cls(_without_login(url), validator, _announced_bytes(response))

    @classmethod
    def unknown(cls) -> "_Origin":
        """Of bytes that nothing can be added to."""
        return cls("", "", 0)


class _Part:
    """The bytes that are there already (``.part``) and, beside them, their origin (``.part.json``)."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._origin_path = target.with_name(f"{target.name}.part.json")

    @property
    def size_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def origin(self) -> _Origin | None:
        try:
            return _Origin(**json.loads(self._origin_path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def restart(self, origin: _Origin) -> None:
        self.path.write_bytes(b"")
        self._origin_path.write_text(json.dumps(asdict(origin)), encoding="utf-8")

    def complete(self, target: Path) -> None:
        self.path.replace(target)
        self._origin_path.unlink(missing_ok=True)


def fetch(urls: Sequence[str], target: Path, *, report: Report = unheard, stall_s: float = STALL_S) -> Fetched:
    """``target`` from the first of ``urls`` (mirrors of one file) that gives it whole.

    ``report`` counts bytes. Raises DownloadFailed, DiskFull, and what ``report`` raises; the bytes that came are kept.
    """
    failures = []
    with _client(stall_s) as client, disk.errors_translated():
        if target.exists():
            return Fetched(target, sha256_of(target), "")
        target.parent.mkdir(parents=True, exist_ok=True)
        for url in urls:
            try:
                return _fetch_patiently(client, url, target, report)
            except DownloadFailed as error:
                log.warning("%s: %s", _without_login(url), error.message)
                failures.append(error.message)
    raise DownloadFailed(" ".join(failures) or "No address to download from is set.")


def part_bytes(target: Path) -> int:
    """How much of ``target`` an interrupted download has left behind."""
    return _Part(target).size_bytes


def paths_of(target: Path) -> tuple[Path, ...]:
    """Every file that a download of ``target`` may leave, ``target`` among them."""
    return tuple(target.with_name(f"{target.name}{end}") for end in ("", ".part", ".part.json"))


def discard(target: Path) -> None:
    """Forget what was downloaded of ``target``, and ``target``."""
    for path in paths_of(target):
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _client(stall_s: float) -> httpx.Client:
    """Raises DownloadFailed where the environment's settings cannot be used."""
    timeout = httpx.Timeout(stall_s, connect=min(CONNECT_S, stall_s))
    try:
        return httpx.Client(timeout=timeout, follow_redirects=True)
    except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
        raise DownloadFailed(
            "The settings for the proxy or for the certificates cannot be used.",
            hint="HTTPS_PROXY must be an http or https address, SSL_CERT_FILE a file of certificates in PEM format.",
        ) from error


def _fetch_patiently(client: httpx.Client, url: str, target: Path, report: Report) -> Fetched:
    part = _Part(target)
    waits_s = list(WAITS_S)
    while True:
        had_bytes = part.size_bytes
        try:
            digest = _attempt(client, url, part, report)
        except _Transient as error:
            if part.size_bytes > had_bytes:
                waits_s = list(WAITS_S)
            if not waits_s:
                raise
            log.info("%s: %s Trying again.", _without_login(url), error.message)
            _pause(waits_s.pop(0), part, report)
        else:
            part.complete(target)
            return Fetched(target, digest, _without_login(url))


def _pause(seconds: float, part: _Part, report: Report) -> None:
    origin = part.origin()
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        report(part.size_bytes, origin.total_bytes if origin else 0)
        time.sleep(TICK_S)


def _attempt(client: httpx.Client, url: str, part: _Part, report: Report) -> str:
    """One request for what is missing of ``part``; the whole file's SHA-256."""
    # Compressed on the way, a file's ranges would be those of the compressed one.
    headers = {"Accept-Encoding": "identity", **_resuming(url, part)}
    with _translated(url), client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _already_whole(url, part, response)
        _refuse_all_but_files(url, response)
        return _receive(url, part, response, report)


def _resuming(url: str, part: _Part) -> Mapping[str, str]:
    """The headers that ask for the rest, where it can be known that it belongs to what is there."""
    origin = part.origin()
    if part.size_bytes == 0 or origin is None or origin.url != _without_login(url) or not origin.validator:
        return {}
    return {"Range": f"bytes={part.size_bytes}-", "If-Range": origin.validator}


def _already_whole(url: str, part: _Part, response: httpx.Response) -> str:
    """The server has nothing beyond what is there: it is complete, or it is not of this file."""
    if _announced_bytes(response) in {0, part.size_bytes} and _known_total(part) in {0, part.size_bytes}:
        return sha256_of(part.path)
    part.restart(_Origin.unknown())
    raise _Transient(f"{_host(url)} has another file than the one that was begun.")


def _known_total(part: _Part) -> int:
    origin = part.origin()
    return origin.total_bytes if origin else 0


def _receive(url: str, part: _Part, response: httpx.Response, report: Report) -> str:
    total_bytes = _announced_bytes(response)
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        part.restart(_Origin.of(url, response))
    elif _first_byte(response) != part.size_bytes:
        part.restart(_Origin.unknown())
        raise _Transient(f"{_host(url)} sent another piece than the one that was asked for.")
    disk.require_room(part.path.parent, max(total_bytes - part.size_bytes, 0))
    with part.path.open("rb") as begun:
        digest = hashlib.file_digest(begun, "sha256")
    with part.path.open("ab") as out:
        report(out.tell(), total_bytes)
        # As they come: a chunk size would keep back bytes that a broken connection then loses.
        for chunk in response.iter_raw():
            out.write(chunk)
            digest.update(chunk)
            report(out.tell(), total_bytes)
    if total_bytes not in {0, part.size_bytes}:
        raise _Transient(f"{_host(url)} announced {total_bytes} bytes and sent {part.size_bytes}.")
    return digest.hexdigest()


def _announced_bytes(response: httpx.Response) -> int:
    """The whole file's size; 0 where the server does not tell."""
    whole = re.search(r"/(\d+)$", response.headers.get("content-range", ""))
    if whole:
        return int(whole[1])
    if response.status_code != httpx.codes.OK:
        return 0
    return int(response.headers.get("content-length", "0"))


def _first_byte(response: httpx.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(found[1]) if found else None


def _refuse_all_but_files(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if status in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
        return
    if status in PASSING:
        raise _Transient(f"{_host(url)} cannot give out the file at the moment ({status}).")
    sentence = REFUSALS.get(status, "{host} answered {status} instead of {file}.")
    raise DownloadFailed(sentence.format(host=_host(url), file=urlsplit(url).path.rpartition("/")[2], status=status))


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Raises DownloadFailed for any of httpx's errors inside the block."""
    try:
        yield
    except httpx.ReadTimeout as error:
        raise _Transient(f"{_host(url)} stopped sending.") from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        reason = "its certificate is not trusted" if "CERTIFICATE" in str(error) else "no connection"
        raise _Transient(f"{_host(url)} cannot be reached ({reason}).") from error
    except httpx.ProxyError as error:
        raise _Transient(f"The proxy does not let us through to {_host(url)}.") from error
    except httpx.TransportError as error:
        raise _Transient(f"The connection to {_host(url)} broke off.") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadFailed(f"{_host(url)} cannot be asked: {type(error).__name__}.") from error


def _without_login(url: str) -> str:
    """A mirror's address may hold a name and password, which belong into no log and no manifest."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _host(url: str) -> str:
    return urlsplit(url).hostname or "The server"
