"""Zips, packed files and indexes as `file_path`, through HTTP: what is found in them, what is kept, what is left."""

import gzip
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openscans.system.files import RESERVE_BYTES
from phantom.demo import WEIGHTS
from phantom.files import write_dicom_series, write_nifti
from tests.bad_files import edit
from tests.live_server import LiveServer, children_of, eventually
from tests.phantom_server import lumbar_scan, phantom_server
from tests.small_disks import disk_of
from tests.zips import contents_of, lock, write_zip, zip_folder

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with phantom_server(tmp_path_factory.mktemp("zips") / "home") as live:
        yield live


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A series of four vertebrae, as files without names of their own."""
    folder = tmp_path / "scan"
    for number, file in enumerate(write_dicom_series(folder, *lumbar_scan())):
        file.rename(folder / f"IM{number:04d}")
    return folder


@pytest.fixture
def zipped(scan: Path) -> Path:
    return zip_folder(scan, scan.with_name("scan.zip"))


def found(server: LiveServer, path: Path, **options: object) -> dict[str, Any]:
    answer = server.detect(path, fast_mode=True, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


def unpacked(server: LiveServer) -> list[Path]:
    """What lies in the private folders now."""
    return [path for path in (server.home / "private").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_what_is_found_in_a_zip_is_what_is_found_in_its_folder(server: LiveServer, scan: Path, zipped: Path) -> None:
    in_folder, in_zip = found(server, scan), found(server, zipped)
    assert len(in_zip["vertebrae"]) == 4
    for key in ("vertebrae", "image", "warnings", "model"):
        assert in_zip[key] == in_folder[key], key
    assert in_zip["vertebrae"][0]["slice"]["sop_instance_uid"]
    assert unpacked(server) == []


def test_what_was_found_in_a_zip_is_known_the_next_time_with_its_uids(server: LiveServer, zipped: Path) -> None:
    first, second = found(server, zipped), found(server, zipped)
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["vertebrae"] == first["vertebrae"]
    assert second["image"]["series_instance_uid"] == first["image"]["series_instance_uid"]
    copy = shutil.copy2(zipped, zipped.with_name("copy"))
    assert found(server, Path(copy))["cached"]


def test_another_zip_in_its_place_is_looked_at_anew(server: LiveServer, scan: Path, zipped: Path) -> None:
    found(server, zipped)
    for file in scan.iterdir():
        edit(file, SeriesInstanceUID="1.2.826.0.1.3680043.8.498.77")
    zip_folder(scan, zipped)
    again = found(server, zipped)
    assert not again["cached"]
    assert again["image"]["series_instance_uid"] == "1.2.826.0.1.3680043.8.498.77"


def test_series_uid_chooses_in_a_zip(server: LiveServer, tmp_path: Path) -> None:
    uids = ("1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2")
    for uid in uids:
        for file in write_dicom_series(tmp_path / "study" / uid, *lumbar_scan()):
            edit(file, SeriesInstanceUID=uid)
    path = zip_folder(tmp_path / "study", tmp_path / "study.zip")
    assert [found(server, path, series_uid=uid)["image"]["series_instance_uid"] for uid in uids] == list(uids)


def test_a_nifti_in_a_zip_is_found_and_known_the_next_time(server: LiveServer, tmp_path: Path) -> None:
    scan = tmp_path / "scan.nii.gz"
    write_nifti(scan, *lumbar_scan())
    path = write_zip(tmp_path / "scan.zip", {"Doe John/ct.nii.gz": scan.read_bytes()})
    first, second = found(server, path), found(server, path)
    assert len(first["vertebrae"]) == 4
    assert second["cached"]
    assert second["vertebrae"] == first["vertebrae"]


def test_packed_files_are_found_and_known_the_next_time_with_their_uids(server: LiveServer, scan: Path) -> None:
    in_folder = found(server, scan)
    for file in scan.iterdir():
        file.with_suffix(".dcm.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        file.unlink()
    first, second = (found(server, scan / "IM0003.dcm.gz") for _ in range(2))
    assert first["vertebrae"] == in_folder["vertebrae"]
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["vertebrae"] == first["vertebrae"]
    again = zip_folder(scan, scan.with_name("packed.zip"))
    assert found(server, again)["vertebrae"] == first["vertebrae"]
    assert found(server, again)["cached"]


def test_an_index_is_known_the_next_time_unless_a_file_below_it_changed(server: LiveServer, tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    disk = FileSet()
    for file in write_dicom_series(tmp_path / "in", *lumbar_scan()):
        edit(file, StudyDate="20200102", StudyTime="030405", StudyID="1", SeriesNumber=2, AccessionNumber="A1")
        disk.add(file)
    disk.write(tmp_path / "cd")
    index = tmp_path / "cd/DICOMDIR"
    first, second = found(server, index), found(server, index)
    assert len(first["vertebrae"]) == 4
    assert (first["cached"], second["cached"]) == (False, True)
    last = max(path for path in index.parent.rglob("IM*") if path.is_file())
    last.unlink()
    third = found(server, index)
    assert not third["cached"]
    assert "missing_slices" in {warning["code"] for warning in third["warnings"]}


@pytest.mark.parametrize(
    ("spoil", "status", "code"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-500]), 422, "corrupt_file"),
        (lock, 415, "unsupported_file"),
        (lambda path: write_zip(path, {"letter.txt": b"Dear"}), 415, "unsupported_file"),
    ],
    ids=["cut", "locked", "letter"],
)
def test_a_zip_that_cannot_be_read_is_refused_and_leaves_nothing(
    server: LiveServer, zipped: Path, spoil: Any, status: int, code: str
) -> None:
    spoil(zipped)
    answer = server.detect(zipped, fast_mode=True)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]
    assert unpacked(server) == []


def test_while_it_is_read_nobody_else_may_look_into_what_was_unpacked(server: LiveServer, zipped: Path) -> None:
    with server.detection_events(zipped, fast_mode=True, use_cache=False) as stream:
        next(event for event in stream if event["status"] == "localising")
        files = unpacked(server)
        assert files
        for folder in {file.parent for file in files}:
            assert folder.stat().st_mode & 0o077 == 0
        assert list(stream)[-1]["status"] == "complete"
    assert eventually(lambda: unpacked(server) == [])


def test_who_leaves_takes_what_was_unpacked_along(server: LiveServer, zipped: Path) -> None:
    with server.detection_events(zipped, fast_mode=True, use_cache=False) as stream:
        next(event for event in stream if event["status"] == "localising")
        assert unpacked(server)
    assert eventually(lambda: unpacked(server) == [])


def test_a_worker_that_is_killed_leaves_nothing_unpacked(server: LiveServer, zipped: Path) -> None:
    with server.detection_events(zipped, fast_mode=True, use_cache=False) as stream:
        next(event for event in stream if event["status"] in {"localising", "segmenting"})
        for child in children_of(server.process.pid):
            os.kill(child, signal.SIGKILL)
        assert list(stream)[-1]["code"] == "worker_crashed"
    assert eventually(lambda: unpacked(server) == [])


def test_what_a_killed_server_left_is_gone_when_the_next_one_serves(tmp_path: Path, zipped: Path) -> None:
    home = tmp_path / "home"
    with phantom_server(home) as server:
        with server.detection_events(zipped, fast_mode=True) as stream:
            next(event for event in stream if event["status"] == "localising")
            server.kill()
        assert unpacked(server)
    with phantom_server(home) as server:
        assert eventually(lambda: unpacked(server) == [])
        assert len(found(server, zipped)["vertebrae"]) == 4


def test_a_server_that_is_asked_to_end_leaves_nothing_unpacked(tmp_path: Path, zipped: Path) -> None:
    with phantom_server(tmp_path / "home") as server:
        with server.detection_events(zipped, fast_mode=True) as stream:
            next(event for event in stream if event["status"] == "localising")
            ending = threading.Thread(target=server.ask_to_end)
            ending.start()
            list(stream)
        ending.join()
        assert unpacked(server) == []


def test_a_zip_is_unpacked_for_who_may_read_it_alone(tmp_path: Path, zipped: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    inside = Path(shutil.copy(zipped, allowed / "scan.zip"))
    (allowed / "link.zip").symlink_to(zipped)
    with phantom_server(tmp_path / "home", {"OPENSCANS_ALLOWED_ROOTS": f"{allowed}{os.pathsep}{WEIGHTS}"}) as server:
        assert len(found(server, inside)["vertebrae"]) == 4
        for path in (zipped, allowed / "link.zip", server.home / "private"):
            assert server.detect(path).json()["code"] == "forbidden_path"


def test_without_room_for_what_a_zip_holds_it_is_507(tmp_path: Path) -> None:
    with disk_of(RESERVE_BYTES + 20_000_000, tmp_path / "disk") as disk:
        content = bytes(128) + b"DICM" + bytes(60_000_000)
        path = write_zip(tmp_path / "large.zip", {"IM0001": content})
        with phantom_server(disk / "home") as server:
            answer = server.detect(path, fast_mode=True)
            assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
            assert "MB are needed" in answer.json()["error"]
            assert unpacked(server) == []


def test_the_names_in_a_zip_stand_nowhere(server: LiveServer, scan: Path) -> None:
    files = {f"Zwetschkenbaum Amalie/{name}": content for name, content in contents_of(scan).items()}
    path = write_zip(scan.with_name("named.zip"), files)
    with server.detection_events(path, fast_mode=True) as stream:
        next(event for event in stream if event["status"] == "localising")
        seen = [str(file) for file in unpacked(server)]
        events = list(stream)
    kept = [file.read_bytes() for file in (server.home / "cache").rglob("*.json")]
    logs = [file.read_bytes() for file in (server.home / "logs").rglob("*") if file.is_file()]
    everything = b"\n".join([*kept, *logs, str(events).encode(), *map(str.encode, seen)])
    assert seen
    assert kept
    assert b"amalie" not in everything.lower()
