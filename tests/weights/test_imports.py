"""Weights that came by other means: a zip, or a folder of TotalSegmentator's, which stays as it is."""

import os
import tempfile
from pathlib import Path

import pytest

from model_manager import Models
from openscans.errors import InputNotFound, ModelInUse, UnusableImport
from openscans.system.files import LINKED_FROM_BYTES
from openscans.weights.releases import Installer
from tests.live_server import live_server
from tests.model_homes import CHECKPOINT, MR, NEVER, files_below, last, offline
from tests.release_server import (
    DATASETS,
    Fault,
    ReleaseServer,
    training_files,
    write_folder,
    write_zip,
)

LARGE_BYTES = LINKED_FROM_BYTES + 1


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A results folder of TotalSegmentator's with a model whose checkpoint is worth a link."""
    return write_folder(tmp_path / "theirs" / "nnunet" / "results", training_files(756, checkpoint_bytes=LARGE_BYTES))


def checkpoint_of(models: Models) -> Path:
    return models.trained_model(756).folder / "fold_0/checkpoint_final.pth"


def test_a_zip_inside_other_folders_is_imported(home: Path, tmp_path: Path) -> None:
    files = {f"usb/weights/{name}": content for name, content in training_files(756).items()}
    models = offline(home)
    models.import_from("vertebrae_mr", write_zip(tmp_path / "mr.zip", files))
    assert models.status("vertebrae_mr").downloaded


@pytest.mark.parametrize("chosen", ["nnunet/results", "nnunet", "."])
def test_a_results_folder_of_totalsegmentator_is_imported(home: Path, tmp_path: Path, chosen: str) -> None:
    theirs = tmp_path / "totalsegmentator"
    write_folder(theirs / "nnunet" / "results", training_files(297) | training_files(298) | training_files(756))
    before = files_below(theirs)
    models = offline(home)
    models.import_from("total_body", theirs / chosen)
    assert {key: status.state for key, status in models.statuses().items()} == {
        "vertebrae": "absent",
        "total_body": "ready",
        "vertebrae_mr": "absent",
    }
    assert files_below(theirs) == before


def test_a_dataset_folder_is_imported_and_the_rest_of_the_task_stays_open(home: Path, tmp_path: Path) -> None:
    results = write_folder(tmp_path / "results", training_files(298))
    models = offline(home)
    models.import_from("total_body", results / DATASETS[298].folder)
    assert models.status("total_body").state == "partial"
    assert models.trained_model(298).dataset == DATASETS[298].folder


def test_weights_of_another_task_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableImport, match=DATASETS[292].folder):
        offline(home).import_from("vertebrae", write_zip(tmp_path / "mr.zip", training_files(756)))


def test_nothing_is_imported_while_it_is_downloaded(models: Models, server: ReleaseServer, tmp_path: Path) -> None:
    server.always = Fault(stall_after=0)
    models.download("vertebrae")
    with pytest.raises(ModelInUse):
        models.import_from("total_body", tmp_path)
    models.close()


# Links


def test_a_large_file_is_linked_and_small_ones_are_copied(home: Path, theirs: Path) -> None:
    models = offline(home)
    models.import_from("vertebrae_mr", theirs)
    assert checkpoint_of(models).samefile(theirs / CHECKPOINT)
    assert not (models.trained_model(756).folder / "plans.json").samefile(
        theirs / CHECKPOINT.replace("fold_0/checkpoint_final.pth", "plans.json")
    )


def test_deleting_a_linked_model_leaves_theirs_and_counts_only_what_was_freed(home: Path, theirs: Path) -> None:
    before = {name: (theirs / name).read_bytes() for name in files_below(theirs)}
    models = offline(home)
    models.import_from("vertebrae_mr", theirs)
    deletion = models.delete("vertebrae_mr")
    assert deletion.removed
    assert deletion.freed_bytes < LARGE_BYTES
    assert {name: (theirs / name).read_bytes() for name in files_below(theirs)} == before


