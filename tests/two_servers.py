"""Two servers on one home under mixed load: whether one takes anything away from the other.

    python -m tests.two_servers [--seconds 120] [--seed 0]

Callers of both detect, download, cancel, delete, import, verify and ask how models stand, all about the same models.
Detections download what they lack, so none may hear that a model is missing; nobody may hear of an error of ours; and
in the end both servers tell the same.
"""

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from phantom import layout, specs
from phantom.demo import WEIGHTS
from phantom.files import write_nifti
from tests.live_server import LiveServer, live_server
from tests.phantom_server import lumbar_scan
from tests.release_server import Fault, ReleaseServer

CALLERS = 3
"""To each server."""

TASK = "total_body"

EXPECTED = {"ok", "busy", "cancelled", "model_in_use"}
"""What may become of a request where others cancel, delete and download the same."""

Act = Callable[[LiveServer, Path, Random], str]


@dataclass
class Outcome:
    """What became of every request, what should not have, and what the servers told of the models afterwards."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    states: list[object] = field(default_factory=list)


def detect(server: LiveServer, image: Path, random: Random) -> str:
    answer = server.detect(image, model=TASK, use_cache=random.random() < 0.5)
    return "ok" if answer.status_code == 200 else str(answer.json()["code"])


def download(server: LiveServer, _image: Path, _random: Random) -> str:
    with server.events("POST", f"/api/models/download/{TASK}") as events:
        last = [*events][-1]
    return "ok" if last["status"] == "complete" else str(last.get("code", last["status"]))


def plain(method: str, path: str) -> Act:
    def ask(server: LiveServer, _image: Path, _random: Random) -> str:
        with server.client(timeout_s=60.0) as client:
            answer = client.request(method, path)
        return "ok" if answer.status_code == 200 else str(answer.json()["code"])

    return ask


def import_weights(server: LiveServer, _image: Path, _random: Random) -> str:
    answer = server.post(f"/api/models/import/{TASK}", {"file_path": str(WEIGHTS)})
    return "ok" if answer.status_code == 200 else str(answer.json()["code"])


ACTS: dict[str, tuple[int, Act]] = {
    "detect": (6, detect),
    "download": (3, download),
    "status": (4, plain("GET", "/api/models/status")),
    "delete": (2, plain("DELETE", f"/api/models/{TASK}")),
    "cancel": (1, plain("DELETE", f"/api/models/download/{TASK}")),
    "verify": (1, plain("POST", f"/api/models/verify/{TASK}")),
    "import": (1, import_weights),
}
"""How often each is done."""


def run(folder: Path, seconds: float, seed: int) -> Outcome:
    for dataset in (297, 298):
        spec = specs.SPECS[dataset]
        layout.zip_weights(WEIGHTS / spec.folder, folder / "releases" / spec.version / f"{spec.folder}.zip")
    voxels, affine = lumbar_scan()
    image = folder / "ct.nii"
    write_nifti(image, voxels, affine)
    over = threading.Event()
    outcome, lock = Outcome(), threading.Lock()
    with ExitStack() as stack:
        release = stack.enter_context(ReleaseServer.over(folder / "releases"))
        release.always = Fault(gap_s=0.001)
        env = {"OPENSCANS_WEIGHTS_URL": release.url}
        servers = [stack.enter_context(live_server(folder / "home", env)) for _ in range(2)]

        def call(number: int) -> None:
            random = Random(seed * 100 + number)
            server = servers[number % 2]
            names = [name for name, (weight, _) in ACTS.items() for _ in range(weight)]
            while not over.is_set():
                name = random.choice(names)
                code = ACTS[name][1](server, image, random)
                with lock:
                    outcome.counts[f"{name}: {code}"] += 1
                    if code not in EXPECTED:
                        outcome.faults.append(f"{name}: {code}")

        with ThreadPoolExecutor(2 * CALLERS) as pool:
            calls = [pool.submit(call, number) for number in range(2 * CALLERS)]
            over.wait(seconds)
            over.set()
            for done in calls:
                done.result()
        outcome.states = [server.get(f"/api/models/status?task={TASK}").json() for server in servers]
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), given.seconds, given.seed)
    for name, count in sorted(found.counts.items()):
        sys.stdout.write(f"{name}: {count}\n")
    agree = found.states[0] == found.states[1]
    sys.stdout.write(f"faults: {found.faults or 'none'}; the servers {'agree' if agree else 'disagree'}\n")
    return 0 if agree and not found.faults else 1


if __name__ == "__main__":
    sys.exit(main())
