"""A URL becomes a complete file whatever the server does, and no byte is fetched twice without need."""

import hashlib
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from openscans.errors import DownloadFailed
from openscans.progress import Report
from openscans.weights import download
from openscans.weights.partial_file import PartialFile
from openscans.weights.retry_policy import RetryPolicy
from tests.release_server import PIECE_BYTES, Fault, ReleaseServer

SIGNATURE = b"PK\x03\x04"
CONTENT = SIGNATURE + random.Random(7).randbytes(199_996)
CUT = 81_920
"""A multiple of the pieces that the server sends."""

BRISK = RetryPolicy(stall_s=0.5, first_pause_s=0.01)


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


def fetched(server: ReleaseServer, target: Path, report: Report = lambda done, total: None) -> download.DownloadedFile:
    urls = [f"{server.url}/a.zip"]
    return download.fetch(urls, target, report=report, retry_policy=BRISK, signature=SIGNATURE)


def assert_whole(target: Path, content: bytes = CONTENT) -> None:
    assert target.read_bytes() == content
    assert {path.name for path in target.parent.iterdir()} == {target.name, f"{target.name}.part.json"}
    download.discard(target)
    assert list(target.parent.iterdir()) == []


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def interrupted(server: ReleaseServer, target: Path) -> None:
    """Leave the first CUT bytes of the file behind."""
    server.faults += [Fault(drop_after=CUT), Fault(status=404)]
    with pytest.raises(DownloadFailed):
        fetched(server, target)
    assert PartialFile(target).size_bytes == CUT
    server.requests.clear()


def test_a_file_arrives_whole_with_its_digest(server: ReleaseServer, target: Path) -> None:
    found = fetched(server, target)
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert found.url == f"{server.url}/a.zip"
    assert_whole(target)


