"""Models arrive whole or not at all, are shared by all who ask, and are vouched for only while they are what came."""

import hashlib
import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_manager import Deletion, Models
from openscans.errors import (
    DamagedWeights,
    ModelInUse,
    ModelMissing,
    UnknownTask,
    UnusableImport,
)
from openscans.progress import ignore_progress
from openscans.weights.digest_rules import DigestRules
from openscans.weights.download_task import TELL_EVERY_S
from openscans.weights.releases import Installer
from tests.live_server import live_server
from tests.model_homes import CHECKPOINT, MR, files_below, followed, last, offline, online
from tests.release_server import (
    CHECKPOINT_BYTES,
    DATASETS,
    Fault,
    ReleaseServer,
    release_zip,
    training_files,
    write_folder,
    write_zip,
)

ASKING = 20
STRICT = DigestRules(strict=True)

COMINGS_AND_GOINGS = 60
"""A second; what a reader sees half done shows within the first few."""


def imported_mr(home: Path, tmp_path: Path) -> Models:
    models = offline(home)
    models.import_from("vertebrae_mr", write_zip(tmp_path / "mr.zip", training_files(756)))
    return models


# Status


def test_before_anything_the_status_says_what_a_download_would_fetch(home: Path) -> None:
    status = offline(home).status("total_body")
    assert (status.downloaded, status.state, status.size_mb) == (False, "absent", 270.2)
    assert not home.exists()


def test_structures_are_named_from_head_to_foot(home: Path) -> None:
    structures = offline(home).status("vertebrae").structures
    assert structures[:2] == ("C1", "C2")
    assert structures[-3:] == ("L5", "S1", "sacrum")


def test_an_unknown_task_is_an_error(home: Path) -> None:
    with pytest.raises(UnknownTask):
        offline(home).status("lungs")


def test_the_status_is_true_while_models_come_and_go(home: Path, tmp_path: Path) -> None:
    models = offline(home)
    zip_path = write_zip(tmp_path / "mr.zip", training_files(756, checkpoint_bytes=100))
    over = threading.Event()

    def look() -> set[tuple[str, int]]:
        seen = set()
        while not over.is_set():
            models.cache_stats()
            status = models.status("vertebrae_mr")
            seen.add((status.state, sum(warning.code == "damaged_file" for warning in status.warnings)))
        return seen

    with ThreadPoolExecutor(2) as pool:
        watching = [pool.submit(look) for _ in range(2)]
        try:
            for _ in range(COMINGS_AND_GOINGS):
                models.import_from("vertebrae_mr", zip_path)
                models.delete("vertebrae_mr")
        finally:
            over.set()
        assert watching[0].result() | watching[1].result() <= {("absent", 0), ("ready", 0)}


# Download