def test_a_linked_file_that_is_written_in_place_is_damaged(home: Path, theirs: Path) -> None:
    models = offline(home)
    models.import_from("vertebrae_mr", theirs)
    with (theirs / CHECKPOINT).open("r+b") as file:
        file.write(b"other weights")
    status = models.status("vertebrae_mr")
    assert (status.state, status.warnings[-1].code) == ("damaged", "damaged_file")
    assert "checkpoint_final.pth" in status.warnings[-1].message


def test_a_linked_model_that_is_imported_again_stays_whole(home: Path, theirs: Path) -> None:
    models = offline(home)
    for _ in range(2):
        models.import_from("vertebrae_mr", theirs)
    models.verify("vertebrae_mr")
    assert models.status("vertebrae_mr").downloaded


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no second disk at /dev/shm")
def test_from_another_disk_everything_is_copied(home: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other_disk:
        theirs = write_folder(Path(other_disk), training_files(756, checkpoint_bytes=LARGE_BYTES))
        models = offline(home)
        models.import_from("vertebrae_mr", theirs)
        assert not checkpoint_of(models).samefile(theirs / CHECKPOINT)
    models.verify("vertebrae_mr")
    assert models.status("vertebrae_mr").downloaded


# What can be imported, and what cannot


def test_weights_of_totalsegmentators_are_shown_until_they_are_imported(home: Path, theirs: Path) -> None:
    models = Models(home, Installer((NEVER,), offline=True), totalsegmentator_results=theirs)
    assert {key: status.importable for key, status in models.statuses().items()} == {
        "vertebrae": None,
        "total_body": None,
        "vertebrae_mr": str(theirs),
    }
    models.import_from("vertebrae_mr", theirs)
    assert models.status("vertebrae_mr").importable is None


@pytest.mark.parametrize("setting", ["TOTALSEG_WEIGHTS_PATH", "TOTALSEG_HOME_DIR"])
def test_what_the_status_names_can_be_imported_over_http(home: Path, theirs: Path, setting: str) -> None:
    where = {"TOTALSEG_WEIGHTS_PATH": theirs, "TOTALSEG_HOME_DIR": theirs.parents[1]}[setting]
    with live_server(home, {"OPENSCANS_OFFLINE": "1", setting: str(where)}) as server:
        status = server.get("/api/models/status?task=vertebrae_mr").json()
        assert status["importable"] == str(theirs)
        imported = server.post("/api/models/import/vertebrae_mr", {"file_path": status["importable"]})
        assert (imported.status_code, imported.json()["state"]) == (200, "ready")


def test_a_folder_whose_model_lacks_a_file_is_not_shown_and_not_taken(home: Path, theirs: Path) -> None:
    (theirs / CHECKPOINT).unlink()
    models = Models(home, Installer((NEVER,), offline=True), totalsegmentator_results=theirs)
    assert models.status("vertebrae_mr").importable is None
    with pytest.raises(UnusableImport, match="checkpoint_final"):
        models.import_from("vertebrae_mr", theirs)
    assert files_below(home) == set()


def test_a_path_that_is_not_there_is_not_found(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputNotFound):
        offline(home).import_from("vertebrae_mr", tmp_path / "gone.zip")


def test_a_damaged_zip_is_422_and_what_was_there_stays(home: Path, tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "mr.zip", training_files(756))
    broken = tmp_path / "broken.zip"
    broken.write_bytes(whole.read_bytes()[:-30])
    with live_server(home, {"OPENSCANS_OFFLINE": "1"}) as server:
        server.post("/api/models/import/vertebrae_mr", {"file_path": str(whole)})
        answer = server.post("/api/models/import/vertebrae_mr", {"file_path": str(broken)})
        assert (answer.status_code, answer.json()["code"]) == (422, "corrupt_file")
        assert server.get("/api/models/status?task=vertebrae_mr").json()["state"] == "ready"


def test_an_import_takes_the_place_of_a_download_that_was_begun(
    models: Models, server: ReleaseServer, home: Path, tmp_path: Path
) -> None:
    server.faults += [Fault(drop_after=81_920), Fault(status=404)]
    assert last(models.download("vertebrae_mr")).status == "error"
    models.import_from("vertebrae_mr", write_zip(tmp_path / "mr.zip", training_files(756)))
    assert not [name for name in files_below(home) if MR + ".zip" in name]
