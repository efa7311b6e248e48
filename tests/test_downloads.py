"""A URL becomes a complete file whatever the server does, and no byte is fetched twice without need."""

import hashlib
import logging
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import downloads
from errors import Cancelled, DiskFull, DownloadFailed
from progress import Report
from tests.release_server import Fault, ReleaseServer

CONTENT = random.Random(7).randbytes(200_000)
CUT = 81_920
"""A multiple of the pieces that the server sends."""

PATIENCE = len(downloads.WAITS_S) + 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReleaseServer]:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "a.zip").write_bytes(CONTENT)
    with ReleaseServer.over(folder) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "home" / "a.zip"


def assert_whole(target: Path, content: bytes = CONTENT) -> None:
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def cancel_at(bytes_done: int) -> Report:
    def report(done: int, total: int) -> None:
        if done >= bytes_done:
            raise Cancelled

    return report


def interrupted(server: ReleaseServer, target: Path) -> int:
    """Leave a part of the file behind; how many bytes it has."""
    with pytest.raises(Cancelled):
        downloads.fetch([f"{server.url}/a.zip"], target, report=cancel_at(1))
    return downloads.part_bytes(target)


def test_a_file_arrives_whole_with_its_digest(server: ReleaseServer, target: Path) -> None:
    fetched = downloads.fetch([f"{server.url}/a.zip"], target)
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert fetched.url == f"{server.url}/a.zip"
    assert_whole(target)


