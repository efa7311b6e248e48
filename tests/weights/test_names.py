"""What a person named a zip or a folder of weights, a patient's name among it, stands nowhere afterwards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live_server import LiveServer, live_server
from tests.model_homes import MR, offline
from tests.release_server import ReleaseServer, training_files, write_folder, write_release, write_zip

NAME = "Zwetschkenbaum"
IMPORT = "/api/models/import/vertebrae_mr"


@pytest.fixture
def server(home: Path) -> Iterator[LiveServer]:
    with live_server(home, {"OPENSCANS_OFFLINE": "1", "DEBUG": "1"}) as running:
        yield running


def imported(server: LiveServer, path: Path) -> dict[str, Any]:
    return dict(server.post(IMPORT, {"file_path": str(path)}).json())


def traces(server: LiveServer, *said: object) -> list[str]:
    """Where the name stands: in what was said, in a file of the home or its name, or in the output."""
    texts = {"said": json.dumps(said), "output": "\n".join([*server.output, *server.errors])}
    for path in server.home.rglob("*"):
        content = path.read_bytes() if path.is_file() and path.suffix != ".pth" else b""
        texts[path.name] = f"{path.name} {content.decode(errors='replace')}"
    return [place for place, text in texts.items() if NAME in text]


def source(home: Path) -> str:
    manifest = home / "models/totalsegmentator/vertebrae_mr" / MR / "manifest.json"
    return str(json.loads(manifest.read_text())["source"])


def test_a_zips_name_is_neither_told_nor_kept(server: LiveServer, home: Path, tmp_path: Path) -> None:
    damaged, other = tmp_path / f"{NAME} damaged.zip", tmp_path / f"{NAME} other.zip"
    damaged.write_bytes(b"no zip")
    write_zip(other, {f"{MR}/other/plans.json": b"{}"})
    refused = [imported(server, path) for path in (damaged, other, tmp_path / f"{NAME} missing.zip")]
    assert [answer["code"] for answer in refused] == ["corrupt_file", "corrupt_file", "file_not_found"]
    done = imported(server, write_zip(tmp_path / f"{NAME}.zip", training_files(756)))
    assert (done["state"], source(home)) == ("ready", "zip")
    assert traces(server, *refused, done, server.get("/api/models/all").json()) == []


def test_a_folders_name_is_neither_told_nor_kept(server: LiveServer, home: Path, tmp_path: Path) -> None:
    done = imported(server, write_folder(tmp_path / NAME, training_files(756)))
    assert (done["state"], source(home)) == ("ready", "folder")
    assert traces(server, done) == []


def test_a_mirrors_address_is_not_kept(home: Path, tmp_path: Path) -> None:
    with (
        ReleaseServer.over(write_release(tmp_path / "release" / NAME, 756).parent) as mirror,
        live_server(home, {"OPENSCANS_WEIGHTS_URL": f"{mirror.url}/{NAME}"}) as server,
    ):
        with server.events("POST", "/api/models/download/vertebrae_mr") as events:
            assert list(events)[-1]["status"] == "complete"
        kept = [path for path in (home / "models").rglob("*") if path.is_file() and path.suffix != ".pth"]
        assert not [path.name for path in kept if NAME in path.read_text(errors="replace")]
    assert source(home) == "release v2.5.0"


@pytest.mark.parametrize("old", [f"http://mirror.example/{NAME}/mr.zip", f"{NAME}.zip", MR])
def test_a_manifest_that_an_earlier_version_wrote_is_read(home: Path, tmp_path: Path, old: str) -> None:
    offline(home).import_from("vertebrae_mr", write_zip(tmp_path / "mr.zip", training_files(756)))
    manifest = home / "models/totalsegmentator/vertebrae_mr" / MR / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "source": old}))
    with live_server(home, {"OPENSCANS_OFFLINE": "1"}) as server:
        assert server.get("/api/models/status?task=vertebrae_mr").json()["state"] == "ready"
        assert server.post("/api/models/verify/vertebrae_mr").json()["state"] == "ready"
