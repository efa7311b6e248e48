"""What stands between a server and its weights: other mirrors, login pages, stores and their signed addresses."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live_server import LiveServer, live_server
from tests.model_homes import MR, files_below
from tests.release_server import (
    PIECE_BYTES,
    Fault,
    ReleaseServer,
    release_zip,
    training_files,
    write_release,
    write_zip,
)

CUT = 40 * PIECE_BYTES
"""About half of a release's zip here."""

DOWNLOAD = "/api/models/download/vertebrae_mr"
PAGE = b"<html>Log in to the hospital's network</html>"


@pytest.fixture
def release(tmp_path: Path) -> Iterator[ReleaseServer]:
    with ReleaseServer.over(write_release(tmp_path / "release", 756)) as running:
        yield running


@dataclass(frozen=True)
class Pair:
    """A server and the release server that it downloads from."""

    server: LiveServer
    release: ReleaseServer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("between")
    with (
        ReleaseServer.over(write_release(folder / "release", 756)) as release,
        live_server(folder / "home", {"OPENSCANS_WEIGHTS_URL": release.url}) as server,
    ):
        yield Pair(server, release)


@pytest.fixture
def pair(running: Pair) -> Pair:
    """Both as they were before the first test."""
    running.server.delete("/api/models/vertebrae_mr")
    write_release(running.release.folder, 756)
    running.release.faults.clear()
    running.release.requests.clear()
    running.release.always = Fault()
    return running


def downloaded(server: LiveServer) -> dict[str, Any]:
    """The last event."""
    with server.events("POST", DOWNLOAD) as events:
        return list(events)[-1]


def part_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob(f"{MR}.zip.part"))


# Mirrors


@pytest.mark.parametrize("other", ["same size", "other size"])
def test_a_mirror_with_another_file_is_passed_over_and_the_bytes_are_kept(
    release: ReleaseServer, home: Path, tmp_path: Path, other: str
) -> None:
    folder = write_release(tmp_path / "mirror", 756)
    zip_path = release_zip(folder, 756)
    if other == "same size":
        zip_path.write_bytes(zip_path.read_bytes()[:-1] + b"\1")
    else:
        write_zip(zip_path, training_files(756, checkpoint_bytes=400_000))
    with (
        ReleaseServer.over(folder) as mirror,
        live_server(home, {"OPENSCANS_WEIGHTS_URL": f"{release.url},{mirror.url}"}) as server,
    ):
        release.faults += [Fault(drop_after=CUT), Fault(status=404)]
        failed = downloaded(server)
        assert (failed["status"], failed["code"]) == ("error", "download_failed")
        assert "another file" in failed["error"]
        assert "OPENSCANS_WEIGHTS_URL" in failed["hint"]
        assert part_bytes(home) == CUT
        assert downloaded(server)["status"] == "complete"
    assert release.requests[-1].range == f"bytes={CUT}-"
    assert release.body_bytes() == release_zip(release.folder, 756).stat().st_size


def test_a_mirror_that_ignores_what_was_begun_is_passed_over_too(
    release: ReleaseServer, home: Path, tmp_path: Path
) -> None:
    folder = write_release(tmp_path / "mirror", 756)
    write_zip(release_zip(folder, 756), training_files(756, checkpoint_bytes=400_000))
    with (
        ReleaseServer.over(folder) as mirror,
        live_server(home, {"OPENSCANS_WEIGHTS_URL": f"{release.url},{mirror.url}"}) as server,
    ):
        mirror.always = Fault(ignore_if_range=True)
        release.faults += [Fault(drop_after=CUT), Fault(status=404)]
        assert downloaded(server)["status"] == "error"
        assert [sent.status for sent in mirror.requests] == [206]
        assert part_bytes(home) == CUT


def test_where_the_mirror_of_the_beginning_is_no_longer_set_another_begins_anew(
    release: ReleaseServer, home: Path, tmp_path: Path
) -> None:
    release.faults += [Fault(drop_after=CUT), Fault(status=404)]
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": release.url}) as server:
        assert downloaded(server)["status"] == "error"
    folder = write_release(tmp_path / "mirror", 756)
    write_zip(release_zip(folder, 756), training_files(756, checkpoint_bytes=400_000))
    with ReleaseServer.over(folder) as mirror, live_server(home, {"OPENSCANS_WEIGHTS_URL": mirror.url}) as server:
        assert downloaded(server)["status"] == "complete"


WITHOUT_RANGES = {"Accept-Ranges": "", "ETag": ""}
"""What a server leaves out that knows nothing of parts of files."""


@pytest.fixture
def whole_only(tmp_path: Path) -> Iterator[ReleaseServer]:
    """A mirror with the same file that always sends all of it."""
    with ReleaseServer.over(write_release(tmp_path / "whole only", 756)) as running:
        running.always = Fault(headers=WITHOUT_RANGES, ignore_range=True)
        yield running


