"""A URL becomes a complete file with a known digest; what is interrupted goes on where it stopped.

Knows when to ask again, and whom; nothing of what the file holds.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from openscans.errors import DownloadFailed
from openscans.progress import Report, ignore_progress
from openscans.system import files
from openscans.system.regular_files import open_regular
from openscans.weights.http_errors import NOTHING_MORE, WHOLE, TransientError, Unreached, host_of, strip_login
from openscans.weights.http_stream import TICK_S, HttpClient, ResponseHead
from openscans.weights.partial_file import CHUNK_BYTES, Origin, PartialFile, paths_beside
from openscans.weights.retry_policy import DEFAULT_POLICY, RetryPolicy

ANOTHER_FILE_HINT = (
    "Start the download again when the mirror that it was begun at answers. To begin anew elsewhere, delete the model "
    "with DELETE /api/models/{task}, or leave that mirror out of OPENSCANS_WEIGHTS_URL."
)

LOGIN_HINT = (
    "A network that wants a login answers in every server's place: log in first, then start the download again."
)

LOOK_EVERY_BYTES = 16_000_000
"""How often the disk's free space is looked at: a fast line needs a tenth of a second for as much."""

log = logging.getLogger("openscans.downloads")


@dataclass(frozen=True)
class DownloadedFile:
    """A complete file, and the address that it came from, without a login ("" if that is no longer known)."""

    path: Path
    sha256: str
    url: str


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    report: Report = ignore_progress,
    retry_policy: RetryPolicy = DEFAULT_POLICY,
    room_after: float = 0.0,
    signature: bytes = b"",
) -> DownloadedFile:
    """``target`` from the first of ``urls`` (mirrors of one file) that gives it whole.

    What one of them has begun no other replaces: of the others only the rest of the same file is taken. ``report``
    counts bytes, also while nothing comes. ``room_after`` is how much room will be needed besides when the file is
    here, in sizes of the file. ``signature`` is how every such file begins. Raises DownloadFailed, DiskFull, Busy, and
    what ``report`` raises; then the bytes that came are kept.
    """
    failures = []
    with files.translate_os_errors(only_writes=True):
        part = PartialFile(target)
        if target.is_file():
            return DownloadedFile(target, sha256_of(target, report=report), part.url)
        target.parent.mkdir(parents=True, exist_ok=True)
        wanted = _Wanted(frozenset(map(strip_login, urls)), signature, room_after)
        client = HttpClient(retry_policy)
        for url in urls:
            try:
                digest = _Transfer(url, wanted, client, part, report, retry_policy.among(len(urls))).run()
            except DownloadFailed as error:
                log.warning("%s: %s", strip_login(url), error.message)
                failures.append(error)
            else:
                part.complete()
                return DownloadedFile(target, digest, strip_login(url))
    raise _join_failures(failures)


def announced_bytes(target: Path) -> int:
    """How large ``target`` is, as the server said whose bytes lie there; 0 as long as that is unknown."""
    try:
        return PartialFile(target).total_bytes
    except OSError:
        return 0


def partial_paths(target: Path) -> tuple[Path, ...]:
    """Every file that a download of ``target`` may leave, ``target`` among them."""
    part, origin = paths_beside(target)
    return (target, part, origin, *files.unfinished(origin))


def discard(target: Path) -> None:
    """Forget what was downloaded of ``target``, and ``target``."""
    for path in partial_paths(target):
        path.unlink(missing_ok=True)


