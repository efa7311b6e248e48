"""What is already here of a file: its bytes, the digest of them, and what tells whether others belong to them.

Knows the ``.part`` and ``.part.json`` beside the file to be; nothing of connections or of when to ask again.

Rules for processes. One at a time writes here, which holds the dataset's lock; others may ask for sizes meanwhile.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from io import FileIO
from itertools import chain
from pathlib import Path

from openscans.system.files import write_whole
from openscans.system.regular_files import open_regular
from openscans.weights.http_errors import NOTHING_MORE, REST, WHOLE
from openscans.weights.http_stream import ResponseHead

CHUNK_BYTES = 1 << 20
"""A read of this size takes about a millisecond, and then somebody who wants to stop is heard."""


@dataclass(frozen=True)
class Origin:
    """Where bytes come from, and what tells whether the file there is still the same. ``total_bytes`` 0: unknown."""

    url: str = ""
    validator: str = ""
    total_bytes: int = 0

    @classmethod
    def read(cls, path: Path) -> "Origin":
        """An empty one, to whose bytes nothing can be added, where there is none that can be read."""
        try:
            with open_regular(path) as file:
                found = cls(**json.load(file))
        except (OSError, ValueError, TypeError, RecursionError):
            return cls()
        usable = isinstance(found.url, str) and isinstance(found.validator, str) and isinstance(found.total_bytes, int)
        return found if usable else cls()

    def write(self, path: Path) -> None:
        # Without it, the bytes that outlive a power cut could not be used.
        write_whole(path, [json.dumps(asdict(self)).encode()], durable=True)


class PartialFile:
    """The beginning of ``target``."""

    def __init__(self, target: Path) -> None:
        self.path, self._origin_path = paths_beside(target)
        self._target = target
        self._origin = Origin.read(self._origin_path)
        self._digest = hashlib.sha256()
        self._digested_bytes = 0

    @property
    def size_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def total_bytes(self) -> int:
        """Of the whole file; 0 as long as that is unknown."""
        return self._origin.total_bytes

    @property
    def url(self) -> str:
        return self._origin.url

    def digest(self, on_size: Callable[[int], None]) -> str:
        """SHA-256 of what is here. ``on_size`` is told the size again and again while that has to be read first."""
        size_bytes = self.size_bytes
        if size_bytes < self._digested_bytes:
            self._forget_digest()
        if size_bytes > self._digested_bytes:
            with open_regular(self.path) as begun:
                begun.seek(self._digested_bytes)
                while chunk := begun.read(CHUNK_BYTES):
                    self._count(chunk)
                    on_size(size_bytes)
        return self._digest.hexdigest()

    def range_headers(self) -> Mapping[str, str]:
        """The headers that ask for the rest only, where it can be known that it belongs to what is here."""
        size_bytes = self.size_bytes
        too_long = 0 < self.total_bytes < size_bytes
        if size_bytes == 0 or too_long or not self._origin.validator:
            return {}
        return {"Range": f"bytes={size_bytes}-", "If-Range": self._origin.validator}

    def goes_on_with(self, head: ResponseHead) -> bool:
        """Whether the body of ``head`` is what is missing here; of a whole file there is none."""
        if head.status == REST:
            return head.first_byte == self.size_bytes and self._same_file(head)
        return head.status == NOTHING_MORE and self._is_whole(head)

    def may_begin(self, head: ResponseHead) -> bool:
        """Whether the whole file that is the body of ``head`` may begin with what is here.

        A server that gives rests was asked for this one's, and would have given it if it had the same file.
        """
        if head.status != WHOLE or head.total_bytes not in {0, self.total_bytes or head.total_bytes}:
            return False
        return not head.gives_rests or head.validator == self._origin.validator

    def compare(self, pieces: Iterator[bytes], on_piece: Callable[[], None]) -> tuple[int, Iterator[bytes]]:
        """How many bytes of what is here a whole file that comes in ``pieces`` begins with, and what follows them."""
        same_bytes = 0
        if self.size_bytes:
            with open_regular(self.path) as begun:
                for piece in pieces:
                    here = begun.read(len(piece))
                    if not piece.startswith(here):
                        return same_bytes, chain([piece], pieces)
                    same_bytes += len(here)
                    on_piece()
                    if len(here) < len(piece):
                        return same_bytes, chain([piece[len(here) :]], pieces)
        return same_bytes, pieces

    def keep(self, size_bytes: int, origin: Origin) -> None:
        """Forget what is here beyond ``size_bytes``; what comes will be from ``origin``."""
        if not self.path.is_file():
            # Who writes into a pipe waits for somebody who reads.
            self.path.unlink(missing_ok=True)
        with self.path.open("ab") as begun:
            begun.truncate(size_bytes)
        self._origin = origin
        origin.write(self._origin_path)

    def append(self, pieces: Iterable[bytes], on_size: Callable[[int], None]) -> None:
        """Add ``pieces``, telling the size after each. Raises OSError, and what ``on_size`` raises."""
        with self.path.open("ab", buffering=0) as out:
            for piece in pieces:
                _write_all(out, piece)
                self._count(piece)
                on_size(self._digested_bytes)

    def complete(self) -> None:
        """It is whole: give it its name. Where it came from stays known until it is discarded."""
        self.path.replace(self._target)

    def _same_file(self, head: ResponseHead) -> bool:
        known_total, known_validator = self._origin.total_bytes, self._origin.validator
        return head.total_bytes in {0, known_total or head.total_bytes} and head.validator in {
            "",
            known_validator,
        }

    def _is_whole(self, head: ResponseHead) -> bool:
        return self._same_file(head) and self.size_bytes in {head.total_bytes or self.total_bytes} - {0}

    def _count(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._digested_bytes += len(piece)

    def _forget_digest(self) -> None:
        self._digest, self._digested_bytes = hashlib.sha256(), 0


def paths_beside(target: Path) -> tuple[Path, Path]:
    """The bytes, and where they come from."""
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")


def _write_all(out: FileIO, piece: bytes) -> None:
    """A disk that is nearly full takes a part of what it is given, and complains only the next time."""
    rest = memoryview(piece)
    while rest:
        rest = rest[out.write(rest) :]
