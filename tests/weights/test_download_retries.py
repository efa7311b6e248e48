"""What may pass is waited for, what lasts is said at once, and who wants to stop is heard in between."""

import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from openscans.errors import Cancelled, DownloadFailed
from openscans.weights import download
from openscans.weights.retry_policy import RetryPolicy, parse_retry_after
from tests.gatekeepers import certified, refusing_proxy
from tests.release_server import PIECE_BYTES, Fault, ReleaseServer

CONTENT = random.Random(8).randbytes(200_000)
CUT = 81_920
"""A multiple of the pieces that the server sends."""

BRISK = RetryPolicy(stall_s=0.5, first_pause_s=0.01)
ASKED = BRISK.retries + 1

CAN_CERTIFY = shutil.which("openssl") is not None


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


def fetched(server: ReleaseServer, target: Path, retry_policy: RetryPolicy = BRISK) -> bytes:
    return download.fetch([f"{server.url}/a.zip"], target, retry_policy=retry_policy).path.read_bytes()


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# What may pass


def test_a_silent_server_is_left_and_asked_for_the_rest(server: ReleaseServer, target: Path) -> None:
    server.faults.append(Fault(stall_after=CUT))
    assert fetched(server, target) == CONTENT
    assert server.stalled.is_set()
    assert [sent.range for sent in server.requests] == [None, f"bytes={CUT}-"]


def test_a_slow_line_is_no_silent_one(server: ReleaseServer, target: Path) -> None:
    gap_s = 0.03
    (server.folder / "a.zip").write_bytes(CONTENT[: 40 * PIECE_BYTES])
    server.always = Fault(gap_s=gap_s)
    impatient = RetryPolicy(stall_s=20 * gap_s)
    assert fetched(server, target, impatient) == CONTENT[: 40 * PIECE_BYTES]
    assert len(server.requests) == 1


def test_a_server_that_fails_three_times_is_asked_a_fourth(server: ReleaseServer, target: Path) -> None:
    server.faults += [Fault(status=500)] * 3
    assert fetched(server, target) == CONTENT
    assert [sent.status for sent in server.requests] == [500, 500, 500, 200]


def test_a_server_that_stays_busy_is_given_up(server: ReleaseServer, target: Path) -> None:
    server.always = Fault(status=503)
    with pytest.raises(DownloadFailed, match=rf"at the moment \(503\)\. Asked {ASKED} times"):
        fetched(server, target)
    assert len(server.requests) == ASKED


def test_pauses_grow(server: ReleaseServer, target: Path) -> None:
    server.always = Fault(status=500)
    with pytest.raises(DownloadFailed):
        fetched(server, target, RetryPolicy(first_pause_s=0.05, retries=3))
    times_s = [sent.at_s for sent in server.requests]
    assert times_s[3] - times_s[2] >= 0.1
    assert times_s[1] - times_s[0] >= 0.025


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_is_given_the_seconds_that_it_asks_for(server: ReleaseServer, target: Path, status: int) -> None:
    server.faults.append(Fault(status=status, headers={"Retry-After": "1"}))
    assert fetched(server, target) == CONTENT
    assert server.requests[1].at_s - server.requests[0].at_s >= 1


def test_a_server_is_given_the_time_until_the_date_that_it_names(server: ReleaseServer, target: Path) -> None:
    until = {"Retry-After": formatdate(time.time() + 3600, usegmt=True)}
    server.faults.append(Fault(status=503, headers=until))
    assert fetched(server, target, RetryPolicy(first_pause_s=0.01, longest_asked_s=0.5)) == CONTENT
    assert 0.5 <= server.requests[1].at_s - server.requests[0].at_s < 10


