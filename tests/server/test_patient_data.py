"""Nothing that tells who the patient is stands in what the server writes or says: logs, caches, answers, errors."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phantom.files import write_dicom_series
from tests.bad_files import edit, jpeg_baseline_ct
from tests.live_server import LiveServer
from tests.phantom_server import lumbar_scan, phantom_server
from tests.server.test_process import children_of
from tests.zips import contents_of, write_zip, zip_folder

HEADER = {
    "PatientName": "Zwetschkenbaum^Amalie",
    "PatientID": "QX-471177",
    "PatientBirthDate": "19470213",
    "PatientAddress": "Hintere Zollamtsstrasse 5",
    "OtherPatientIDs": "SSN-0815-4711",
    "StudyDescription": "Wirbelsaeule nach Sturz",
    "SeriesDescription": "LWS axial Zwetschkenbaum",
    "AccessionNumber": "ACC-998877",
    "StudyID": "STUDY-554433",
    "ReferringPhysicianName": "Quacksalber^Eusebius",
    "InstitutionName": "Spital am Pyhrn",
    "StudyDate": "20190824",
    "PatientComments": "Allergisch gegen Kontrastmittel",
}

FOLDER = "Zwetschkenbaum Amalie 19470213"

SECRETS = {word for value in HEADER.values() for word in (value, value.split("^")[0])} | {FOLDER, "Amalie"}


def whole(folder: Path) -> Path:
    return series(folder)[5]


def malformed(folder: Path) -> Path:
    """With dates that are none: libraries quote such values when they warn."""
    for file in series(folder):
        # Of the same length, so that the file around it stays as it is.
        file.write_bytes(file.read_bytes().replace(b"19470213", b"19471399").replace(b"20190824", b"24.08.19"))
    return folder


def cut(folder: Path) -> Path:
    for file in series(folder):
        file.write_bytes(file.read_bytes()[:-100])
    return folder


def cut_in_the_header(folder: Path) -> Path:
    file = series(folder)[0]
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"19470213") + 4])
    return file


def single(folder: Path) -> Path:
    first, *others = series(folder)
    for file in others:
        file.unlink()
    return first


def sheared(folder: Path) -> Path:
    for number, file in enumerate(series(folder)):
        edit(file, ImagePositionPatient=[30.0 * number, 0, 3.0 * number])
    return folder


def jpeg_of_a_camera(folder: Path) -> Path:
    """Pixels of a kind that is not read, in a file whose header is as the others'."""
    for file in jpeg_baseline_ct(folder).iterdir():
        edit(file, **HEADER)
    return folder


def zipped(folder: Path) -> Path:
    """Under names in the zip that tell as much as its files do."""
    series(folder)
    files = {f"{FOLDER}/{HEADER['PatientID']}/{name}": content for name, content in contents_of(folder).items()}
    return write_zip(folder.with_name(f"{FOLDER}.zip"), files)


def zip_cut_short(folder: Path) -> Path:
    path = zipped(folder)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def zip_of_cut_files(folder: Path) -> Path:
    return zip_folder(cut(folder), folder.with_name(f"{FOLDER}.zip"))


def series(folder: Path) -> list[Path]:
    files = write_dicom_series(folder, *lumbar_scan())
    for file in files:
        edit(file, **HEADER)
    return files


FAILURES: dict[Callable[[Path], Path], str] = {
    cut: "corrupt_file",
    cut_in_the_header: "corrupt_file",
    single: "too_few_slices",
    sheared: "inconsistent_geometry",
    jpeg_of_a_camera: "unsupported_transfer_syntax",
    zip_cut_short: "corrupt_file",
    zip_of_cut_files: "corrupt_file",
}


