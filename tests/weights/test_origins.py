"""Which weights these are and where they came from, as whoever asks over HTTP is told; and what is refused for it."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phantom.demo import WEIGHTS
from phantom.files import write_nifti
from tests.live_server import LiveServer, live_server
from tests.model_homes import MR, files_below, told_state
from tests.phantom_server import lumbar_scan, phantom_server
from tests.release_server import (
    DATASETS,
    PIECE_BYTES,
    Fault,
    ReleaseServer,
    release_zip,
    training_files,
    write_folder,
    write_zip,
)

MR_DOWNLOAD = "/api/models/download/vertebrae_mr"
STRICT = {"OPENSCANS_STRICT_DIGESTS": "1"}
OFFLINE = {"OPENSCANS_OFFLINE": "1"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def status(server: LiveServer, task: str) -> dict[str, Any]:
    answer = server.get(f"/api/models/status?task={task}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def codes(told: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in told["warnings"]]


def last_event(server: LiveServer, path: str) -> dict[str, Any]:
    with server.events("POST", path) as events:
        return [*events][-1]


def imported(server: LiveServer, task: str, path: Path) -> dict[str, Any]:
    answer = server.post(f"/api/models/import/{task}", {"file_path": str(path)})
    return {"http": answer.status_code, **answer.json()}


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "ct.nii"
    write_nifti(path, *lumbar_scan())
    return path


# Whether they are the demonstration's


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with phantom_server(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_a_models_status_says_once_that_it_is_the_demonstrations(phantoms: LiveServer) -> None:
    every = phantoms.get("/api/models/status").json()
    assert {task: codes(told) for task, told in every.items()} == {
        "vertebrae": ["demonstration_weights"],
        "total_body": ["demonstration_weights"],
        "vertebrae_mr": [],
    }
    assert "no medical use" in every["vertebrae"]["warnings"][0]["message"]
    assert codes(phantoms.post("/api/models/verify/vertebrae").json()) == ["demonstration_weights"]
    assert codes(imported(phantoms, "vertebrae", WEIGHTS)) == ["demonstration_weights"]


def test_an_answer_says_it_once_for_all_of_its_networks_and_so_does_a_recalled_one(
    phantoms: LiveServer, scan: Path
) -> None:
    found, again = (phantoms.detect(scan, fast_mode=True).json() for _ in range(2))
    assert len(found["model"]["datasets"]) == 2
    assert (found["cached"], again["cached"]) == (False, True)
    assert [codes(told).count("demonstration_weights") for told in (found, again)] == [1, 1]


def test_who_waits_for_an_answer_hears_it_before(phantoms: LiveServer, scan: Path) -> None:
    with phantoms.detection_events(scan, fast_mode=True, use_cache=False) as stream:
        events = [*stream]
    # What was known before the answer stays beside it.
    assert "demonstration_weights" in codes(events[-1])
    assert "demonstration_weights" in codes(phantoms.get(f"/api/jobs/{events[-1]['job_id']}").json()["result"])


def test_weights_that_say_nothing_of_themselves_are_warned_of_nowhere(tmp_path: Path, home: Path) -> None:
    silent = {
        name: b'{"channel_names": {"0": "MRI"}, "labels": {"background": 0, "vertebrae_L5": 1}}'
        if name.endswith("dataset.json")
        else content
        for name, content in training_files(756).items()
    }
    with live_server(home, OFFLINE) as server:
        assert imported(server, "vertebrae_mr", write_folder(tmp_path / "weights", silent))["warnings"] == []


def test_a_download_says_what_came(home: Path, server: ReleaseServer) -> None:
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": server.url}) as live:
        assert codes(last_event(live, MR_DOWNLOAD)) == ["demonstration_weights", "unexpected_digest"]


# Whether their zip is the known one


def test_an_answer_and_the_status_say_that_a_zip_was_not_the_known_one(
    trained_release: ReleaseServer, home: Path, scan: Path
) -> None:
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": trained_release.url}) as server:
        assert last_event(server, "/api/models/download/total_body")["status"] == "complete"
        assert codes(status(server, "total_body")) == ["demonstration_weights", "unexpected_digest"]
        found = server.detect(scan, fast_mode=True).json()
        (message,) = (one["message"] for one in found["warnings"] if one["code"] == "unexpected_digest")
        assert DATASETS[297].folder in message
        assert "unexpected_digest" in codes(server.detect(scan, fast_mode=True).json())


def test_a_digest_of_ones_own_takes_the_place_of_the_known_one(home: Path, server: ReleaseServer) -> None:
    settings = {
        "OPENSCANS_WEIGHTS_URL": server.url,
        "OPENSCANS_DIGESTS": f"756={sha256(release_zip(server.folder, 756))}",
    }
    with live_server(home, settings) as live:
        assert codes(last_event(live, MR_DOWNLOAD)) == ["demonstration_weights"]
        assert codes(status(live, "vertebrae_mr")) == ["demonstration_weights"]


# What is refused


def test_another_zip_than_ones_own_is_refused_without_strictness_too(home: Path, server: ReleaseServer) -> None:
    settings = {"OPENSCANS_WEIGHTS_URL": server.url, "OPENSCANS_DIGESTS": f"756={'0' * 64}"}
    with live_server(home, settings) as live:
        refused = last_event(live, MR_DOWNLOAD)
        assert (refused["status"], refused["code"]) == ("error", "download_failed")
        assert "OPENSCANS_DIGESTS" in refused["error"]
        assert told_state(live) == "absent"
        assert [name for name in files_below(home) if "models" in name] == []


def test_strictness_refuses_a_download_of_what_has_no_known_digest_before_it_asks(
    home: Path, server: ReleaseServer
) -> None:
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": server.url, **STRICT}) as live:
        refused = last_event(live, "/api/models/download/vertebrae")
    assert (refused["status"], refused["code"]) == ("error", "model_missing")
    assert "TotalSegmentator publishes no digests" in refused["error"]
    assert "OPENSCANS_DIGESTS, as 298=" in refused["hint"]
    assert server.requests == []


def test_strictness_asks_for_nothing_where_a_later_network_has_no_known_digest(
    home: Path, server: ReleaseServer
) -> None:
    settings = {"OPENSCANS_WEIGHTS_URL": server.url, "OPENSCANS_DIGESTS": f"298={'0' * 64}", **STRICT}
    with live_server(home, settings) as live:
        refused = last_event(live, "/api/models/download/vertebrae")
    assert (refused["status"], refused["code"]) == ("error", "model_missing")
    assert "OPENSCANS_DIGESTS, as 292=" in refused["hint"]
    assert server.requests == []


def test_of_a_zip_of_two_networks_none_is_taken_where_one_is_refused(home: Path, tmp_path: Path) -> None:
    zip_path = write_zip(tmp_path / "weights.zip", training_files(297) | training_files(298))
    with live_server(home, OFFLINE | {"OPENSCANS_DIGESTS": f"297={'0' * 64}"}) as server:
        refused = imported(server, "total_body", zip_path)
        assert (refused["http"], refused["code"]) == (422, "corrupt_file")
        assert status(server, "total_body")["state"] == "absent"


@pytest.mark.parametrize(
    ("number", "task", "sentence"),
    [(292, "vertebrae", "publishes no digests"), (756, "vertebrae_mr", "another SHA-256 than the one that is known")],
)
def test_strictness_refuses_the_import_of_a_zip_that_is_not_known(
    home: Path, tmp_path: Path, number: int, task: str, sentence: str
) -> None:
    zip_path = write_zip(tmp_path / "weights.zip", training_files(number))
    with live_server(home, OFFLINE | STRICT) as server:
        refused = imported(server, task, zip_path)
        assert (refused["http"], refused["code"]) == (422, "corrupt_file")
        assert sentence in refused["error"]
        assert "OPENSCANS_DIGESTS" in refused["hint"]
        assert status(server, task)["state"] == "absent"
    named = {"OPENSCANS_DIGESTS": f"{number}={sha256(zip_path)}"}
    with live_server(home, OFFLINE | STRICT | named) as server:
        assert imported(server, task, zip_path)["state"] == "ready"


def test_strictness_refuses_a_folder_as_it_has_no_digest(home: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "weights", training_files(756))
    theirs = {"TOTALSEG_WEIGHTS_PATH": str(folder)}
    with live_server(home, OFFLINE | STRICT | theirs) as server:
        refused = imported(server, "vertebrae_mr", folder)
        assert (refused["http"], refused["code"]) == (422, "corrupt_file")
        assert "from a folder" in refused["error"]
        assert "zip" in refused["hint"]
        assert status(server, "vertebrae_mr")["importable"] is None


def test_strictness_refuses_weights_that_lie_there_already_before_a_detection(home: Path, scan: Path) -> None:
    with phantom_server(home) as server:
        assert server.detect(scan, fast_mode=True).status_code == 200
    with live_server(home, OFFLINE | STRICT) as server:
        # What was found by them before is not recalled either.
        refused = server.detect(scan, fast_mode=True)
        assert (refused.status_code, refused.json()["code"]) == (503, "model_missing")
        assert "TotalSegmentator publishes no digests" in refused.json()["error"]
        told = status(server, "total_body")
        assert (told["state"], told["ready_to_detect"]) == ("ready", False)
        assert told["missing"] == [DATASETS[298].folder, DATASETS[297].folder]
        assert "unexpected_digest" in codes(told)
        assert "publishes no digests" in (home / "logs/server.log").read_text()
    with live_server(home, OFFLINE) as server:
        assert server.detect(scan, fast_mode=True).json()["cached"]


def test_a_download_replaces_weights_that_are_refused(home: Path, server: ReleaseServer, tmp_path: Path) -> None:
    named = {"OPENSCANS_DIGESTS": f"756={sha256(release_zip(server.folder, 756))}"}
    with live_server(home, OFFLINE) as live:
        imported(live, "vertebrae_mr", write_folder(tmp_path / "weights", training_files(756)))
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": server.url, **named, **STRICT}) as live:
        assert status(live, "vertebrae_mr")["missing"] == [MR]
        assert last_event(live, MR_DOWNLOAD)["status"] == "complete"
        told = status(live, "vertebrae_mr")
        assert (told["ready_to_detect"], told["missing"]) == (True, [])


def test_the_download_that_replaces_refused_weights_goes_on_where_it_stopped(
    home: Path, server: ReleaseServer, tmp_path: Path
) -> None:
    named = {"OPENSCANS_DIGESTS": f"756={sha256(release_zip(server.folder, 756))}"}
    with live_server(home, OFFLINE) as live:
        imported(live, "vertebrae_mr", write_folder(tmp_path / "weights", training_files(756)))
    server.faults += [Fault(drop_after=PIECE_BYTES), Fault(status=404)]
    for ended in ("error", "complete"):
        with live_server(home, {"OPENSCANS_WEIGHTS_URL": server.url, **named}) as live:
            assert last_event(live, MR_DOWNLOAD)["status"] == ended
    assert server.requests[-1].range == f"bytes={PIECE_BYTES}-"
    assert not [name for name in files_below(home) if ".zip" in name]


def test_with_digests_of_ones_own_strictness_lets_a_detection_download_and_run(
    trained_release: ReleaseServer, home: Path, scan: Path
) -> None:
    named = ",".join(f"{number}={sha256(release_zip(trained_release.folder, number))}" for number in (297, 298))
    settings = {"OPENSCANS_WEIGHTS_URL": trained_release.url, "OPENSCANS_DIGESTS": named, **STRICT}
    with live_server(home, settings) as server:
        found = server.detect(scan, fast_mode=True)
        assert found.status_code == 200, found.text
        assert "unexpected_digest" not in codes(found.json())
        assert server.detect(scan).json()["code"] == "model_missing"


# Whether a detection can begin


def test_a_task_whose_needed_network_is_absent_is_not_ready_to_detect(home: Path) -> None:
    with live_server(home, OFFLINE) as server:
        told = status(server, "vertebrae")
        assert (told["ready_to_detect"], told["missing"]) == (False, [DATASETS[298].folder, DATASETS[292].folder])
        told = imported(server, "vertebrae", WEIGHTS)
        assert (told["state"], told["needs"]) == ("ready", ["total_body"])
        assert (told["ready_to_detect"], told["missing"]) == (False, [DATASETS[298].folder])
        assert imported(server, "total_body", WEIGHTS)["ready_to_detect"]
        told = status(server, "vertebrae")
        assert (told["ready_to_detect"], told["missing"]) == (True, [])


def test_a_task_is_ready_with_what_it_opens_of_another_alone(home: Path, tmp_path: Path) -> None:
    localiser = DATASETS[298].folder
    shutil.copytree(WEIGHTS / localiser, tmp_path / "weights" / localiser)
    with live_server(home, OFFLINE) as server:
        imported(server, "vertebrae", WEIGHTS)
        told = imported(server, "total_body", tmp_path / "weights")
        assert (told["ready_to_detect"], told["missing"]) == (False, [DATASETS[297].folder])
        assert status(server, "vertebrae")["ready_to_detect"]


def test_a_needed_network_that_is_damaged_is_missing_too(home: Path) -> None:
    with phantom_server(home) as server:
        (home / "models/totalsegmentator/total_body" / DATASETS[298].folder / "manifest.json").unlink()
        told = status(server, "vertebrae")
        assert (told["state"], told["ready_to_detect"]) == ("ready", False)
        assert told["missing"] == [DATASETS[298].folder]