def test_a_download_brings_the_task_and_what_it_needs(models: Models, home: Path) -> None:
    assert last(models.download("vertebrae")).status == "complete"
    assert {key for key, status in models.statuses().items() if status.state == "ready"} == {"vertebrae", "total_body"}
    assert models.status("vertebrae_mr").state == "absent"
    for number, spacing_mm in ((292, 1.5), (297, 3.0), (298, 6.0)):
        model = models.trained_model(number)
        assert (model.spacing_mm, model.step) == (spacing_mm, 0.8)
        files = [model.folder / name for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth")]
        digests = "\n".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
        assert model.sha256 == hashlib.sha256(digests.encode()).hexdigest()


def test_progress_never_falls_and_there_is_one_last_event(models: Models) -> None:
    states = followed(models.download("vertebrae"))
    assert [state.progress for state in states] == sorted(state.progress for state in states)
    assert [state.over for state in states] == [False] * (len(states) - 1) + [True]
    assert (states[-1].status, states[-1].progress) == ("complete", 1.0)


def test_progress_counts_the_bytes_of_all_files(models: Models, server: ReleaseServer) -> None:
    server.faults += [Fault(), Fault(stall_after=CHECKPOINT_BYTES // 2)]
    download = models.download("total_body")
    assert server.stalled.wait(10)
    seen = next(state for state in download.states(gap_s=TELL_EVERY_S) if state.file == DATASETS[297].folder)
    assert 0.45 < seen.progress < 0.8
    assert seen.downloaded_mb == pytest.approx(0.3, abs=0.2)
    server.resume.set()
    assert last(download).status == "complete"


def test_what_is_there_is_not_fetched_again(models: Models, server: ReleaseServer) -> None:
    followed(models.download("total_body"))
    server.requests.clear()
    followed(models.download("vertebrae"))
    assert [sent.path for sent in server.requests] == [f"/{DATASETS[292].release_path}"]


def test_many_who_ask_share_one_download(models: Models, server: ReleaseServer) -> None:
    everybody = threading.Barrier(ASKING)

    def ask(number: int) -> str:
        everybody.wait()
        return last(models.download(("vertebrae", "total_body")[number % 2])).status

    with ThreadPoolExecutor(ASKING) as pool:
        assert set(pool.map(ask, range(ASKING))) == {"complete"}
    assert sorted(sent.path for sent in server.requests) == sorted(
        f"/{DATASETS[number].release_path}" for number in (292, 297, 298)
    )


def test_a_cancelled_download_keeps_its_bytes_for_the_next(models: Models, server: ReleaseServer, home: Path) -> None:
    server.faults.append(Fault(stall_after=CHECKPOINT_BYTES // 2))
    download = models.download("vertebrae_mr")
    assert server.stalled.wait(10)
    part = Path(models.status("vertebrae_mr").cache_path) / f"{MR}.zip.part"
    assert any(part.exists() and part.stat().st_size for _ in download.states(gap_s=TELL_EVERY_S))
    assert models.status("vertebrae_mr").state == "downloading"
    assert models.cancel("vertebrae_mr")
    assert last(download).status == "cancelled"
    server.resume.set()
    assert last(models.download("vertebrae_mr")).status == "complete"
    assert server.requests[-1].range is not None
    assert models.cancel("vertebrae_mr") is False


def test_a_download_that_failed_leaves_a_partial_model_and_goes_on(models: Models, server: ReleaseServer) -> None:
    cut = 81_920
    server.faults += [Fault(drop_after=cut), Fault(status=404)]
    failed = last(models.download("vertebrae_mr"))
    assert (failed.status, failed.code) == ("error", "download_failed")
    assert models.status("vertebrae_mr").state == "partial"
    assert last(models.download("vertebrae_mr")).status == "complete"
    assert server.body_bytes() == release_zip(server.folder, 756).stat().st_size


def test_a_file_that_the_server_lacks_is_named(models: Models, server: ReleaseServer) -> None:
    release_zip(server.folder, 756).unlink()
    failed = last(models.download("vertebrae_mr"))
    assert failed.error is not None
    assert f"has no file {MR}.zip (404)" in failed.error
    assert failed.hint


def test_offline_opens_no_connection(home: Path, server: ReleaseServer) -> None:
    models = Models(home, Installer((server.url,), offline=True))
    failed = last(models.download("vertebrae_mr"))
    assert (failed.status, failed.code) == ("error", "model_missing")
    with pytest.raises(ModelMissing), models.ready("vertebrae_mr", ignore_progress, download=True):
        pass
    assert server.requests == []


def test_closing_ends_every_download(models: Models, server: ReleaseServer) -> None:
    server.always = Fault(stall_after=0)
    running = [models.download("vertebrae_mr"), models.download("vertebrae")]
    models.close()
    assert {last(download).status for download in running} == {"cancelled"}


# Digests


def test_another_digest_than_the_known_is_shown(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        models = imported_mr(home, tmp_path)
    status = models.status("vertebrae_mr")
    assert status.downloaded
    assert [warning.code for warning in status.warnings] == ["demonstration_weights", "unexpected_digest"]
    assert MR in caplog.text


def test_another_digest_than_the_known_is_told_to_all_who_follow(models: Models) -> None:
    done = last(models.download("vertebrae_mr"))
    assert done.status == "complete"
    assert [warning.code for warning in done.warnings] == ["demonstration_weights", "unexpected_digest"]
    assert MR in done.warnings[-1].message


def test_a_download_with_another_digest_is_an_error_if_wanted(home: Path, server: ReleaseServer) -> None:
    models = online(home, server.url, STRICT)
    failed = last(models.download("vertebrae_mr"))
    assert (failed.status, failed.code) == ("error", "download_failed")
    assert files_below(home) == set()


def test_another_digest_than_the_known_is_an_error_if_wanted(home: Path, tmp_path: Path) -> None:
    models = offline(home, STRICT)
    with pytest.raises(UnusableImport, match="SHA-256"):
        models.import_from("vertebrae_mr", write_zip(tmp_path / "mr.zip", training_files(756)))
    assert models.status("vertebrae_mr").state == "absent"


def with_a_changed_byte(models: Models) -> Path:
    """The MR model's checkpoint, changed in place."""
    checkpoint = Path(models.status("vertebrae_mr").cache_path) / CHECKPOINT
    content = bytearray(checkpoint.read_bytes())
    content[1000] ^= 1
    checkpoint.write_bytes(content)
    return checkpoint


def test_a_file_that_was_written_again_is_noticed_without_verifying(home: Path, tmp_path: Path) -> None:
    models = imported_mr(home, tmp_path)
    with_a_changed_byte(models)
    status = models.status("vertebrae_mr")
    assert (status.state, status.downloaded) == ("damaged", False)
    assert any("checkpoint_final.pth" in warning.message for warning in status.warnings)


def test_a_file_that_was_written_again_with_the_same_bytes_is_whole(home: Path, tmp_path: Path) -> None:
    models = imported_mr(home, tmp_path)
    os.utime(Path(models.status("vertebrae_mr").cache_path) / CHECKPOINT, ns=(1, 1))
    assert models.status("vertebrae_mr").state == "ready"


def test_verifying_finds_a_byte_that_the_disk_changed_and_names_the_file(home: Path, tmp_path: Path) -> None:
    models = imported_mr(home, tmp_path)
    written_ns = (Path(models.status("vertebrae_mr").cache_path) / CHECKPOINT).stat().st_mtime_ns
    os.utime(with_a_changed_byte(models), ns=(written_ns, written_ns))
    assert models.status("vertebrae_mr").state == "ready"
    models.verify("vertebrae_mr")
    again = offline(home)
    status = again.status("vertebrae_mr")
    assert (status.state, status.downloaded) == ("damaged", False)
    assert any("checkpoint_final.pth" in warning.message for warning in status.warnings)
    with pytest.raises(DamagedWeights, match=r"checkpoint_final\.pth"):
        again.trained_model(756)


def test_verifying_whole_weights_changes_nothing(home: Path, tmp_path: Path) -> None:
    models = imported_mr(home, tmp_path)
    models.verify("vertebrae_mr")
    assert models.status("vertebrae_mr").state == "ready"


def test_a_shortened_file_is_noticed_without_verifying(home: Path, tmp_path: Path) -> None:
    models = imported_mr(home, tmp_path)
    (Path(models.status("vertebrae_mr").cache_path) / CHECKPOINT).write_bytes(b"short")
    assert models.status("vertebrae_mr").state == "damaged"


def test_damaged_weights_are_replaced_by_a_download(models: Models, home: Path, tmp_path: Path) -> None:
    imported_mr(home, tmp_path)
    checkpoint = Path(models.status("vertebrae_mr").cache_path) / CHECKPOINT
    checkpoint.unlink()
    assert models.status("vertebrae_mr").state == "damaged"
    assert last(models.download("vertebrae_mr")).status == "complete"
    assert checkpoint.stat().st_size == CHECKPOINT_BYTES


def test_a_folder_without_manifest_is_not_vouched_for(home: Path, tmp_path: Path) -> None:
    models = imported_mr(home, tmp_path)
    (Path(models.status("vertebrae_mr").cache_path) / MR / "manifest.json").unlink()
    assert not models.status("vertebrae_mr").downloaded
    with pytest.raises(ModelMissing):
        models.trained_model(756)


def test_the_manifest_says_what_was_installed_and_as_what_it_came(models: Models, server: ReleaseServer) -> None:
    followed(models.download("vertebrae_mr"))
    manifest = json.loads((Path(models.status("vertebrae_mr").cache_path) / MR / "manifest.json").read_text())
    zip_path = release_zip(server.folder, 756)
    assert manifest["source"] == "release v2.5.0"
    assert manifest["zip_sha256"] == hashlib.sha256(zip_path.read_bytes()).hexdigest()
    assert set(manifest["files"]) == {name.removeprefix(f"{MR}/") for name in training_files(756)}


# Delete


def test_deleting_frees_exactly_the_task(models: Models) -> None:
    followed(models.download("vertebrae"))
    before = models.cache_stats()
    freed_bytes = models.delete("vertebrae").freed_bytes
    after = models.cache_stats()
    assert freed_bytes / 1e6 == pytest.approx(before.total_size_mb - after.total_size_mb, abs=0.1)
    assert (after.models["vertebrae"].file_count, models.status("vertebrae").state) == (0, "absent")
    assert models.status("total_body").state == "ready"


def test_deleting_leaves_what_another_downloaded_task_needs(models: Models, home: Path) -> None:
    followed(models.download("vertebrae"))
    before = files_below(home)
    assert models.delete("total_body") == Deletion(removed=False, freed_bytes=0, needed_by=("vertebrae",))
    assert files_below(home) == before
    models.delete("vertebrae")
    assert models.delete("total_body").removed
    assert files_below(home) == set()


def test_the_answer_to_a_deletion_says_who_needs_what_stays(home: Path, tmp_path: Path) -> None:
    results = write_folder(tmp_path / "results", training_files(292) | training_files(297) | training_files(298))
    for task in ("total_body", "vertebrae"):
        offline(home).import_from(task, results)
    with live_server(home, {"OPENSCANS_OFFLINE": "1"}) as server:
        answer = server.delete("/api/models/total_body").json()
        assert (answer["success"], answer["freed_space_mb"]) == (False, 0)
        assert "vertebrae needs" in answer["message"]
        assert server.delete("/api/models/vertebrae").json()["message"] == "The model was deleted."


def test_what_is_damaged_is_deleted_whoever_needs_it(models: Models, home: Path) -> None:
    followed(models.download("vertebrae"))
    damaged, whole = (models.trained_model(number).folder for number in (298, 297))
    (damaged / "plans.json").unlink()
    assert models.delete("total_body").removed
    assert (damaged.exists(), whole.exists()) == (False, True)


def test_deleting_leaves_what_is_not_ours(home: Path, tmp_path: Path) -> None:
    models = imported_mr(home, tmp_path)
    note = Path(models.status("vertebrae_mr").cache_path) / "note.txt"
    note.write_text("mine")
    assert models.delete("vertebrae_mr").freed_bytes > CHECKPOINT_BYTES
    assert files_below(home) == {note.relative_to(home).as_posix()}


def test_deleting_removes_an_interrupted_download_too(models: Models, server: ReleaseServer, home: Path) -> None:
    server.faults += [Fault(drop_after=81_920), Fault(status=404)]
    followed(models.download("vertebrae_mr"))
    assert models.delete("vertebrae_mr").freed_bytes >= 81_920
    assert files_below(home) == set()


def test_what_is_being_downloaded_cannot_be_deleted(models: Models, server: ReleaseServer) -> None:
    server.always = Fault(stall_after=0)
    models.download("vertebrae")
    for key in ("vertebrae", "total_body"):
        with pytest.raises(ModelInUse):
            models.delete(key)
    models.close()


def test_deleting_nothing_frees_nothing(home: Path) -> None:
    assert offline(home).delete("vertebrae") == Deletion(removed=False, freed_bytes=0)