@pytest.fixture(scope="module", params=["", "1"], ids=["usual log", "DEBUG"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """All that it may write lies beside its home: temporary files, and what libraries write into a user's folder."""
    place = tmp_path_factory.mktemp("place")
    (place / "tmp").mkdir()
    env = {"DEBUG": request.param, "TMPDIR": str(place / "tmp"), "HOME": str(place / "user")}
    with phantom_server(place / "home", env) as live:
        yield live


def traces(server: LiveServer, *said: str) -> set[str]:
    """Which secrets stand in any file around the server's home, in a file's name, in its output, or in ``said``."""
    place = server.home.parent
    texts = [text.encode() for text in (*said, *server.output, *server.errors)]
    for path in place.rglob("*"):
        texts.append(str(path.relative_to(place)).encode())
        # Weights are larger than all the rest and came before any patient.
        if path.is_file() and path.suffix != ".pth":
            texts.append(path.read_bytes())
    everything = b"\n".join(texts).lower()
    forms = ("utf-8", "utf-16-le")
    return {secret for secret in SECRETS if any(secret.lower().encode(form) in everything for form in forms)}


def test_a_secret_that_was_written_would_be_found(server: LiveServer) -> None:
    file = server.home / "logs" / "other.log"
    file.write_text(f"read {HEADER['PatientName']}", encoding="utf-8")
    assert "Zwetschkenbaum" in traces(server)
    file.unlink()
    assert traces(server) == set()


def test_detections_that_succeed_leave_no_trace(server: LiveServer, tmp_path: Path) -> None:
    path = whole(tmp_path / FOLDER)
    said = [server.detect(path, fast_mode=True), server.detect(path, fast_mode=True)]
    said.append(server.detect(malformed(tmp_path / f"{FOLDER} 2"), fast_mode=True))
    said += [server.detect(zipped(tmp_path / f"{FOLDER} 3"), fast_mode=True) for _ in range(2)]
    assert [answer.status_code for answer in said] == [200] * 5
    with server.detection_events(path, fast_mode=True) as stream:
        events = list(stream)
    assert events[-1]["status"] == "complete"
    said += [server.get("/api/jobs"), server.get(f"/api/jobs/{events[-1]['job_id']}"), server.get("/api/health")]
    assert traces(server, str(events), *[answer.text for answer in said]) == set()


@pytest.mark.parametrize(("make", "code"), FAILURES.items(), ids=[make.__name__ for make in FAILURES])
def test_a_detection_that_fails_leaves_no_trace(
    make: Callable[[Path], Path], code: str, server: LiveServer, tmp_path: Path
) -> None:
    path = make(tmp_path / FOLDER)
    answer = server.detect(path)
    assert answer.json()["code"] == code
    with server.detection_events(path) as stream:
        events = list(stream)
    assert traces(server, answer.text, str(events), server.get("/api/jobs").text) == set()


def test_requests_that_are_refused_leave_no_trace(server: LiveServer, tmp_path: Path) -> None:
    path = whole(tmp_path / FOLDER)
    said = [
        server.detect(tmp_path / FOLDER / "missing"),
        server.detect(path, series_uid=FOLDER),
        server.detect(path, model=FOLDER),
        server.detect(path, device=FOLDER),
        server.post("/api/detect-vertebrae", {"file_path": [str(path)]}),
        server.post("/api/models/import/vertebrae", {"file_path": str(path)}),
        server.get(f"/api/jobs/{FOLDER}"),
        server.get(f"/{FOLDER}"),
        server.get(f"/api/nothing?file_path={path}"),
    ]
    assert all(answer.status_code >= 400 for answer in said)
    assert traces(server, *[answer.text for answer in said]) == set()


@pytest.mark.parametrize("make", [whole, zipped])
def test_a_worker_that_is_killed_leaves_no_trace(
    make: Callable[[Path], Path], server: LiveServer, tmp_path: Path
) -> None:
    with server.detection_events(make(tmp_path / FOLDER), fast_mode=True, use_cache=False) as stream:
        next(event for event in stream if event["status"] in {"localising", "segmenting"})
        for child in children_of(server.process.pid):
            os.kill(child, signal.SIGKILL)
        events = list(stream)
    assert events[-1]["code"] == "worker_crashed"
    assert traces(server, str(events)) == set()
