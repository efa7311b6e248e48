"""Proxies and key logs that other programs set in the environment: honoured, or passed over with a line in the log."""

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.gatekeepers import certified, refusing_proxy
from tests.live_server import live_server
from tests.release_server import write_release
from tests.slow_release import Proxy, SlowRelease

DOWNLOAD = "/api/models/download/vertebrae_mr"
LOGIN = "someone:secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", 756)


@pytest.fixture
def release(folder: Path) -> Iterator[SlowRelease]:
    with SlowRelease.over(folder) as running:
        yield running


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy.running() as running:
        yield running


def download(home: Path, url: str, env: dict[str, str]) -> tuple[dict[str, object], list[str]]:
    """How a download from ``url`` ends in a server with these settings, and what its log says was passed over."""
    plain = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    with (
        live_server(home, {**plain, "OPENSCANS_WEIGHTS_URL": url, **env}) as server,
        server.events("POST", DOWNLOAD) as events,
    ):
        last = list(events)[-1]
    lines = (home / "logs/server.log").read_text().splitlines()
    assert not [line for line in lines if LOGIN in line]
    return last, [line.partition("openscans.downloads: ")[2] for line in lines if "passed over" in line]


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", f"socks4://{LOGIN}@127.0.0.1:9"), ("http_proxy", "http://:3128"), ("HTTP_PROXY", "http://x:port")],
)
def test_a_proxy_of_no_use_is_passed_over_with_a_line(home: Path, release: SlowRelease, name: str, value: str) -> None:
    last, passed_over = download(home, release.url, {name: value})
    assert last["status"] == "complete"
    assert passed_over == [f"{name} is passed over: it holds no http or https address of a proxy."]


@pytest.mark.skipif(find_spec("socksio") is not None, reason="the package for SOCKS is here")
def test_a_socks_proxy_is_passed_over_where_the_package_for_it_lacks(home: Path, release: SlowRelease) -> None:
    last, passed_over = download(home, release.url, {"ALL_PROXY": f"socks5://{LOGIN}@127.0.0.1:9"})
    assert last["status"] == "complete"
    assert passed_over == ["ALL_PROXY is passed over: it holds no http or https address of a proxy."]


def test_of_two_proxies_the_one_that_can_be_used_is(home: Path, release: SlowRelease, proxy: Proxy) -> None:
    last, passed_over = download(home, release.url, {"HTTP_PROXY": "socks4://127.0.0.1:9", "ALL_PROXY": proxy.url})
    assert (last["status"], len(proxy.asked), len(passed_over)) == ("complete", 1, 1)


def test_a_proxy_without_a_scheme_is_used(home: Path, release: SlowRelease, proxy: Proxy) -> None:
    last, passed_over = download(home, release.url, {"HTTP_PROXY": proxy.url.removeprefix("http://")})
    assert (last["status"], len(proxy.asked), passed_over) == ("complete", 1, [])


@pytest.mark.parametrize("entries", ["[::1],127.0.0.0/8", "[127.0.0.1]:{port}"])
def test_no_proxy_may_hold_networks_brackets_and_ports(
    home: Path, release: SlowRelease, proxy: Proxy, entries: str
) -> None:
    no_proxy = entries.format(port=release.url.rpartition(":")[2])
    last, passed_over = download(home, release.url, {"HTTP_PROXY": proxy.url, "NO_PROXY": no_proxy})
    assert (last["status"], proxy.asked, passed_over) == ("complete", [], [])


@pytest.mark.parametrize("entries", ["[::1", "10.0.0.0/8,127.0.0.0/99"])
def test_what_is_no_host_in_no_proxy_is_passed_over_with_a_line(
    home: Path, release: SlowRelease, proxy: Proxy, entries: str
) -> None:
    last, passed_over = download(home, release.url, {"HTTP_PROXY": proxy.url, "no_proxy": entries})
    assert (last["status"], len(proxy.asked)) == ("complete", 1)
    assert passed_over == ["A part of no_proxy is passed over: it names no host and no network."]


@pytest.mark.parametrize("name", ["https_proxy", "ALL_PROXY"])
def test_a_download_that_fails_at_a_proxy_names_its_variable(home: Path, name: str) -> None:
    with refusing_proxy(407) as (port, _):
        last, _ = download(home, "https://localhost:9", {name: f"http://{LOGIN}@127.0.0.1:{port}"})
    assert (last["status"], last["code"]) == ("error", "download_failed")
    assert str(last["hint"]).startswith(f"Check {name} ")


def test_a_proxy_that_is_not_there_is_named_by_its_variable(home: Path, release: SlowRelease) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    last, _ = download(home, release.url, {"http_proxy": f"http://{LOGIN}@127.0.0.1:{port}"})
    assert last["error"] == f"Nothing answers at the proxy's address, 127.0.0.1:{port} (http_proxy)."


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes a certificate, is not here")
@pytest.mark.parametrize("trusted", [True, False])
def test_a_key_log_that_cannot_be_written_is_passed_over_with_a_line(home: Path, folder: Path, trusted: bool) -> None:
    with certified(folder) as (port, certificate):
        env = {"SSLKEYLOGFILE": "/nowhere/keys.log", "SSL_CERT_FILE": str(certificate) if trusted else ""}
        last, passed_over = download(home, f"https://localhost:{port}", env)
    assert passed_over == ["SSLKEYLOGFILE is passed over: the file that it names cannot be written."]
    assert ("has no file" if trusted else "not trusted") in str(last["error"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in its folders")
def test_a_key_log_that_is_a_pipe_without_a_reader_is_passed_over(
    home: Path, release: SlowRelease, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "keys")
    last, passed_over = download(home, release.url, {"SSLKEYLOGFILE": str(tmp_path / "keys")})
    assert (last["status"], len(passed_over)) == ("complete", 1)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes a certificate, is not here")
def test_a_key_log_that_can_be_written_is(home: Path, folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.log"
    with certified(folder) as (port, certificate):
        env = {"SSLKEYLOGFILE": str(keys), "SSL_CERT_FILE": str(certificate)}
        assert download(home, f"https://localhost:{port}", env)[1] == []
    assert keys.stat().st_size > 0
