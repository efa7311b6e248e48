"""Many detections of small phantoms, with everything that goes wrong in a day, and whether the server stays as it was.

    python -m tests.soak [--detections 200] [--seed 0]

Callers who wait, stream, leave and cancel, a worker that is killed, damaged files, downloads and questions after health
come at once, in an order that the seed decides. After each round the server must be idle, and is weighed.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import httpx
import psutil

from phantom.files import write_dicom_series, write_nifti
from tests.live_server import LiveServer, eventually
from tests.phantom_server import lumbar_scan, phantom_server
from tests.release_server import Fault, ReleaseServer, write_release

ROUND = 10
"""Detections between two looks at the server's memory, of which the last three are the same every time."""

AT_ONCE = 3
"""Callers; one detection runs at a time, so that two wait."""

WORKING = {"localising", "segmenting"}
LAST = {"complete", "error", "cancelled"}

FLAT = 0.1
"""The share by which memory may differ from the first rounds to the last."""

QUIET_S = 10.0
"""In which a server that has nothing to do closes connections and forgets callers who left."""

SLOW_RELEASE = Fault(gap_s=0.004)
"""So that a download of 300 kB can be cancelled on its way."""

Act = Callable[["Soak", Random], str]


@dataclass(frozen=True)
class Sample:
    """The idle server after so many detections."""

    detections: int
    server_bytes: int
    worker_bytes: int
    descriptors: int
    threads: int
    processes: int
    temporary_files: int

    def text(self) -> str:
        megabytes = f"server {self.server_bytes / 1e6:.0f} MB, worker {self.worker_bytes / 1e6:.0f} MB"
        rest = f"{self.descriptors} descriptors, {self.threads} threads, {self.processes} processes"
        return f"{self.detections:4d} detections: {megabytes}, {rest}, {self.temporary_files} temporary files"


