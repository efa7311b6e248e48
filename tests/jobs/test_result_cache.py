"""What was found before is answered at once, for as long as nothing that it depends on has changed."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from openscans.jobs.fingerprint import Fingerprint, Listing
from openscans.jobs.result_cache import ResultCache
from openscans.types import UidLocation
from phantom import drawing, grid, layout, specs, spine
from phantom.demo import WEIGHTS
from phantom.files import DicomStyle, write_dicom_series, write_nifti
from tests import pipelines
from tests.live_server import LiveServer, live_server

SPACING_MM = (3.0, 3.0, 3.0)
LEVELS = spine.LEVELS[20:23]
PATIENT = "Doe^Johanna"

OF_THE_MOMENT = ("processing_time_ms", "timings_ms", "job_id", "cached", "detected_at")


def scan() -> tuple[Any, Any]:
    phantom = spine.describe(7, LEVELS)
    shape, affine = grid.axial(phantom, SPACING_MM)
    return drawing.render(phantom, shape, affine, seed=12)[0], affine


@pytest.fixture(scope="module")
def ready_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose total_body is there, which finds vertebrae quickly in coarse images."""
    home = tmp_path_factory.mktemp("home")
    with live_server(home) as server:
        answer = server.post("/api/models/import/total_body", {"file_path": str(WEIGHTS)})
        assert answer.json()["state"] == "ready", answer.text
    return home


