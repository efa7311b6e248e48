"""How weights come through a hospital's network, or without any: proxies, private authorities, and no connection."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from phantom.files import write_nifti
from tests.audited_server import OUTWARDS
from tests.live_server import live_server
from tests.model_homes import MR
from tests.phantom_server import lumbar_scan, phantom_server
from tests.release_server import Fault, ReleaseServer, release_zip, write_release
from tests.slow_release import Proxy, SlowRelease

AUDITED = ("-m", "tests.audited_server")
DOWNLOAD = "/api/models/download/vertebrae_mr"

PLAIN = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
"""Without the proxies of whoever runs the tests."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", 756)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy.running() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its certificate for 127.0.0.1 in one file; it is its own authority."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not here to make a certificate")
    path = tmp_path_factory.mktemp("authority") / "both.pem"
    key, public = path.with_name("key.pem"), path.with_name("public.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(public)),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(key.read_text() + public.read_text())
    return path


@pytest.fixture
def secure_release(folder: Path, certificate: Path) -> Iterator[SlowRelease]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with SlowRelease.over(folder, tls=context) as running:
        yield running


def last_event(home: Path, env: dict[str, str], *, program: tuple[str, ...] | None = None) -> dict[str, object]:
    """How a download ends in a server with these settings."""
    options = {"program": program} if program else {}
    with live_server(home, {**PLAIN, **env}, **options) as server, server.events("POST", DOWNLOAD) as events:
        return list(events)[-1]


def test_offline_nothing_is_asked_outside(folder: Path, home: Path, tmp_path: Path) -> None:
    asked, image = tmp_path / "asked", tmp_path / "image"
    image.touch()
    with SlowRelease.over(folder) as release:
        env = {"OPENSCANS_WEIGHTS_URL": release.url, "OPENSCANS_OFFLINE": "1", "AUDIT_CONNECTIONS": str(asked)}
        with live_server(home, env, program=AUDITED) as server:
            with server.events("POST", DOWNLOAD) as events:
                assert list(events)[-1]["code"] == "model_missing"
            assert server.detect(image, model="vertebrae").json()["code"] == "model_missing"
            # The worker, too, which looks into the file.
            assert server.detect(image).json()["code"] == "unsupported_file"
            server.post("/api/models/import/vertebrae_mr", {"file_path": str(release_zip(folder, 756))})
            server.post("/api/models/verify/vertebrae_mr")
            assert server.get("/api/models/status?task=vertebrae_mr").json()["downloaded"]
            server.delete("/api/models/vertebrae_mr")
            server.ask_to_end()
        assert release.asked == []
    assert asked.read_text() == ""


def test_nobody_but_the_mirror_is_asked_whatever_is_done(folder: Path, home: Path, tmp_path: Path) -> None:
    asked, image = tmp_path / "asked", tmp_path / "image.nii"
    write_nifti(image, *lumbar_scan())
    with SlowRelease.over(folder) as release:
        env = {"OPENSCANS_WEIGHTS_URL": release.url, "OPENSCANS_OFFLINE": "0", "AUDIT_CONNECTIONS": str(asked)}
        with phantom_server(home, PLAIN | env, program=AUDITED) as server:
            assert asked.read_text() == ""
            with server.events("POST", DOWNLOAD) as events:
                assert list(events)[-1]["status"] == "complete"
            for use_cache in (True, False):
                assert server.detect(image, fast_mode=True, use_cache=use_cache).json()["success"]
            server.ask_to_end()
        port = release.url.rpartition(":")[2]
    lines = asked.read_text().splitlines()
    assert lines
    assert [line for line in lines if "'127.0.0.1'" not in line or port not in line] == []


def test_the_watch_over_connections_sees_a_download(folder: Path, home: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with SlowRelease.over(folder) as release:
        env = {"OPENSCANS_WEIGHTS_URL": release.url, "AUDIT_CONNECTIONS": str(asked)}
        assert last_event(home, env, program=AUDITED)["status"] == "complete"
        port = release.url.rpartition(":")[2]
    assert any(name in asked.read_text() for name in OUTWARDS)
    assert port in asked.read_text()


@contextmanager
def refusing() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def nameless() -> Iterator[str]:
    """A name that leads nowhere, wherever it is looked up."""
    yield "http://releases.invalid"


@contextmanager
def silent() -> Iterator[str]:
    """An address from which nothing comes back, as behind a firewall that drops what it does not let through."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        # Those who wait to be accepted fill the line; the system does not answer whoever comes then.
        for _ in range(4):
            early = waiting.enter_context(socket.socket())
            early.setblocking(False)
            early.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse where a line is full")
def test_a_silent_address_is_silent() -> None:
    with silent() as url, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=0.5)


@pytest.mark.parametrize("nobody", [refusing, nameless, silent])
def test_where_nobody_is_reached_it_is_known_within_5_s_and_said_what_else_there_is(
    home: Path, nobody: Callable[[], AbstractContextManager[str]]
) -> None:
    with nobody() as url, live_server(home, {**PLAIN, "OPENSCANS_WEIGHTS_URL": f"{url},{url}/mirror"}) as server:
        began_s = time.monotonic()
        with server.events("POST", DOWNLOAD) as events:
            ended = list(events)[-1]
        took_s = time.monotonic() - began_s
        assert server.get("/api/models/status?task=vertebrae_mr").json()["state"] == "absent"
    assert (ended["status"], ended["code"]) == ("error", "download_failed")
    assert "cannot be reached" in ended["error"]
    for way in ("/api/models/import/", "OPENSCANS_WEIGHTS_URL", "OPENSCANS_OFFLINE"):
        assert way in ended["hint"]
    assert took_s < 5


def test_a_mirror_is_asked_as_soon_as_the_first_is_not_reached(folder: Path, home: Path) -> None:
    with refusing() as url, SlowRelease.over(folder) as release:
        assert last_event(home, {"OPENSCANS_WEIGHTS_URL": f"{url},{release.url}"})["status"] == "complete"


def test_a_network_that_goes_away_in_the_middle_is_waited_for(folder: Path, home: Path) -> None:
    write_release(folder, 297, 298)
    with ReleaseServer.over(folder) as release:
        env = {**PLAIN, "OPENSCANS_WEIGHTS_URL": release.url}
        with refusing() as url, live_server(home, env) as server:
            release.faults += [Fault(), Fault(status=302, location=f"{url}/gone")]
            with server.events("POST", "/api/models/download/total_body") as events:
                assert list(events)[-1]["status"] == "complete"
        assert [sent.status for sent in release.requests] == [200, 302, 200]


def test_a_proxy_for_plain_addresses_is_used(folder: Path, home: Path, proxy: Proxy) -> None:
    with SlowRelease.over(folder) as release:
        env = {"OPENSCANS_WEIGHTS_URL": release.url, "HTTP_PROXY": proxy.url}
        assert last_event(home, env)["status"] == "complete"
        assert proxy.asked == [f"{release.url}/v2.5.0-weights/{MR}.zip"]


def test_a_proxy_is_left_out_for_the_hosts_of_no_proxy(folder: Path, home: Path, proxy: Proxy) -> None:
    with SlowRelease.over(folder) as release:
        env = {"OPENSCANS_WEIGHTS_URL": release.url, "HTTP_PROXY": proxy.url, "NO_PROXY": "127.0.0.1"}
        assert last_event(home, env)["status"] == "complete"
    assert proxy.asked == []


def test_a_private_authority_behind_a_proxy_is_trusted_by_its_file(
    secure_release: SlowRelease, home: Path, proxy: Proxy, certificate: Path
) -> None:
    env = {
        "OPENSCANS_WEIGHTS_URL": secure_release.url,
        "HTTPS_PROXY": proxy.url,
        "SSL_CERT_FILE": str(certificate.with_name("public.pem")),
    }
    assert last_event(home, env)["status"] == "complete"
    assert proxy.asked == [secure_release.url.removeprefix("https://")]


def test_an_unknown_authority_is_named_as_the_reason(secure_release: SlowRelease, home: Path) -> None:
    ended = last_event(home, {"OPENSCANS_WEIGHTS_URL": secure_release.url})
    assert ended["code"] == "download_failed"
    assert "certificate" in str(ended["error"])
    assert secure_release.total_bytes() == 0