@pytest.mark.parametrize(
    ("retry_after", "pause_s"),
    [
        ("7", 7),
        ("Wed, 01 Jan 2025 00:01:00 GMT", 60),
        ("Tue, 31 Dec 2024 23:00:00 GMT", 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
    ],
)
def test_what_a_server_asks_for_is_counted_by_its_own_clock(retry_after: str, pause_s: float) -> None:
    assert parse_retry_after(retry_after, "Wed, 01 Jan 2025 00:00:00 GMT") == pause_s


def test_pauses_double_up_to_the_longest_and_are_spread() -> None:
    retry_policy = RetryPolicy(first_pause_s=1, longest_pause_s=8)
    for failures, doubled_s in enumerate((1, 2, 4, 8, 8), start=1):
        pauses_s = {retry_policy.pause_s(failures, 0) for _ in range(100)}
        assert doubled_s / 2 <= min(pauses_s) < max(pauses_s) <= doubled_s


def test_a_server_that_goes_away_after_it_answered_is_waited_for(server: ReleaseServer, target: Path) -> None:
    server.faults.append(Fault(status=302, location=f"http://127.0.0.1:{unused_port()}/a.zip"))
    reached = BRISK.once_reached()
    assert fetched(server, target, reached) == CONTENT
    with pytest.raises(DownloadFailed, match=rf"127\.0\.0\.1 cannot be reached .*Asked {ASKED} times"):
        download.fetch([f"http://127.0.0.1:{unused_port()}/a.zip"], target.with_name("b.zip"), retry_policy=reached)


# What lasts


@pytest.mark.parametrize(("status", "sentence"), [(404, "has no file a.zip"), (403, "refuses"), (418, "answered 418")])
def test_a_refusal_is_not_repeated_and_says_which(
    server: ReleaseServer, target: Path, status: int, sentence: str
) -> None:
    server.always = Fault(status=status)
    with pytest.raises(DownloadFailed, match=sentence):
        fetched(server, target)
    assert len(server.requests) == 1


def test_mirrors_are_tried_in_order(server: ReleaseServer, target: Path) -> None:
    server.faults += [Fault(status=404), *[Fault(status=503)] * ASKED]
    urls = [f"{server.url}/{place}/a.zip" for place in ("gone", "busy")]
    found = download.fetch([*urls, f"{server.url}/a.zip"], target, retry_policy=BRISK)
    assert found.url == f"{server.url}/a.zip"
    assert [sent.status for sent in server.requests] == [404, *[503] * ASKED, 200]


def test_a_mirror_that_refuses_leaves_the_bytes_of_the_other(server: ReleaseServer, target: Path) -> None:
    server.faults += [Fault(drop_after=CUT), Fault(status=404), Fault(status=404)]
    urls = [f"{server.url}/a.zip", f"{server.url}/gone/a.zip"]
    with pytest.raises(DownloadFailed):
        download.fetch(urls, target, retry_policy=BRISK)
    assert download.fetch(urls, target, retry_policy=BRISK).path.read_bytes() == CONTENT
    assert server.body_bytes() == len(CONTENT)


@pytest.mark.skipif(not CAN_CERTIFY, reason="openssl, which makes a certificate, is not here")
def test_a_certificate_that_is_not_trusted_is_said_so_at_once(server: ReleaseServer, target: Path) -> None:
    with (
        certified(server.folder) as (port, _),
        pytest.raises(DownloadFailed, match=r"certificate.*not trusted") as caught,
    ):
        download.fetch([f"https://localhost:{port}/a.zip"], target, retry_policy=BRISK)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert "Asked" not in caught.value.message


@pytest.mark.skipif(not CAN_CERTIFY, reason="openssl, which makes a certificate, is not here")
def test_a_certificate_authority_of_ones_own_is_trusted(
    server: ReleaseServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with certified(server.folder) as (port, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with pytest.raises(DownloadFailed, match="has no file"):
            download.fetch([f"https://localhost:{port}/a.zip"], target, retry_policy=BRISK)


@pytest.mark.parametrize("status", [403, 407])
def test_a_proxy_that_refuses_is_said_so_at_once(target: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    with refusing_proxy(status) as (port, asked):
        monkeypatch.setenv("HTTPS_PROXY", f"http://someone:secret@127.0.0.1:{port}")
        with pytest.raises(DownloadFailed, match=rf"proxy refuses to connect to localhost \({status}\)"):
            download.fetch(["https://localhost:9/a.zip"], target, retry_policy=BRISK)
        assert asked == ["CONNECT localhost:9"]


def test_a_proxy_that_is_not_there_is_said_so_at_once(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = unused_port()
    monkeypatch.setenv("HTTPS_PROXY", f"http://someone:secret@127.0.0.1:{port}")
    with pytest.raises(
        DownloadFailed, match=rf"Nothing answers at the proxy's address, 127\.0\.0\.1:{port} \(HTTPS_PROXY\)\.$"
    ):
        download.fetch(["https://localhost:9/a.zip"], target, retry_policy=BRISK)


def test_certificates_that_cannot_be_used_are_said_so(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
    with pytest.raises(DownloadFailed, match="SSL_CERT_FILE") as caught:
        download.fetch(["https://localhost:9/a.zip"], target, retry_policy=BRISK)
    assert "PEM" in caught.value.hint


# Stopping in between


def test_who_stops_is_heard_while_the_server_is_silent(server: ReleaseServer, target: Path) -> None:
    def stop_when_silent(done: int, total: int) -> None:
        if server.stalled.is_set():
            raise Cancelled

    server.faults.append(Fault(stall_after=0))
    assert _seconds_until_cancelled(server, target, stop_when_silent) < 5


def test_who_stops_is_heard_during_a_pause(server: ReleaseServer, target: Path) -> None:
    def stop_after_an_answer(done: int, total: int) -> None:
        if server.requests:
            raise Cancelled

    server.always = Fault(status=503)
    assert _seconds_until_cancelled(server, target, stop_after_an_answer) < 5


def _seconds_until_cancelled(server: ReleaseServer, target: Path, report: Callable[[int, int], None]) -> float:
    started_s = time.monotonic()
    with pytest.raises(Cancelled):
        download.fetch([f"{server.url}/a.zip"], target, report=report, retry_policy=RetryPolicy(first_pause_s=30))
    return time.monotonic() - started_s