def sha256_of(path: Path, *, report: Report = ignore_progress) -> str:
    """Raises OSError, and what ``report`` raises, which is told that all bytes are here."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        size_bytes = path.stat().st_size
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            report(size_bytes, size_bytes)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Wanted:
    """What is known of the file beforehand: its addresses, without logins, and the rest as `fetch` is told it."""

    addresses: frozenset[str]
    signature: bytes
    room_after: float


@dataclass(frozen=True)
class _Transfer:
    """Bringing the rest of ``part`` from one address."""

    url: str
    wanted: _Wanted
    client: HttpClient
    part: PartialFile
    report: Report
    retry_policy: RetryPolicy

    def run(self) -> str:
        """The whole file's SHA-256. Raises DownloadFailed for what lasts, and for what does not pass in time."""
        policy, most_bytes, failures = self.retry_policy, self.part.size_bytes, 0
        while True:
            try:
                return self._attempt(policy.reach_s)
            except TransientError as error:
                if self.part.size_bytes > most_bytes:
                    most_bytes, failures = self.part.size_bytes, 0
                if not isinstance(error, Unreached):
                    policy = policy.once_reached()
                failures += 1
                if failures > _forgiven(error, policy):
                    asked = f" Asked {failures} times." if failures > 1 else ""
                    raise DownloadFailed(f"{error.message}{asked}", hint=error.hint) from error
                log.info("%s: %s Trying again.", strip_login(self.url), error.message)
                self._pause(policy.pause_s(failures, error.retry_after_s))

    def _attempt(self, reach_s: float) -> str:
        """One request for what is missing; the whole file's SHA-256."""
        self.part.digest(self._tell)
        with self.client.ask(self.url, self.part.range_headers(), reach_s=reach_s, idle=self._tell) as response:
            head = response.head(reach_s=reach_s)
            self._check_origin(head)
            pieces = response.pieces()
            if head.status == WHOLE:
                pieces = self._beyond_what_is_here(head, self._from_its_start(pieces))
            elif not self.part.goes_on_with(head):
                self.part.keep(0, Origin())
                raise TransientError(f"{host_of(self.url)} has another file or piece than the one that was begun.")
            if head.status != NOTHING_MORE:
                self._receive(pieces, head.total_bytes or self.part.total_bytes)
        return self.part.digest(self._tell)

    def _check_origin(self, head: ResponseHead) -> None:
        """Raises DownloadFailed where bytes with which another mirror can go on would give way to this one's file."""
        if self._is_anothers() and not (self.part.goes_on_with(head) or self.part.may_begin(head)):
            raise _another_file(self.url)

    def _is_anothers(self) -> bool:
        """Whether what is here is of another mirror, which can go on with it."""
        begun_at = self.part.url
        elsewhere = begun_at != strip_login(self.url) and begun_at in self.wanted.addresses
        return elsewhere and bool(self.part.range_headers())

    def _beyond_what_is_here(self, head: ResponseHead, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """What follows in ``pieces`` of a whole file after what is here and the same; what differs gives way to it.

        Raises DownloadFailed where another mirror can go on with that.
        """
        same_bytes, rest = self.part.compare(pieces, self._tell)
        if same_bytes < self.part.size_bytes and self._is_anothers():
            raise _another_file(self.url)
        # One that tells no length, and breaks off, would else be taken to have sent the whole.
        known_bytes = self.part.total_bytes if self._is_anothers() else 0
        self.part.keep(same_bytes, Origin(strip_login(self.url), head.validator, head.total_bytes or known_bytes))
        self.part.digest(self._tell)
        return rest

    def _from_its_start(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """``pieces`` of a whole file. Raises DownloadFailed where it does not begin as it should."""
        start = b""
        while len(start) < len(self.wanted.signature) and (piece := next(pieces, b"")):
            start += piece
        if not start.startswith(self.wanted.signature):
            sentence = f"{host_of(self.url)} sent something else in the place of the file, perhaps a page for a login."
            raise DownloadFailed(sentence, hint=LOGIN_HINT)
        return chain([start], pieces)

    def _receive(self, pieces: Iterator[bytes], total_bytes: int) -> None:
        next_look_bytes = 0

        def count(size_bytes: int) -> None:
            nonlocal next_look_bytes
            if size_bytes >= next_look_bytes:
                files.require_room(self.part.path.parent, self._needed_bytes(total_bytes))
                next_look_bytes = size_bytes + LOOK_EVERY_BYTES
            if 0 < total_bytes < size_bytes:
                raise TransientError(f"{host_of(self.url)} sent more than the {total_bytes} bytes that it announced.")
            self.report(size_bytes, total_bytes)

        count(self.part.size_bytes)
        try:
            self.part.append(pieces, count)
        except OSError as error:
            if files.is_disk_full(error):
                raise files.disk_full_error(self.part.path.parent, self._needed_bytes(total_bytes)) from error
            raise
        if total_bytes > self.part.size_bytes:
            sizes = f"announced {total_bytes} bytes and sent {self.part.size_bytes}"
            raise TransientError(f"{host_of(self.url)} {sizes}.")

    def _needed_bytes(self, total_bytes: int) -> int:
        return max(total_bytes - self.part.size_bytes, 0) + int(total_bytes * self.wanted.room_after)

    def _tell(self, _: int = 0) -> None:
        self.report(self.part.size_bytes, self.part.total_bytes)

    def _pause(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._tell()
            time.sleep(min(TICK_S, left_s))


def _forgiven(error: TransientError, policy: RetryPolicy) -> int:
    """How many failures in a row, the last of which is ``error``, are no reason to give up."""
    if isinstance(error, Unreached):
        return policy.unreached_retries
    return policy.retries if error.retries is None else error.retries


def _another_file(url: str) -> DownloadFailed:
    sentence = f"{host_of(url)} has another file than the one that was begun at another mirror."
    return DownloadFailed(sentence, hint=ANOTHER_FILE_HINT)


def _join_failures(failures: Sequence[DownloadFailed]) -> DownloadFailed:
    if not failures:
        return DownloadFailed("No address to download from is set.")
    # Mirrors fail alike where the fault is ours, and saying it once is enough.
    return DownloadFailed(" ".join(dict.fromkeys(error.message for error in failures)), hint=failures[-1].hint)