def test_progress_is_in_bytes_and_ends_with_all_of_them(server: ReleaseServer, target: Path) -> None:
    told: list[tuple[int, int]] = []
    fetched(server, target, lambda done, total: told.append((done, total)))
    # Before the answer nothing is known of the total.
    told = [(done, total) for done, total in told if total]
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_needs_no_connection(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    assert download.fetch([], target).sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_where_a_file_that_is_there_came_from_is_still_known(server: ReleaseServer, target: Path) -> None:
    fetched(server, target)
    assert download.fetch([], target).url == f"{server.url}/a.zip"


# Going on


@pytest.mark.parametrize("percent", [10, 50, 99])
def test_a_cut_connection_goes_on_where_it_broke(server: ReleaseServer, target: Path, percent: int) -> None:
    cut = len(CONTENT) * percent // 100
    server.faults.append(Fault(drop_after=cut))
    found = fetched(server, target)
    assert [sent.range for sent in server.requests] == [None, f"bytes={cut}-"]
    assert server.body_bytes() == len(CONTENT)
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert_whole(target)


def test_the_rest_is_asked_for_uncompressed_and_only_of_the_same_file(server: ReleaseServer, target: Path) -> None:
    server.faults.append(Fault(drop_after=CUT))
    fetched(server, target)
    asked = server.requests[-1].asked
    assert asked["Accept-Encoding"] == "identity"
    assert asked["If-Range"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'


def test_many_cuts_are_no_failure_as_long_as_bytes_come(server: ReleaseServer, target: Path) -> None:
    server.faults += [Fault(drop_after=PIECE_BYTES)] * (BRISK.retries + 4)
    fetched(server, target)
    assert server.body_bytes() == len(CONTENT)
    assert_whole(target)


def test_what_an_earlier_process_left_is_not_fetched_again(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    found = fetched(server, target)
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (server.requests[-1].status, server.requests[-1].body_bytes) == (206, len(CONTENT) - CUT)


def test_a_date_is_enough_to_go_on(server: ReleaseServer, target: Path) -> None:
    dated = {"ETag": "", "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}
    server.faults += [Fault(drop_after=CUT, headers=dated), Fault(headers=dated)]
    fetched(server, target)
    assert server.requests[-1].asked["If-Range"] == dated["Last-Modified"]
    assert server.body_bytes() == len(CONTENT)
    assert_whole(target)


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_added_to_what_is_there(
    server: ReleaseServer, target: Path, tag: str
) -> None:
    server.always = Fault(headers={"ETag": tag})
    server.faults.append(Fault(drop_after=CUT, headers={"ETag": tag}))
    fetched(server, target)
    assert [sent.range for sent in server.requests] == [None, None]
    assert_whole(target)


def test_an_origin_that_cannot_be_read_starts_anew(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    target.with_name("a.zip.part.json").write_text('{"url": "http://lo')
    fetched(server, target)
    assert server.requests[-1].range is None
    assert_whole(target)


def test_a_mirror_with_the_same_file_goes_on(server: ReleaseServer, target: Path, tmp_path: Path) -> None:
    interrupted(server, target)
    with ReleaseServer.over(server.folder) as mirror:
        fetched(mirror, target)
        assert mirror.body_bytes() == len(CONTENT) - CUT
    assert_whole(target)


# Another file than before


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    changed = SIGNATURE + CONTENT[::-1]
    (server.folder / "a.zip").write_bytes(changed)
    fetched(server, target)
    assert_whole(target, changed)


def test_a_file_that_changes_between_two_tries_is_fetched_anew(server: ReleaseServer, target: Path) -> None:
    server.faults += [Fault(drop_after=CUT, headers={"ETag": '"one"'}), Fault(headers={"ETag": '"two"'})]
    fetched(server, target)
    assert [(sent.range, sent.status) for sent in server.requests] == [(None, 200), (f"bytes={CUT}-", 200)]
    assert_whole(target)


def test_a_rest_with_another_tag_is_not_added(server: ReleaseServer, target: Path) -> None:
    server.faults += [
        Fault(drop_after=CUT, headers={"ETag": '"one"'}),
        Fault(headers={"ETag": '"two"'}, ignore_if_range=True),
    ]
    fetched(server, target)
    assert [sent.status for sent in server.requests] == [200, 206, 200]
    assert_whole(target)


def test_a_rest_of_another_length_is_not_added(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    longer = CONTENT + b"more"
    (server.folder / "a.zip").write_bytes(longer)
    server.faults.append(Fault(headers={"ETag": ""}, ignore_if_range=True))
    fetched(server, target)
    assert_whole(target, longer)


def test_another_piece_than_the_one_asked_for_is_not_added(server: ReleaseServer, target: Path) -> None:
    shifted = {"Content-Range": f"bytes {CUT - 1}-{len(CONTENT) - 1}/{len(CONTENT)}"}
    server.faults += [Fault(drop_after=CUT), Fault(headers=shifted)]
    fetched(server, target)
    assert_whole(target)


def test_a_server_without_ranges_starts_anew(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    server.always = Fault(ignore_range=True)
    fetched(server, target)
    assert (server.requests[-1].range, server.requests[-1].status) == (f"bytes={CUT}-", 200)
    assert_whole(target)


def test_what_a_server_without_ranges_sends_again_takes_nothing_away(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    server.faults += [Fault(ignore_range=True, drop_after=CUT // 2), Fault(status=404)]
    with pytest.raises(DownloadFailed):
        fetched(server, target)
    assert PartialFile(target).size_bytes == CUT


@pytest.mark.parametrize("same_bytes", [CUT - 1, CUT // 3])
def test_a_file_that_changed_within_what_is_here_is_whole_and_the_new_one(
    server: ReleaseServer, target: Path, same_bytes: int
) -> None:
    interrupted(server, target)
    changed = CONTENT[:same_bytes] + CONTENT[same_bytes:][::-1]
    (server.folder / "a.zip").write_bytes(changed)
    assert fetched(server, target).sha256 == hashlib.sha256(changed).hexdigest()
    assert_whole(target, changed)


def test_a_shorter_file_that_begins_alike_takes_the_place_of_what_is_here(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    shorter = CONTENT[: CUT // 2]
    (server.folder / "a.zip").write_bytes(shorter)
    assert fetched(server, target).sha256 == hashlib.sha256(shorter).hexdigest()
    assert_whole(target, shorter)


# Whole, and not more than whole


def test_nothing_beyond_a_complete_part_is_a_success(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    part_of(target).write_bytes(CONTENT)
    found = fetched(server, target)
    assert server.requests[-1].status == 416
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert_whole(target)


def test_nothing_beyond_a_part_of_another_file_is_no_success(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    changed = CONTENT[:CUT]
    (server.folder / "a.zip").write_bytes(changed)
    server.faults.append(Fault(ignore_if_range=True))
    fetched(server, target)
    assert [sent.status for sent in server.requests] == [416, 200]
    assert_whole(target, changed)


def test_a_part_that_is_longer_than_the_file_is_thrown_away(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    part_of(target).write_bytes(CONTENT + b"x")
    fetched(server, target)
    assert_whole(target)


def test_fewer_bytes_than_announced_are_no_success(server: ReleaseServer, target: Path) -> None:
    server.always = Fault(announce=len(CONTENT) + 1, ignore_range=True)
    with pytest.raises(DownloadFailed, match="broke off"):
        fetched(server, target)
    assert not target.exists()


def test_fewer_bytes_than_the_whole_file_has_are_no_success(server: ReleaseServer, target: Path) -> None:
    larger = {"Content-Range": f"bytes {CUT}-{len(CONTENT)}/{len(CONTENT) + 1}"}
    server.faults.append(Fault(drop_after=CUT, chunked=True))
    server.always = Fault(headers=larger)
    with pytest.raises(DownloadFailed, match=f"announced {len(CONTENT) + 1} bytes and sent {len(CONTENT)}"):
        fetched(server, target)
    assert not target.exists()


def test_more_bytes_than_announced_are_not_taken(server: ReleaseServer, target: Path) -> None:
    server.faults.append(Fault(surplus=b"more"))
    assert fetched(server, target).sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert_whole(target)


def test_more_bytes_than_the_whole_file_has_are_thrown_away(server: ReleaseServer, target: Path) -> None:
    server.faults += [Fault(drop_after=CUT), Fault(chunked=True, surplus=b"more")]
    assert fetched(server, target).sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert server.requests[-1].range is None
    assert_whole(target)


def test_a_file_of_unannounced_length_ends_with_its_last_chunk(server: ReleaseServer, target: Path) -> None:
    server.faults += [Fault(chunked=True, drop_after=CUT), Fault(chunked=True)]
    fetched(server, target)
    assert server.body_bytes() == len(CONTENT)
    assert_whole(target)


def test_a_compressed_answer_is_not_taken(server: ReleaseServer, target: Path) -> None:
    interrupted(server, target)
    server.faults.append(Fault(compress=True, ignore_range=True))
    with pytest.raises(DownloadFailed, match=r"sends a\.zip compressed"):
        fetched(server, target)
    assert PartialFile(target).size_bytes == CUT


@pytest.mark.parametrize("page", [b"<html>Log in</html>", b"P", b""], ids=["a page", "a letter", "nothing"])
def test_what_does_not_begin_as_the_file_does_takes_no_place(server: ReleaseServer, target: Path, page: bytes) -> None:
    interrupted(server, target)
    (server.folder / "a.zip").write_bytes(page)
    server.faults.append(Fault(headers={"Content-Type": "application/zip"}, ignore_range=True))
    with pytest.raises(DownloadFailed, match="in the place of the file") as caught:
        fetched(server, target)
    assert "log in" in caught.value.hint
    assert PartialFile(target).size_bytes == CUT


def test_a_file_that_is_called_a_page_is_taken_for_what_it_is(server: ReleaseServer, target: Path) -> None:
    server.always = Fault(headers={"Content-Type": "text/html"})
    fetched(server, target)
    assert_whole(target)


def test_a_beginning_that_comes_in_pieces_is_known(server: ReleaseServer, target: Path) -> None:
    server.faults.append(Fault(drop_after=2))
    fetched(server, target)
    assert_whole(target)


# Addresses


def test_a_redirect_is_followed_for_the_rest_too(server: ReleaseServer, target: Path) -> None:
    urls = [f"{server.url}/releases/a.zip"]
    redirect = Fault(status=302, location="/a.zip")
    server.faults += [redirect, Fault(drop_after=CUT), redirect]
    found = download.fetch(urls, target, retry_policy=BRISK)
    assert found.url == urls[0]
    assert [sent.range for sent in server.requests if sent.path == "/a.zip"] == [None, f"bytes={CUT}-"]
    assert_whole(target)


def test_a_mirrors_password_is_written_nowhere(
    server: ReleaseServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{server.url.replace('//', '//someone:secret@')}/a.zip"
    server.faults += [Fault(drop_after=CUT), Fault(status=404)]
    with caplog.at_level(logging.INFO, "openscans"), pytest.raises(DownloadFailed):
        download.fetch([url], target, retry_policy=BRISK)
    written = [path.read_bytes() for path in target.parent.iterdir()]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("openscans")]
    assert ours
    assert not any("secret" in message for message in ours)
    assert not any(b"secret" in content for content in written)
    assert download.fetch([url], target, retry_policy=BRISK).url == f"{server.url}/a.zip"
    assert server.requests[-1].range == f"bytes={CUT}-"
