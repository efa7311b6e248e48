"""Weights that are made to hurt take no server down: imported, downloaded, or there already."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phantom.layout import zip_weights
from tests import hostile_weights
from tests.hostile_weights import HostileWeights
from tests.live_server import LiveServer, children_of, live_server
from tests.model_homes import files_below, offline
from tests.recorded.images import air_nifti
from tests.release_server import DATASETS, ReleaseServer, release_zip, training_files, write_folder

OFFLINE = {"OPENSCANS_OFFLINE": "1"}

DATASET = DATASETS[756]

KINDS = (
    "a billion convolutions a stage",
    "two hundred million stages",
    "spacing of 0",
    "plans.json: 180 MB",
    "dataset.json: deep lists",
    "pickle: 22 bytes whose memo takes 5 GB",
    "pickle: 60 MB of list ends",
    "pickle: sixty names for one storage",
    "pickle: keys that take for ever to compare",
    "zip: half a million entries",
)
"""One of each; all of them are looked at in `tests.networks.test_hostile_weights`."""

HOSTILE = {hostile.name: hostile for hostile in hostile_weights.everything() if hostile.name in KINDS}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), OFFLINE) as running:
        yield running


def write(results: Path, hostile: HostileWeights) -> Path:
    """``results`` with the dataset's folder as the hostile one."""
    hostile.spoil(results / DATASET.folder / DATASET.training)
    return results


def most_memory_bytes(pid: int) -> int:
    """The most that the process has held at once; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def refuses(server: LiveServer, path: Path) -> bool:
    answer = server.post("/api/models/import/vertebrae_mr", {"file_path": str(path)})
    assert ".unpacking" not in answer.text, "a folder of our own, which nobody else knows, is named"
    return (answer.status_code, answer.json()["code"]) == (422, "corrupt_file")


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_weights_are_not_imported_and_the_server_stays_well(
    server: LiveServer, tmp_path: Path, kind: str
) -> None:
    assert refuses(server, write(tmp_path / "results", HOSTILE[kind]))
    assert server.get("/api/health").json()["status"] == "healthy"
    assert server.get("/api/models/status?task=vertebrae_mr").json()["state"] == "absent"
    assert not [name for name in files_below(server.home) if DATASET.folder in name]
    assert most_memory_bytes(server.process.pid) < hostile_weights.MOST_MEMORY_BYTES


@pytest.mark.parametrize("kind", ["two hundred million stages", "pickle: 60 MB of list ends"])
def test_hostile_weights_in_a_zip_are_not_imported(server: LiveServer, tmp_path: Path, kind: str) -> None:
    results = write(tmp_path / "results", HOSTILE[kind])
    assert refuses(server, zip_weights(results / DATASET.folder, tmp_path / "weights.zip"))
    assert not [name for name in files_below(server.home) if DATASET.folder in name]


def test_good_weights_are_imported_afterwards(server: LiveServer, tmp_path: Path) -> None:
    path = write_folder(tmp_path / "results", training_files(756))
    answer = server.post("/api/models/import/vertebrae_mr", {"file_path": str(path)})
    assert (answer.status_code, answer.json()["state"]) == (200, "ready")
    server.delete("/api/models/vertebrae_mr")


@pytest.mark.parametrize("kind", ["spacing of 0", "pickle: 22 bytes whose memo takes 5 GB"])
def test_hostile_weights_that_are_downloaded_are_not_installed(tmp_path: Path, kind: str) -> None:
    results = write(tmp_path / "results", HOSTILE[kind])
    zip_weights(results / DATASET.folder, release_zip(tmp_path / "release", 756))
    with (
        ReleaseServer.over(tmp_path / "release") as release,
        live_server(tmp_path / "home", {"OPENSCANS_WEIGHTS_URL": release.url}) as server,
    ):
        with server.events("POST", "/api/models/download/vertebrae_mr") as events:
            last = [*events][-1]
        assert (last["status"], last["code"]) == ("error", "download_failed")
        assert server.get("/api/models/status?task=vertebrae_mr").json()["state"] == "absent"


@pytest.mark.parametrize("kind", [*KINDS[:2], *KINDS[5:7]])
def test_hostile_weights_that_are_there_already_fail_a_detection_as_damaged(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("openvino")
    # As an older version, which looked at names alone, would have put them in place.
    offline(tmp_path / "home").import_from("vertebrae_mr", write(tmp_path / "results", HOSTILE[kind]))
    with live_server(tmp_path / "home", OFFLINE) as server:
        answer = server.detect(air_nifti(tmp_path), model="vertebrae_mr")
        assert (answer.status_code, answer.json()["code"]) == (503, "model_missing")
        assert max(map(most_memory_bytes, children_of(server.process.pid))) < hostile_weights.MOST_MEMORY_BYTES
        assert server.get("/api/health").json()["worker"] in {"ready", "cold"}