@dataclass
class Figures:
    """What became of every request, what was wrong, and how the server stood after each round."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    health_ms: list[float] = field(default_factory=list)
    kills: int = 0

    def growth(self, of: str) -> float:
        """From the first third of the rounds to the last, as a share."""
        values = [float(getattr(sample, of)) for sample in self.samples]
        third = max(len(values) // 3, 1)
        return median(values[-third:]) / median(values[:third]) - 1

    def text(self) -> str:
        lines = [f"{count:5d}  {outcome}" for outcome, count in sorted(self.outcomes.items())]
        lines += [sample.text() for sample in self.samples]
        lines.append(f"growth: server {self.growth('server_bytes'):+.1%}, worker {self.growth('worker_bytes'):+.1%}")
        lines.append(f"health: median {median(self.health_ms):.0f} ms, slowest {max(self.health_ms):.0f} ms")
        return "\n".join([*lines, f"faults: {len(self.faults)}", *self.faults]) + "\n"


@dataclass
class Soak:
    """A server under way, the images that it is sent, and what is noted of it."""

    server: LiveServer
    images: list[Path]
    cut: Path
    temporary: Path
    figures: Figures = field(default_factory=Figures)
    lock: threading.Lock = field(default_factory=threading.Lock)
    downloading: threading.Lock = field(default_factory=threading.Lock)

    def note(self, act: Act, random: Random) -> None:
        """Do ``act`` and count how it ended."""
        try:
            outcome = act(self, random)
        except (AssertionError, httpx.HTTPError) as error:
            outcome = f"not answered: {type(error).__name__}"
            with self.lock:
                self.figures.faults.append(f"{act.__name__}: {error!r}")
        with self.lock:
            self.figures.outcomes[f"{act.__name__}: {outcome}"] += 1

    def request(self, random: Random) -> dict[str, object]:
        return {"file_path": str(random.choice(self.images)), "fast_mode": True, "use_cache": False}

    @contextmanager
    def stream(self, random: Random) -> Iterator[Iterator[dict[str, Any]]]:
        with self.server.events("POST", "/api/detect-vertebrae", self.request(random)) as events:
            yield events

    def worker(self) -> psutil.Process | None:
        children = psutil.Process(self.server.process.pid).children()
        return next((child for child in children if "spawn_main" in " ".join(child.cmdline())), None)

    def sample(self, detections: int) -> Sample:
        process, worker = psutil.Process(self.server.process.pid), self.worker()
        return Sample(
            detections=detections,
            server_bytes=process.memory_info().rss,
            worker_bytes=worker.memory_info().rss if worker else 0,
            descriptors=process.num_fds() + (worker.num_fds() if worker else 0),
            threads=process.num_threads(),
            processes=len(process.children(recursive=True)),
            temporary_files=sum(1 for path in self.temporary.rglob("*") if path.is_file()),
        )


def wait_for_it(soak: Soak, random: Random) -> str:
    return code_of(soak.server.post("/api/detect-vertebrae", soak.request(random)))


def first_image(soak: Soak, random: Random) -> str:
    return code_of(soak.server.detect(soak.images[0], fast_mode=True, use_cache=False))


def second_image(soak: Soak, random: Random) -> str:
    return code_of(soak.server.detect(soak.images[1], fast_mode=True, use_cache=False))


def damaged_file(soak: Soak, random: Random) -> str:
    return code_of(soak.server.detect(soak.cut))


def stream_it(soak: Soak, random: Random) -> str:
    with soak.stream(random) as stream:
        return only_end_of(list(stream))


def leave_it(soak: Soak, random: Random) -> str:
    """Go away while it works; the job must come to an end all the same."""
    with soak.stream(random) as stream:
        event = next((event for event in stream if event["status"] in WORKING | LAST), None)
    assert event is not None
    return ended(soak.server, event["job_id"])


def leave_without_a_stream(soak: Soak, random: Random) -> str:
    try:
        answer = httpx.post(
            f"{soak.server.url}/api/detect-vertebrae", json=soak.request(random), timeout=0.5, trust_env=False
        )
    except httpx.TimeoutException:
        return "left"
    return code_of(answer)


def cancel_it(soak: Soak, random: Random) -> str:
    with soak.stream(random) as stream:
        events = []
        for event in stream:
            events.append(event)
            if event["status"] in WORKING:
                assert soak.server.delete(f"/api/jobs/{event['job_id']}").status_code == 200
                break
        return only_end_of([*events, *stream])


def kill_the_worker(soak: Soak, random: Random) -> str:
    with soak.stream(random) as stream:
        events = []
        for event in stream:
            events.append(event)
            if event["status"] in WORKING:
                worker = soak.worker()
                if worker is not None:
                    worker.kill()
                    with soak.lock:
                        soak.figures.kills += 1
                break
        return only_end_of([*events, *stream])


def download(soak: Soak, random: Random) -> str:
    """One model, fetched anew; half of the time somebody cancels it on its way."""
    cancelled = random.random() < 0.5
    with soak.downloading:
        soak.server.delete("/api/models/vertebrae_mr")
        events = []
        with soak.server.events("GET", "/api/models/download/vertebrae_mr") as stream:
            for event in stream:
                events.append(event)
                if cancelled and event["status"] == "downloading":
                    soak.server.delete("/api/models/download/vertebrae_mr")
                    cancelled = False
        return only_end_of(events)


def ask_for_health(soak: Soak, random: Random) -> str:
    with soak.server.client() as client:
        since_s = time.perf_counter()
        answer = client.get("/api/health")
        spent_ms = (time.perf_counter() - since_s) * 1000
    with soak.lock:
        soak.figures.health_ms.append(spent_ms)
    return str(answer.json()["status"])


DETECTIONS: dict[Act, int] = {
    wait_for_it: 8,
    stream_it: 4,
    leave_it: 2,
    leave_without_a_stream: 1,
    cancel_it: 2,
    kill_the_worker: 1,
    damaged_file: 2,
}
"""How often each comes, beside the others."""

ALONE: tuple[Act, ...] = (damaged_file, first_image, second_image)
"""After them the worker has loaded every network that any caller needs."""


def code_of(answer: httpx.Response) -> str:
    return "complete" if answer.status_code == 200 else str(answer.json()["code"])


def only_end_of(events: list[dict[str, Any]]) -> str:
    """How a stream ended; it must have done so once, and with its last event."""
    ends = [event for event in events if event["status"] in LAST]
    assert len(ends) == 1, events
    assert events[-1] is ends[0], events
    return str(ends[0].get("code", ends[0]["status"]))


def ended(server: LiveServer, job_id: str) -> str:
    status = ""

    def over() -> bool:
        nonlocal status
        status = server.get(f"/api/jobs/{job_id}").json()["status"]
        return status in LAST

    assert eventually(over, within_s=QUIET_S), f"{job_id} is still {status}"
    return status


def soaked(folder: Path, detections: int, seed: int = 0) -> Figures:
    """Run ``detections`` in rounds against a server of its own, whose files all lie below ``folder``."""
    random = Random(seed)
    with ReleaseServer.over(write_release(folder / "release", 756)) as release:
        release.always = SLOW_RELEASE
        (folder / "tmp").mkdir()
        env = {"OPENSCANS_WEIGHTS_URL": release.url, "OPENSCANS_OFFLINE": "0", "TMPDIR": str(folder / "tmp")}
        with phantom_server(folder / "home", env) as server:
            soak = Soak(server, images(folder / "images"), cut_image(folder / "images"), folder / "tmp")
            for done in range(0, detections, ROUND):
                one_round(soak, random)
                soak.figures.samples.append(settled(soak, done + ROUND))
            check(soak)
            return soak.figures


def images(folder: Path) -> list[Path]:
    """A small scan as a series and, with another noise, as NIfTI."""
    write_dicom_series(folder / "series", *lumbar_scan(seed=1, spacing_mm=4.0))
    write_nifti(folder / "scan.nii.gz", *lumbar_scan(seed=2, spacing_mm=4.0))
    return [folder / "series", folder / "scan.nii.gz"]


def cut_image(folder: Path) -> Path:
    path = folder / "cut.nii.gz"
    path.write_bytes((folder / "scan.nii.gz").read_bytes()[:-2000])
    return path


def one_round(soak: Soak, random: Random) -> None:
    """Everything at once; then, alone, what the worker loads networks for, wherever in the round it was killed.

    A damaged file counts too: the full network is loaded while it is read.
    """
    acts = random.choices(list(DETECTIONS), list(DETECTIONS.values()), k=ROUND - len(ALONE))
    acts += [download, download, *[ask_for_health] * 10]
    random.shuffle(acts)
    with ThreadPoolExecutor(AT_ONCE) as callers:
        for act in acts:
            callers.submit(soak.note, act, Random(random.random()))
    for alone in ALONE:
        soak.note(alone, random)


def settled(soak: Soak, detections: int) -> Sample:
    """The server as it is when nothing is asked of it any more."""

    def idle() -> bool:
        jobs = soak.server.get("/api/jobs").json()["jobs"]
        return all(job["status"] in LAST for job in jobs)

    if not eventually(idle, within_s=QUIET_S):
        soak.figures.faults.append(f"after {detections} detections jobs go on that nobody waits for")
    return soak.sample(detections)


def check(soak: Soak) -> None:
    """Whether anything is left over or was lost."""
    figures, first, last = soak.figures, soak.figures.samples[0], soak.figures.samples[-1]
    # Not counted by answers: callers who share a detection share its end.
    crashed = sum("the worker ended with exit code" in line for line in soak.server.errors)
    unforeseen = [outcome for outcome in figures.outcomes if outcome.endswith("internal_error")]
    if crashed > figures.kills:
        figures.faults.append(f"{crashed} crashes of the worker, of which {figures.kills} were ours")
    figures.faults += unforeseen
    for whose in ("server_bytes", "worker_bytes"):
        if abs(figures.growth(whose)) > FLAT:
            figures.faults.append(f"{whose} changed by {figures.growth(whose):+.1%}")
    # Threads that wait for work come and go with the callers.
    for what, spare in (("descriptors", 0), ("threads", AT_ONCE), ("processes", 0), ("temporary_files", 0)):
        if getattr(last, what) > getattr(first, what) + spare:
            figures.faults.append(f"{what}: {getattr(first, what)} at first, {getattr(last, what)} at last")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detections", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    since_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = soaked(Path(folder), given.detections, given.seed)
    sys.stdout.write(f"{figures.text()}{time.monotonic() - since_s:.0f} s\n")
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
