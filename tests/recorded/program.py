"""The program that is recorded: started with settings of its own, or run until it ends; and what it leaves on disk.

Knows the command line, settings and the home folder; nothing of HTTP.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.live_server import LiveServer, live_server
from tests.recorded.answers import Recorder

TOKEN = "s3cret"

RUN_S = 30

DIGEST_CHARACTERS = 64


@dataclass(frozen=True)
class Program:
    """The ``main.py`` that is recorded, and an empty folder for all that this needs."""

    main: Path
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        """The same numbers on every machine, nothing of whose it is."""
        return {
            "HOME": str(self.folder),
            "HOST": "",
            "DEBUG": "",
            "NO_PROXY": "*",
            "PYTHONPATH": "",
            "TOTALSEG_HOME_DIR": "",
            "TOTALSEG_WEIGHTS_PATH": "",
            "OPENSCANS_DEVICE": "cpu",
            "OPENSCANS_PRECISION": "float32",
            "OPENSCANS_THREADS": "2",
            **more,
        }

    @contextmanager
    def server(self, name: str, **settings: str) -> Iterator[LiveServer]:
        """With a home of its own, in the program's own folder."""
        home = self.folder / name
        env = self.environment(**settings)
        with live_server(home, env, program=(str(self.main),), cwd=self.main.parent) as server:
            yield server

    def run(self, *flags: str, **settings: str) -> dict[str, object]:
        """Exit code and streams of a run that ends by itself."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENSCANS_")}
        env = {**inherited, **self.environment(PORT="", OPENSCANS_HOME=str(self.folder / "unused"), **settings)}
        ended = subprocess.run(
            [sys.executable, str(self.main), *flags],
            cwd=self.main.parent,
            env={**env, "COLUMNS": "100", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=RUN_S,
        )
        return {"exit": ended.returncode, "stdout": ended.stdout, "stderr": ended.stderr}


RUNS: Mapping[str, tuple[Sequence[str], Mapping[str, str]]] = {
    "version": (["--version"], {}),
    "help": (["--help"], {}),
    "unknown flag": (["--nothing"], {}),
    "port that is no number": (["--port", "http"], {}),
    "open to others without a token": (["--host", "0.0.0.0"], {}),
    "address of another machine": (["--host", "1.2.3.4"], {"OPENSCANS_TOKEN": TOKEN}),
    "no name": (["--host", ".."], {"OPENSCANS_TOKEN": TOKEN}),
    "parent": (["--parent-pid", "0"], {}),
    **{
        name: ([], {name: value})
        for name, value in {
            "OPENSCANS_ALLOWED_ORIGINS": "viewer.example",
            "OPENSCANS_AUTO_DOWNLOAD": "maybe",
            "OPENSCANS_DEBUG": "perhaps",
            "OPENSCANS_DEVICE": "tpu",
            "OPENSCANS_HANG_S": "0",
            "OPENSCANS_KEEP_WARM_S": "-2",
            "OPENSCANS_PRECISION": "int3",
            "OPENSCANS_QUEUE": "1001",
            "OPENSCANS_RESULTS": "-1",
            "OPENSCANS_STALL_S": "soon",
            "OPENSCANS_THREADS": "0",
            "OPENSCANS_TILES": "some",
            "OPENSCANS_WEIGHTS_URL": "ftp://mirror.example",
        }.items()
    },
}


def record_runs(recorder: Recorder, program: Program) -> None:
    """What ends before it serves: exit code and what it says."""
    with ThreadPoolExecutor(2) as pool:
        ended = pool.map(lambda run: program.run(*run[0], **run[1]), RUNS.values())
        for name, told in zip(RUNS, ended, strict=True):
            recorder.keep(f"run: {name}", told)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        recorder.keep("run: taken port", program.run("--port", str(taken.getsockname()[1])))
    with program.server("first") as first:
        recorder.keep("run: port of a backend", program.run("--port", first.url.rsplit(":", 1)[1]))
        first.process.send_signal(signal.SIGINT)
        recorder.keep("run: interrupted", {"exit": first.process.wait(RUN_S)})
    recorder.keep("home of a server that was only started", files_below(first.home))
    recorder.keep("home of runs that never served", files_below(program.folder / "unused"))


def files_below(home: Path) -> dict[str, Any]:
    """Files and folders with the number of those whose names are digests, and what each manifest tells."""
    names = Counter(_without_digest(path.relative_to(home)) + "/" * path.is_dir() for path in home.rglob("*"))
    manifests = {str(path.relative_to(home).parent.name): path for path in home.rglob("manifest.json")}
    return {
        "files": [name if count == 1 else f"{name} × {count}" for name, count in sorted(names.items())],
        "manifests": {name: _keys(json.loads(path.read_text())) for name, path in sorted(manifests.items())},
    }


def _without_digest(path: Path) -> str:
    named = path.stem if len(path.stem) == DIGEST_CHARACTERS else ""
    return str(path.with_name(f"<digest>{path.suffix}") if named else path)


def _keys(manifest: Mapping[str, Any]) -> dict[str, Any]:
    kept = next(iter(manifest["files"].values()))
    return {"keys": [*manifest], "files": [*manifest["files"]], "keys of a file": [*kept]}


def emptied(folder: Path) -> Path:
    """A new one, with all above it."""
    folder.mkdir(parents=True)
    return folder
