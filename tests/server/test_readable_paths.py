"""Which paths are read: what they name, what lies outside the allowed roots, and what is no file at all."""

import os
import socket
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from openscans.errors import Cancelled
from openscans.jobs.readable_path import readable_path
from tests.live_server import LiveServer, live_server

SCRIPTED = ("-m", "tests.scripted_server")
OFFLINE = {"OPENSCANS_OFFLINE": "1"}


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that reads whatever its user can read."""
    with live_server(tmp_path_factory.mktemp("home"), OFFLINE, program=SCRIPTED) as server:
        yield server


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is allowed, and one beside it that is not; "fine" in each."""
    parent = tmp_path_factory.mktemp("places")
    for name in ("Allowed", "outside", "Allowed-too"):
        (parent / name).mkdir()
        (parent / name / "fine").touch()
    return parent


@pytest.fixture(scope="module")
def bound(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that reads below one folder."""
    env = OFFLINE | {"OPENSCANS_ALLOWED_ROOTS": str(places / "Allowed")}
    with live_server(tmp_path_factory.mktemp("home"), env, program=SCRIPTED) as server:
        yield server


def outcome(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


def both(server: LiveServer, path: Path | str) -> set[tuple[int, str | None]]:
    """What the two routes that take a path say to it."""
    imported = server.post("/api/models/import/vertebrae_mr", {"file_path": str(path)})
    return {outcome(server.detect(path)), outcome(imported)}


FORBIDDEN = {(403, "forbidden_path")}


@pytest.mark.parametrize(
    "path",
    [
        r"\\host\share\image.dcm",
        "//host/share/image.dcm",
        r"\\.\PhysicalDrive0",
        r"\\?\C:\image.dcm",
        r"\/host/share",
        "/dev/zero",
        "/dev/stdin",
        "/dev/shm",
        "/dev/../dev/tty",
        "/proc/self/environ",
        "/proc/1/mem",
        "/sys/kernel",
        "/dev/none",
    ],
)
def test_devices_and_shares_are_refused_whether_they_are_there_or_not(
    free: LiveServer, bound: LiveServer, path: str
) -> None:
    assert both(free, path) == both(bound, path) == FORBIDDEN


def test_a_link_to_a_device_is_refused(free: LiveServer, tmp_path: Path) -> None:
    for name, target in (("zero", "/dev/zero"), ("environ", "/proc/self/environ"), ("processes", "/proc")):
        (tmp_path / name).symlink_to(target)
        assert both(free, tmp_path / name) == FORBIDDEN


def test_a_pipe_is_refused_without_being_opened(free: LiveServer, tmp_path: Path) -> None:
    pipe = tmp_path / "image.dcm"
    os.mkfifo(pipe)
    opened = threading.Event()

    def write() -> None:
        # Returns only when somebody opens the other end.
        pipe.open("wb").close()
        opened.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    assert both(free, pipe) == FORBIDDEN
    assert not opened.is_set()
    pipe.open("rb").close()
    writer.join(10)


def test_a_socket_is_refused(free: LiveServer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert both(free, tmp_path / "socket") == FORBIDDEN


@pytest.mark.parametrize("path", [b"/a\\u0000b", b"/\\ud800", b"/" + b"a" * 100_000, b"relative/path", b"", b"C:image"])
@pytest.mark.parametrize("route", ["detect-vertebrae", "models/import/vertebrae_mr"])
def test_a_path_that_cannot_be_one_is_an_invalid_request(free: LiveServer, route: str, path: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    body = b'{"file_path": "' + path + b'"}'
    answer = httpx.post(f"{free.url}/api/{route}", content=body, headers=headers, trust_env=False)
    assert outcome(answer) == (422, "invalid_request")


def test_a_loop_of_links_is_not_found(free: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert both(free, tmp_path / "loop") == {(404, "file_not_found")}


def test_a_slice_that_is_a_link_keeps_its_place_beside_its_series(free: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "die").touch()
    (tmp_path / "fine").symlink_to(tmp_path / "store" / "die")
    assert free.detect(tmp_path / "fine").status_code == 200


def test_below_an_allowed_root_missing_and_there_are_told_apart(bound: LiveServer, places: Path) -> None:
    assert bound.detect(places / "Allowed" / "fine").status_code == 200
    assert both(bound, places / "Allowed" / "missing") == {(404, "file_not_found")}
    assert both(bound, places / "Allowed" / "missing" / ".." / "missing") == {(404, "file_not_found")}


def test_outside_the_roots_missing_and_there_look_the_same(bound: LiveServer, places: Path) -> None:
    answers = [
        bound.detect(path).json()
        for path in (
            places / "outside" / "fine",
            places / "outside" / "missing",
            places / "nowhere" / "at" / "all",
            places,
            Path("/"),
            Path("/etc/passwd"),
            Path("/root/.ssh/id_rsa"),
        )
    ]
    assert answers[0]["code"] == "forbidden_path"
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize(
    "path",
    [
        "Allowed/../outside/fine",
        "Allowed/./../Allowed-too/fine",
        "Allowed-too/fine",
        "Allowed/missing/../../outside/fine",
        "Allowed\u2215fine",
        "Allowed/..",
    ],
)
def test_no_spelling_leads_out_of_the_roots(bound: LiveServer, places: Path, path: str) -> None:
    assert both(bound, f"{places}/{path}") == FORBIDDEN


def test_no_link_leads_out_of_the_roots(bound: LiveServer, places: Path) -> None:
    allowed, outside = places / "Allowed", places / "outside"
    for name, target in (("file", outside / "fine"), ("folder", outside), ("gone", outside / "missing"), ("up", "..")):
        (allowed / name).symlink_to(target)
    for path in ("file", "folder", "folder/fine", "folder/missing", "gone", "up", "up/outside/fine", "folder/../fine"):
        assert both(bound, f"{allowed}/{path}") == FORBIDDEN
    for name in ("file", "folder", "gone", "up"):
        (allowed / name).unlink()


def test_a_folder_that_holds_a_link_to_a_file_outside_is_refused(bound: LiveServer, places: Path) -> None:
    series = places / "Allowed" / "series"
    (series / "below").mkdir(parents=True)
    (series / "below" / "slice").symlink_to(places / "Allowed" / "fine")
    assert outcome(bound.detect(series))[1] != "forbidden_path"
    (series / "below" / "stranger").symlink_to(places / "outside" / "fine")
    assert both(bound, series) == FORBIDDEN


def test_a_folder_that_is_looked_through_for_links_can_be_left(places: Path) -> None:
    def report(done: int, total: int) -> None:
        raise Cancelled

    assert readable_path(str(places / "Allowed" / "fine"), [places], report)
    with pytest.raises(Cancelled):
        readable_path(str(places), [places], report)


def test_a_link_into_the_roots_is_read(bound: LiveServer, places: Path) -> None:
    (places / "outside" / "way-in").symlink_to(places / "Allowed" / "fine")
    assert bound.detect(places / "outside" / "way-in").status_code == 200


@pytest.mark.parametrize("change", [str.lower, str.upper, str.swapcase])
def test_another_case_is_the_allowed_folder_only_where_the_disk_says_so(
    bound: LiveServer, places: Path, change: type[str]
) -> None:
    other = places / change("Allowed")
    expected = 200 if other.exists() else 403
    assert bound.detect(other / "fine").status_code == expected


def test_another_composition_of_accents_is_the_allowed_folder_only_where_the_disk_says_so(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Röntgen") for form in ("NFC", "NFD"))
    (tmp_path / composed).mkdir()
    one_folder = (tmp_path / apart).exists()
    (tmp_path / apart).mkdir(exist_ok=True)
    for name in (composed, apart):
        (tmp_path / name / "fine").touch()
    env = OFFLINE | {"OPENSCANS_ALLOWED_ROOTS": str(tmp_path / composed)}
    with live_server(tmp_path / "home", env, program=SCRIPTED) as server:
        assert server.detect(tmp_path / composed / "fine").status_code == 200
        assert server.detect(tmp_path / apart / "fine").status_code == (200 if one_folder else 403)


def test_a_root_may_be_a_link_and_a_root_that_is_missing_allows_nothing(tmp_path: Path) -> None:
    for name in ("real", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fine").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    roots = os.pathsep.join([str(tmp_path / "link"), str(tmp_path / "missing")])
    with live_server(tmp_path / "home", OFFLINE | {"OPENSCANS_ALLOWED_ROOTS": roots}, program=SCRIPTED) as server:
        assert server.detect(tmp_path / "real" / "fine").status_code == 200
        assert server.detect(tmp_path / "link" / "fine").status_code == 200
        assert server.detect(tmp_path / "other" / "fine").status_code == 403