def test_a_mirror_without_ranges_takes_over_from_one_that_is_gone_and_no_byte_is_lost(
    home: Path, tmp_path: Path, whole_only: ReleaseServer
) -> None:
    further = CUT + 10 * PIECE_BYTES
    gone = Fault(status=404)
    with ReleaseServer.over(write_release(tmp_path / "release", 756)) as release:
        env = {"OPENSCANS_WEIGHTS_URL": f"{release.url},{whole_only.url}"}
        with live_server(home, env) as server:
            release.faults += [Fault(drop_after=CUT), gone]
            whole_only.faults.append(gone)
            assert downloaded(server)["status"] == "error"
    with live_server(home, env) as server:
        for cut, kept in ((CUT // 2, CUT), (further, further), (CUT, further)):
            whole_only.faults += [
                Fault(headers=WITHOUT_RANGES, ignore_range=True, drop_after=cut),
                gone,
            ]
            assert downloaded(server)["status"] == "error"
            assert part_bytes(home) == kept
        whole_only.faults.clear()
        assert downloaded(server)["status"] == "complete"


def test_a_mirror_that_tells_no_length_and_breaks_off_has_not_sent_the_whole(
    release: ReleaseServer, home: Path, whole_only: ReleaseServer
) -> None:
    gone = Fault(status=404)
    unframed = {**WITHOUT_RANGES, "Content-Length": ""}
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": f"{release.url},{whole_only.url}"}) as server:
        release.faults += [Fault(drop_after=CUT), gone, gone]
        whole_only.faults += [gone, Fault(headers=unframed, ignore_range=True, drop_after=CUT + PIECE_BYTES)]
        assert downloaded(server)["status"] == "error"
        assert downloaded(server)["status"] == "complete"


def test_a_mirror_without_ranges_that_has_another_file_is_passed_over_and_the_bytes_are_kept(
    release: ReleaseServer, home: Path, whole_only: ReleaseServer
) -> None:
    path = release_zip(whole_only.folder, 756)
    content = bytearray(path.read_bytes())
    content[CUT - 1] ^= 1
    path.write_bytes(content)
    with live_server(home, {"OPENSCANS_WEIGHTS_URL": f"{release.url},{whole_only.url}"}) as server:
        release.faults += [Fault(drop_after=CUT), Fault(status=404)]
        failed = downloaded(server)
        assert "has another file than the one that was begun at another mirror" in failed["error"]
        assert part_bytes(home) == CUT
        assert downloaded(server)["status"] == "complete"
    assert release.requests[-1].range == f"bytes={CUT}-"


# Pages in the place of files


@pytest.mark.parametrize("kind", ["text/html", "application/zip", "application/octet-stream", ""])
def test_a_login_page_of_whatever_type_takes_no_files_place(pair: Pair, kind: str) -> None:
    server, release = pair.server, pair.release
    release.faults += [Fault(drop_after=CUT), Fault(status=404)]
    assert downloaded(server)["status"] == "error"
    (release.folder / "login").write_bytes(PAGE)
    release.faults += [
        Fault(status=302, location="/login"),
        Fault(headers={"Content-Type": kind}, ignore_range=True),
    ]
    failed = downloaded(server)
    assert failed["code"] == "download_failed"
    assert "login" in failed["error"]
    assert part_bytes(server.home) == CUT
    assert downloaded(server)["status"] == "complete"
    assert release.body_bytes(".zip") == release_zip(release.folder, 756).stat().st_size


def test_a_login_page_leaves_nothing_where_nothing_was_begun(pair: Pair) -> None:
    release_zip(pair.release.folder, 756).write_bytes(PAGE)
    assert "login" in downloaded(pair.server)["error"]
    assert len(pair.release.requests) == 1
    assert not any(MR in name for name in files_below(pair.server.home))


# Signed addresses, and stores


def test_a_signed_address_that_has_expired_is_asked_for_anew(pair: Pair) -> None:
    release = pair.release
    (release.folder / "signed").write_bytes(release_zip(release.folder, 756).read_bytes())
    redirect = Fault(status=302, location="/signed")
    release.faults += [redirect, Fault(drop_after=CUT), redirect, Fault(status=403), redirect]
    assert downloaded(pair.server)["status"] == "complete"
    asked = [(sent.path.rpartition("/")[2], sent.status) for sent in release.requests]
    first = (f"{MR}.zip", 302)
    assert asked == [first, ("signed", 200), first, ("signed", 403), first, ("signed", 206)]


def test_a_refusal_that_stays_is_told_after_two_more_redirects(pair: Pair) -> None:
    pair.release.faults += [Fault(status=302, location="/signed"), Fault(status=403)] * 3
    assert "(403)" in downloaded(pair.server)["error"]
    assert len(pair.release.requests) == 6


@pytest.mark.parametrize("encoding", [" ", "aws-chunked", "aws-chunked, identity", "Identity"])
def test_an_encoding_that_changes_no_byte_is_none(pair: Pair, encoding: str) -> None:
    pair.release.always = Fault(headers={"Content-Encoding": encoding})
    assert downloaded(pair.server)["status"] == "complete"


# Zips of other systems


def with_backslashes(path: Path) -> Path:
    """A zip as programs of Windows' write them, a folder's own entry among its files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {f"{MR}/": b"", **training_files(756)}.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name.replace("/", "\\")
            archive.writestr(entry, content)
    return path


def test_backslashes_in_a_zip_part_folders(pair: Pair, tmp_path: Path) -> None:
    path = with_backslashes(tmp_path / "mr.zip")
    imported = pair.server.post("/api/models/import/vertebrae_mr", {"file_path": str(path)})
    assert imported.json()["state"] == "ready"
    below = pair.server.home / "models/totalsegmentator/vertebrae_mr"
    assert files_below(below) == {*training_files(756), f"{MR}/manifest.json"}
