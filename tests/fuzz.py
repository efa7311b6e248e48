"""Damages images of every format and reads them: each must give an image or a typed error, in time and in memory.

`python -m tests.fuzz --files 10000` prints the figures. A child process with a limit of memory reads, so that a crash
is seen and a file that takes too long is given up.
"""

import argparse
import faulthandler
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]

LONGEST_S = 5.0
START_S = 120.0
"""Until the child has loaded its libraries and written the images it damages."""

SPARE_BYTES = 2**30
"""Address space beyond what the child has when it begins to read."""

EVERY_FILE = 0.5
"""Share of the damage that is done to all files of a series alike, so that they still agree."""

NOT_DAMAGED = {"gzip with a long tail"}
"""Unpacks to 200 MB, which is no use in every second file."""


@dataclass
class Figures:
    """What became of the damaged files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_ms: float = 0.0
    memory_mb: float = 0.0

    def add(self, line: dict[str, object], begun: str) -> None:
        """What the child said of a file, and what it had said when it began to read it."""
        outcome = str(line["outcome"])
        self.outcomes[outcome] += 1
        self.slowest_ms = max(self.slowest_ms, float(str(line["ms"])))
        self.memory_mb = max(self.memory_mb, float(str(line["memory_mb"])))
        if outcome.startswith("escaped"):
            self.faults.append(f"{outcome}: {begun}")

    def text(self) -> str:
        lines = [f"{count:6d}  {outcome}" for outcome, count in self.outcomes.most_common()]
        lines += [f"slowest {self.slowest_ms:.0f} ms, memory at most {self.memory_mb:.0f} MB", *self.faults]
        return "\n".join(lines) + "\n"


def fuzz(files: int, seed: int, first: int = 0) -> Figures:
    """Damage and read ``files`` files; file ``n`` of a ``seed`` is always the same."""
    figures, number = Figures(), first
    while number < first + files:
        number = _child_reads(number, first + files, seed, figures)
    return figures


def _child_reads(first: int, stop: int, seed: int, figures: Figures) -> int:
    """Add what a child reads from ``first`` on, until it ends, dies or takes too long; the first file not read."""
    command = [sys.executable, "-m", "tests.fuzz", "--child", "--first", str(first), "--stop", str(stop)]
    command += ["--seed", str(seed), "--folder"]
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as told,
        subprocess.Popen([*command, folder], cwd=ROOT, stdout=subprocess.PIPE, stderr=told, text=True) as child,
    ):
        number, begun = first, ""
        for line in _lines(child):
            if line is None:
                child.kill()
                figures.outcomes["too slow"] += 1
                figures.faults.append(f"took longer than {LONGEST_S} s: {begun}")
                return number + 1
            if "outcome" not in line:
                begun = json.dumps(line)
                continue
            figures.add(line, begun)
            number = int(str(line["file"])) + 1
        if child.wait() != 0:
            told.seek(0)
            last = told.read()[-2000:].decode(errors="replace")
            if not begun:
                raise RuntimeError(f"the reading process did not begin: {last}")
            figures.outcomes["crashed"] += 1
            figures.faults.append(f"exit {child.returncode}: {begun}\n{last}")
            return number + 1
        return stop


def _lines(child: subprocess.Popen[str]) -> Iterator[dict[str, object] | None]:
    """What the child says, line by line; None where it says nothing for too long, and then no more."""
    said: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            said.put(line)
        said.put(None)

    threading.Thread(target=listen, daemon=True).start()
    patience_s = START_S
    while True:
        try:
            line = said.get(timeout=patience_s)
        except queue.Empty:
            yield None
            return
        if line is None:
            return
        patience_s = LONGEST_S
        yield json.loads(line)


def read_damaged(folder: Path, first: int, stop: int, seed: int) -> None:
    """What the child does. Every file is announced before it is read, so that a crash has a name."""
    from tests.mutations import damaged

    warnings.simplefilter("ignore")
    faulthandler.enable()
    images = _images(folder)
    _limit_memory()
    for number in range(first, stop):
        random = Random(f"{seed} {number}")
        name, path, made = random.choice(images)
        # Of a file's neighbours too: its series, or the other one of a pair.
        files = sorted(file for file in made.rglob("*") if file.is_file())
        # One byte string of damage for all files: they still agree with each other.
        chosen = files if random.random() < EVERY_FILE else [random.choice(files)]
        how, state = "", random.random()
        kept = {file: file.read_bytes() for file in chosen}
        for file, whole in kept.items():
            how, data = damaged(whole, Random(state))
            file.write_bytes(data)
        _say({"file": number, "image": name, "damage": how, "files": len(chosen)})
        since = time.perf_counter()
        outcome = _outcome(path)
        spent_ms = (time.perf_counter() - since) * 1000
        _say({"file": number, "image": name, "outcome": outcome, "ms": spent_ms, "memory_mb": _peak_mb()})
        for file, whole in kept.items():
            file.write_bytes(whole)


def _images(folder: Path) -> list[tuple[str, Path, Path]]:
    """The corpus' images that can be read, each with the path to send and its own folder.

    Each is read once so that everything is loaded.
    """
    from tests.corpus import CASES
    from tests.corpus.cases import Read
    from tests.reading import read_volume

    found = []
    for index, case in enumerate(CASES):
        if case.real or not isinstance(case.expected, Read) or case.name in NOT_DAMAGED:
            continue
        made = folder / str(index)
        made.mkdir()
        path = case.make(made)
        read_volume(path)
        found.append((case.name, path, made))
    return found


def _outcome(path: Path) -> str:
    """The error's code, "read", or what escaped that must not."""
    import numpy as np

    from openscans.errors import OpenScansError
    from tests.reading import read_volume

    try:
        volume = read_volume(path)
    except OpenScansError as error:
        return error.code
    except BaseException as error:  # noqa: BLE001 - whatever escapes is what is looked for
        return f"escaped: {type(error).__name__}: {error}"
    whole = volume.voxels.ndim == 3 and np.isfinite(volume.voxels).all() and np.isfinite(volume.affine_lps).all()
    return "read" if whole else "escaped: an image that is none"


def _limit_memory() -> None:
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _peak_mb() -> float:
    """Not `getrusage`'s figure, in which a child begins with what its parent held."""
    if sys.platform != "linux":
        return 0.0
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stop", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        read_damaged(given.folder, given.first, given.stop, given.seed)
        return 0
    since = time.monotonic()
    figures = fuzz(given.files, given.seed, given.first)
    sys.stdout.write(f"{figures.text()}{time.monotonic() - since:.0f} s\n")
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
