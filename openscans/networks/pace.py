"""How long a patch takes: reckoned from a small convolution before the first, kept on disk once some were computed.

Knows plans and clocks; the engine does the convolution, in the precision and the form in which it runs its networks.
"""

import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openscans.networks.compiled_cache import key_of
from openscans.system import parallel
from openscans.system.disk_cache import DiskCache
from openscans.types import InferenceOptions, TrainedModel

SMALL_WEIGHTS = ((32, 1, 3, 3, 3), (32, 32, 3, 3, 3))
"""Shapes of two convolutions, one after the other, with a stride of 1: the first two of the CT networks, in the finest
stage, where most of a network's time goes."""

SMALL_EDGES = (8, 32, 64)
"""Voxels along each side of what is convolved, tried in turn. 8³ take a fraction of a second even in loops that need a
hundred instructions for what others do in one; beyond 64³ nothing is learnt that the first patch does not tell."""

ENOUGH_S = 0.005
"""What takes so long is measured well; with 64 times as many voxels it would take a third of a second."""

TIMES = 3

CHANGED = 4.0
"""How many times more or less than the small run tells patches may have taken: it is off by nearly as much itself
(`time_multiply_add`). What is further off was with other kernels, or beside another program."""

SUFFIX = ".pace"

MOST_KEPT = 32
"""Four networks and a small run, in a few precisions and numbers of threads."""


def time_multiply_add(make_run: Callable[[int], Callable[[], object]]) -> float:
    """The seconds that a multiply-add takes in convolutions of `SMALL_WEIGHTS`.

    ``make_run`` prepares them for a cube of so many voxels along each side; what it returns does them once.

    Times a plan's multiply-adds it is 0.4 to 3.6 times what a patch takes: measured for 292, 297, 298 and 756 at full
    size, in bfloat16 and float32, with kernels for AVX-512, for AVX2 and over planes, on two cores so busy that one
    patch took up to three times another.
    """
    for edge in SMALL_EDGES:
        took_s = _time(make_run(edge))
        multiply_adds = sum(map(math.prod, SMALL_WEIGHTS)) * edge**3
        if took_s > ENOUGH_S:
            break
    return took_s / multiply_adds


def _time(run: Callable[[], object]) -> float:
    """The seconds of one ``run``: the fastest of a few, because the first of all prepares something, too."""
    fastest_s = math.inf
    for _ in range(TIMES):
        began_s = time.perf_counter()
        run()
        fastest_s = min(fastest_s, time.perf_counter() - began_s)
    return fastest_s


@dataclass(frozen=True)
class PaceBook:
    """Seconds that something took on this machine, kept in ``folder`` for the next process."""

    folder: Path

    def get(self, *facts: str) -> float | None:
        """What `put` kept under ``facts``; None where there is nothing."""
        kept = self._cache.get(self._key(facts))
        try:
            return None if kept is None else float(kept)
        except ValueError:
            return None

    def put(self, seconds: float, *facts: str) -> None:
        """Keep what took ``seconds`` under the ``facts`` that decide how long it takes, beside the machine."""
        self._cache.put(self._key(facts), repr(seconds).encode())

    @property
    def _cache(self) -> DiskCache:
        return DiskCache(self.folder, SUFFIX, MOST_KEPT)

    def _key(self, facts: tuple[str, ...]) -> str:
        return key_of(platform.node(), *facts)


@dataclass
class PatchPace:
    """The seconds that a patch of so many ``multiply_adds`` takes, reckoned from a small run that is kept in ``book``
    under ``facts``."""

    book: PaceBook
    facts: tuple[str, ...]
    multiply_adds: int
    patch_s: float

    def correct(self, took_s: float) -> None:
        """A patch took so long. Where that is far less than was reckoned, the small run was timed beside another
        program, and no other process should go by it."""
        if took_s * CHANGED < self.patch_s:
            self.patch_s = took_s
            self.book.put(took_s / self.multiply_adds, *self.facts)


def reckon(
    book: PaceBook, facts: tuple[str, ...], multiply_adds: int, make_run: Callable[[int], Callable[[], object]]
) -> PatchPace:
    """The pace of a patch, by a small run (`time_multiply_add`) that is timed once under ``facts``."""
    multiply_add_s = book.get(*facts)
    if multiply_add_s is None:
        multiply_add_s = time_multiply_add(make_run)
        book.put(multiply_add_s, *facts)
    return PatchPace(book, facts, multiply_adds, multiply_adds * multiply_add_s)


def facts_of(model: TrainedModel, device: str, options: InferenceOptions) -> tuple[str, ...]:
    """What decides, beside the machine, how long a patch of ``model`` takes, without loading it."""
    return model.sha256, device, options.precision, str(options.threads or parallel.thread_count())


def believe(reckoned_s: float, kept_s: float | None) -> float:
    """What a patch should take, of what was ``reckoned_s`` now and what was ``kept_s``, if anything.

    What patches took tells better than a small run, unless something has changed since (`CHANGED`).
    """
    if kept_s is None or not reckoned_s / CHANGED <= kept_s <= reckoned_s * CHANGED:
        return reckoned_s
    return kept_s