@pytest.fixture(scope="module")
def server(ready_home: Path) -> Iterator[LiveServer]:
    with live_server(ready_home) as live:
        yield live


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder with one series of a patient with a name."""
    for file in write_dicom_series(tmp_path / "series", *scan()):
        dataset = pydicom.dcmread(file)
        dataset.PatientName, dataset.PatientID = PATIENT, "4711-0815"
        dataset.save_as(file)
    return tmp_path / "series"


def found(server: LiveServer, path: Path, **options: object) -> dict[str, Any]:
    answer = server.detect(path, model="total_body", **options)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def lasting(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in OF_THE_MOMENT}


def results_of(home: Path) -> list[Path]:
    return sorted((home / "cache" / "results").glob("*.json"))


def test_the_second_answer_is_the_first_and_says_that_it_was_kept(server: LiveServer, series: Path) -> None:
    first, second = found(server, series), found(server, series)
    assert first["vertebrae"]
    assert (first["cached"], second["cached"]) == (False, True)
    assert lasting(second) == lasting(first)
    assert second["detected_at"] == first["detected_at"]


def test_every_file_of_the_series_has_the_folder_s_answer_after_its_own(server: LiveServer, series: Path) -> None:
    one, other = sorted(series.iterdir())[:2]
    first = found(server, one)
    assert found(server, one)["cached"]
    assert not found(server, other)["cached"], "which file is named may decide between volumes"
    assert lasting(found(server, other)) == lasting(first)


def test_a_copy_with_other_names_is_the_same_image(server: LiveServer, series: Path, tmp_path: Path) -> None:
    first = found(server, series)
    (tmp_path / "elsewhere").mkdir()
    for number, file in enumerate(sorted(series.iterdir(), reverse=True)):
        shutil.copy2(file, tmp_path / "elsewhere" / f"{number}.bin")
    copy = found(server, tmp_path / "elsewhere")
    assert copy["cached"]
    assert lasting(copy) == lasting(first)


def test_a_changed_pixel_is_another_image(server: LiveServer, series: Path) -> None:
    found(server, series)
    file = sorted(series.iterdir())[0]
    with file.open("r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        stream.write(b"\1\2")
    assert not found(server, series)["cached"]


def test_a_slice_less_is_another_image(server: LiveServer, series: Path) -> None:
    found(server, series)
    sorted(series.iterdir())[0].unlink()
    assert not found(server, series)["cached"]


def test_nifti_is_told_by_all_its_bytes_and_its_time(server: LiveServer, tmp_path: Path) -> None:
    image = tmp_path / "image.nii"
    write_nifti(image, *scan())
    first = found(server, image)
    assert lasting(found(server, image)) == lasting(first)
    assert found(server, image)["cached"]
    before = image.stat()
    with image.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        stream.write(b"\1\2")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not found(server, image)["cached"]


def test_another_question_has_another_answer(server: LiveServer, series: Path) -> None:
    found(server, series)
    assert not found(server, series, fast_mode=True)["cached"]
    assert not found(server, series, device="cpu")["cached"]


def test_use_cache_false_finds_anew_and_keeps_nothing(ready_home: Path, server: LiveServer, series: Path) -> None:
    before = results_of(ready_home)
    assert not found(server, series, use_cache=False)["cached"]
    assert results_of(ready_home) == before
    found(server, series)
    assert not found(server, series, use_cache=False)["cached"]


def test_a_kept_answer_is_one_final_event_and_a_job_like_others(server: LiveServer, series: Path) -> None:
    found(server, series)
    with server.detection_events(series, model="total_body") as events:
        (only,) = [*events]
    assert only["status"] == "complete"
    assert only["result"]["cached"]
    job = server.get(f"/api/jobs/{only['job_id']}").json()
    assert (job["status"], job["result"]) == ("complete", only["result"])


def test_other_weights_give_another_answer(ready_home: Path, series: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    home = tmp_path / "home"
    shutil.copytree(ready_home, home)
    spec = specs.small(specs.SPECS[297], base_features=8, max_features=16, patch_zyx=(32, 32, 32))
    for dataset in (297, 298):
        shutil.copytree(WEIGHTS / specs.SPECS[dataset].folder, tmp_path / "other" / specs.SPECS[dataset].folder)
    with live_server(home) as server:
        found(server, series)
        assert found(server, series)["cached"]
        assert server.delete("/api/models/total_body").status_code == 200
        layout.write_training_folder(tmp_path / "other", spec, layout.random_state_dict(spec, 0))
        server.post("/api/models/import/total_body", {"file_path": str(tmp_path / "other")})
        assert not found(server, series)["cached"]


def test_the_same_weights_with_other_plans_give_another_answer(ready_home: Path, series: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(ready_home, home)
    shutil.copytree(WEIGHTS, tmp_path / "other")
    for plans in (tmp_path / "other").glob("*/*/plans.json"):
        plans.write_text(plans.read_text() + "\n")
    with live_server(home) as server:
        found(server, series)
        assert server.delete("/api/models/total_body").status_code == 200
        answer = server.post("/api/models/import/total_body", {"file_path": str(tmp_path / "other")})
        assert answer.json()["state"] == "ready", answer.text
        assert not found(server, series)["cached"]


def test_other_settings_give_another_answer(ready_home: Path, series: Path) -> None:
    with live_server(ready_home) as server:
        found(server, series)
    with live_server(ready_home, {"OPENSCANS_TILES": "exact"}) as server:
        assert not found(server, series)["cached"]
    with live_server(ready_home, {"OPENSCANS_PRECISION": "float32"}) as server:
        assert not found(server, series)["cached"]


def test_what_one_server_found_another_knows_without_a_worker(ready_home: Path, series: Path) -> None:
    with live_server(ready_home) as first, live_server(ready_home) as second:
        found(first, series)
        assert found(second, series)["cached"]
        assert second.get("/api/health").json()["worker"] == "cold"


def test_nobody_can_be_told_from_what_is_kept(ready_home: Path, server: LiveServer, series: Path) -> None:
    answer = found(server, series)
    marked = [found for vertebra in answer["vertebrae"] for found in (vertebra, vertebra["body"]) if found]
    uids = [found["slice"]["sop_instance_uid"] for found in marked]
    assert len(uids) > len(answer["vertebrae"])
    text = "".join(file.name + file.read_text() for file in results_of(ready_home))
    assert text
    shared = ("series_instance_uid", "study_instance_uid", "frame_of_reference_uid")
    uids += [answer["image"][name] for name in shared]
    for secret in (PATIENT, "4711-0815", *uids, str(series.parent)):
        assert secret not in text


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_series_whose_uids_an_anonymiser_wrote_is_kept_too(server: LiveServer, series: Path) -> None:
    for number, file in enumerate(sorted(series.iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"d0c9Ab{number:04}")
        dataset.save_as(file)
    assert not found(server, series)["cached"]
    assert found(server, series)["cached"]


def test_what_cannot_be_kept_without_its_uids_is_not_kept(server: LiveServer, tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "series", *scan(), DicomStyle(transfer_syntax=DeflatedExplicitVRLittleEndian))
    first = found(server, tmp_path / "series")
    second = found(server, tmp_path / "series")
    assert not second["cached"]
    assert lasting(second) == lasting(first)


@pytest.mark.parametrize("damage", [b"", b"not what was written", None])
def test_a_damaged_answer_is_found_anew(ready_home: Path, server: LiveServer, series: Path, damage: bytes) -> None:
    before = set(results_of(ready_home))
    first = found(server, series)
    (file,) = set(results_of(ready_home)) - before
    file.write_bytes(file.read_bytes()[:-20] if damage is None else damage)
    again = found(server, series)
    assert not again["cached"]
    assert lasting(again) == lasting(first)
    assert found(server, series)["cached"]


def test_the_answer_not_asked_for_longest_makes_room(ready_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(ready_home, home, ignore=shutil.ignore_patterns("results"))
    voxels, affine = scan()
    for number in range(3):
        write_nifti(tmp_path / f"{number}.nii", voxels, affine)
    with live_server(home, {"OPENSCANS_RESULTS": "2"}) as server:
        for number in (0, 1, 0, 2):
            found(server, tmp_path / f"{number}.nii")
        assert len(results_of(home)) == 2
        assert found(server, tmp_path / "0.nii")["cached"]
        assert not found(server, tmp_path / "1.nii")["cached"]


def test_none_are_kept_where_the_setting_says_so(ready_home: Path, series: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(ready_home, home, ignore=shutil.ignore_patterns("results"))
    with live_server(home, {"OPENSCANS_RESULTS": "0"}) as server:
        found(server, series)
        assert not found(server, series)["cached"]
    assert not results_of(home)


def test_a_folder_that_cannot_be_written_costs_only_the_next_answer_s_speed(
    ready_home: Path, series: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(ready_home, home, ignore=shutil.ignore_patterns("results"))
    (home / "cache" / "results").write_text("a file in the folder's place")
    with live_server(home) as server:
        assert found(server, series)["vertebrae"]
        assert not found(server, series)["cached"]


def test_a_kept_answer_waits_for_no_running_detection(ready_home: Path, series: Path, tmp_path: Path) -> None:
    voxels, affine = scan()
    long = tmp_path / "long.nii"
    write_nifti(long, voxels.repeat(6, axis=0), affine)
    with live_server(ready_home) as server:
        found(server, series)
        with server.detection_events(long, model="total_body", use_cache=False) as events:
            next(event for event in events if event["status"] not in ("queued", "reading"))
            since_s = time.monotonic()
            assert found(server, series)["cached"]
            took_s = time.monotonic() - since_s
            assert [*events][-1]["status"] == "complete"
            assert time.monotonic() - since_s > took_s


def test_keeping_an_answer_opens_no_file_of_the_image(tmp_path: Path) -> None:
    gone = tuple(str(tmp_path / "gone" / name) for name in "ab")
    image = Fingerprint("0" * 64, gone, Listing(tmp_path / "gone", deep=True, stats=()))
    found = replace(
        pipelines.detection_of(pipelines.task()),
        image=replace(pipelines.IMAGE, series_instance_uid="1.2.3"),
        uid_locations={"1.2.3": UidLocation(gone[1], 100, 5)},
    )
    cache = ResultCache(tmp_path / "results", settings=(), most=10)
    cache.put("key", found, image)
    kept = cache.get("key")
    assert kept is not None
    assert kept.locations(image) == (UidLocation(gone[1], 100, 5),)
    assert kept.with_uids(["1.2.3"]).image == found.image