def test_progress_is_in_bytes_and_ends_with_all_of_them(server: ReleaseServer, target: Path) -> None:
    told: list[tuple[int, int]] = []
    downloads.fetch([f"{server.url}/a.zip"], target, report=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_dropped_connection_goes_on_where_it_broke(server: ReleaseServer, target: Path) -> None:
    server.faults.append(Fault(drop_after=CUT))
    downloads.fetch([f"{server.url}/a.zip"], target)
    assert_whole(target)
    assert [sent.range for sent in server.requests] == [None, f"bytes={CUT}-"]
    assert server.body_bytes() == len(CONTENT)


def test_what_an_earlier_process_left_is_not_fetched_again(server: ReleaseServer, target: Path) -> None:
    kept_bytes = interrupted(server, target)
    assert kept_bytes > 0
    fetched = downloads.fetch([f"{server.url}/a.zip"], target)
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (server.requests[-1].status, server.requests[-1].body_bytes) == (206, len(CONTENT) - kept_bytes)


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    changed = CONTENT[::-1]
    (server.folder / "a.zip").write_bytes(changed)
    downloads.fetch([f"{server.url}/a.zip"], target)
    assert_whole(target, changed)


def test_a_server_without_ranges_starts_anew(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    server.always = Fault(ignore_range=True)
    downloads.fetch([f"{server.url}/a.zip"], target)
    assert_whole(target)


def test_nothing_beyond_a_complete_part_is_a_success(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    target.with_name("a.zip.part").write_bytes(CONTENT)
    fetched = downloads.fetch([f"{server.url}/a.zip"], target)
    assert server.requests[-1].status == 416
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert_whole(target)


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    target.with_name("a.zip.part").write_bytes(CONTENT + b"x")
    downloads.fetch([f"{server.url}/a.zip"], target)
    assert_whole(target)


def test_a_silent_server_is_left_and_asked_for_the_rest(server: ReleaseServer, target: Path) -> None:
    server.faults.append(Fault(stall_after=CUT))
    downloads.fetch([f"{server.url}/a.zip"], target, stall_s=0.3)
    assert_whole(target)
    assert server.stalled.is_set()


def test_fewer_bytes_than_announced_are_no_success(server: ReleaseServer, target: Path) -> None:
    server.always = Fault(announce=len(CONTENT) + 1, ignore_range=True)
    with pytest.raises(DownloadFailed, match="broke off"):
        downloads.fetch([f"{server.url}/a.zip"], target)
    assert not target.exists()


def test_a_server_that_is_busy_for_a_moment_is_asked_again(server: ReleaseServer, target: Path) -> None:
    server.faults.append(Fault(status=503))
    downloads.fetch([f"{server.url}/a.zip"], target)
    assert_whole(target)


def test_a_server_that_stays_busy_is_given_up(server: ReleaseServer, target: Path) -> None:
    server.always = Fault(status=503)
    with pytest.raises(DownloadFailed, match=r"at the moment \(503\)"):
        downloads.fetch([f"{server.url}/a.zip"], target)
    assert len(server.requests) == PATIENCE


@pytest.mark.parametrize(("status", "sentence"), [(404, "has no file a.zip"), (403, "refuses"), (418, "answered 418")])
def test_a_refusal_is_not_repeated_and_says_which(
    server: ReleaseServer, target: Path, status: int, sentence: str
) -> None:
    server.always = Fault(status=status)
    with pytest.raises(DownloadFailed, match=sentence):
        downloads.fetch([f"{server.url}/a.zip"], target)
    assert len(server.requests) == 1


def test_mirrors_are_tried_in_order(server: ReleaseServer, target: Path) -> None:
    fetched = downloads.fetch([f"{server.url}/gone/a.zip", f"{server.url}/a.zip"], target)
    assert fetched.url == f"{server.url}/a.zip"
    assert [sent.status for sent in server.requests] == [404, 200]


def test_a_mirror_that_refuses_leaves_the_bytes_of_the_other(server: ReleaseServer, target: Path) -> None:
    kept_bytes = interrupted(server, target)
    downloads.fetch([f"{server.url}/gone/a.zip", f"{server.url}/a.zip"], target)
    assert server.requests[-1].range == f"bytes={kept_bytes}-"


def test_a_redirect_is_followed_for_the_rest_too(server: ReleaseServer, target: Path) -> None:
    urls = [f"{server.url}/releases/a.zip"]
    redirect = Fault(status=302, location="/a.zip")
    server.faults += [redirect, Fault(drop_after=CUT), redirect]
    fetched = downloads.fetch(urls, target)
    assert fetched.url == urls[0]
    assert [sent.range for sent in server.requests if sent.path == "/a.zip"] == [None, f"bytes={CUT}-"]
    assert_whole(target)


def test_a_mirrors_password_is_written_nowhere(
    server: ReleaseServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{server.url.replace('//', '//someone:secret@')}/a.zip"
    server.faults += [Fault(drop_after=CUT), Fault(status=404)]
    with caplog.at_level(logging.INFO, "openscans"), pytest.raises(DownloadFailed):
        downloads.fetch([url], target)
    written = [path.read_bytes() for path in target.parent.iterdir()]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("openscans")]
    assert ours
    assert not any("secret" in message for message in ours)
    assert not any(b"secret" in content for content in written)
    assert downloads.fetch([url], target).url == f"{server.url}/a.zip"
    assert server.requests[-1].range == f"bytes={CUT}-"


@pytest.mark.parametrize(
    ("name", "value"), [("HTTPS_PROXY", "ftp://127.0.0.1:9"), ("SSL_CERT_FILE", "/nowhere/certificates.pem")]
)
def test_settings_that_cannot_be_used_are_said_so(
    target: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(DownloadFailed, match="settings for the proxy") as caught:
        downloads.fetch(["https://localhost:9/a.zip"], target)
    assert name in caught.value.hint


def test_nobody_listening_is_said_so(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1 cannot be reached"):
        downloads.fetch([f"http://127.0.0.1:{port}/a.zip"], target)


def test_a_file_too_large_for_the_disk_is_not_begun(server: ReleaseServer, target: Path) -> None:
    server.always = Fault(announce=10**15)
    with pytest.raises(DiskFull, match="needed"):
        downloads.fetch([f"{server.url}/a.zip"], target)
    assert downloads.part_bytes(target) == 0


def test_a_file_that_is_there_needs_no_connection(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert downloads.fetch([], target).sha256 == hashlib.sha256(CONTENT).hexdigest()
