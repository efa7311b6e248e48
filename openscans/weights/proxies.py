"""Which proxy stands between us and a server, as the environment or the system says.

What is unusable there is passed over with a line in the log.
Knows variables, addresses and httpx's transports; nothing of files or of asking again. A proxy's address may hold a
name and password: only the variable's name is ever told.
"""

import ipaddress
import logging
import os
import re
import ssl
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

import httpx

SYSTEM_SETTINGS = "the system's settings"
"""Where Windows and macOS keep proxies that no variable names."""

PORTS = {"http": 80, "https": 443}

log = logging.getLogger("openscans.downloads")


@dataclass(frozen=True)
class ProxySetting:
    """A proxy that can be used, with the variable that names it, as it is spelled in the environment."""

    url: str
    variable: str

    def __str__(self) -> str:
        """Host and port, without a login, and who says so."""
        return f"{urlsplit(self.url).netloc.rpartition('@')[2]} ({self.variable})"

    @property
    def hint(self) -> str:
        return f"Check {self.variable} (http://name:password@host:port) and NO_PROXY, or ask who runs the proxy."


class ProxyTransport(httpx.BaseTransport):
    """Sends each request through the proxy for its address, where one is set, wherever redirects lead."""

    def __init__(self, trusted: ssl.SSLContext) -> None:
        self._trusted = trusted
        self._transports: dict[str, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises what httpx does."""
        proxy = proxy_for(str(request.url))
        return self._transport("" if proxy is None else proxy.url).handle_request(request)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()

    def _transport(self, proxy_url: str) -> httpx.HTTPTransport:
        if proxy_url not in self._transports:
            # To a proxy that is asked over TLS the same authorities apply.
            secure = self._trusted if proxy_url.startswith("https:") else None
            proxy = httpx.Proxy(proxy_url, ssl_context=secure) if proxy_url else None
            self._transports[proxy_url] = httpx.HTTPTransport(verify=self._trusted, proxy=proxy, trust_env=False)
        return self._transports[proxy_url]


def proxy_for(url: str) -> ProxySetting | None:
    """The proxy to ask for ``url``; None where the server itself is to be asked."""
    address = urlsplit(url)
    try:
        host, port = address.hostname or "", address.port or PORTS.get(address.scheme, 0)
    except ValueError:
        # A port that no address can have; httpx says so.
        return None
    from_environment = getproxies_environment()
    proxies = from_environment or getproxies()
    for scheme in (address.scheme, "all"):
        variable = _variable(f"{scheme}_proxy")
        proxy_url = _usable_url(proxies.get(scheme, ""), variable)
        if proxy_url is not None:
            spared = _is_spared(host, port) if from_environment else bool(proxy_bypass(host))
            return None if spared else ProxySetting(proxy_url, variable)
    return None


def _variable(name: str) -> str:
    """``name`` as it is spelled in the environment; of two spellings the one that counts, the small letters."""
    spelled = [found for found in os.environ if found.lower() == name and os.environ[found]]
    return name if name in spelled else spelled[0] if spelled else SYSTEM_SETTINGS


def _usable_url(text: str, variable: str) -> str | None:
    """The proxy's address, or None where there is none or none that can be used, which is told."""
    if not text.strip():
        return None
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        proxy = httpx.Proxy(url).url
        usable = bool(proxy.host) and (not proxy.scheme.startswith("socks") or find_spec("socksio") is not None)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        _warn_once(f"{variable} is passed over: it holds no http or https address of a proxy.")
    return url if usable else None


def _is_spared(host: str, port: int) -> bool:
    """Whether NO_PROXY names the server: its name, a domain above it, its address or a network; with a port or not."""
    variable = _variable("no_proxy")
    entries = re.split(r"[\s,]+", os.environ.get(variable, "").lower())
    return any(_spares(entry.rpartition("://")[2].rstrip("/"), host, port, variable) for entry in entries if entry)


def _spares(entry: str, host: str, port: int, variable: str) -> bool:
    name, wanted_port = _split_port(entry)
    if wanted_port not in {"", str(port)}:
        return False
    try:
        network = ipaddress.ip_network(name, strict=False)
    except ValueError:
        if re.search(r"[\[\]/]", name):
            _warn_once(f"A part of {variable} is passed over: it names no host and no network.")
        domain = name.removeprefix("*").lstrip(".")
        return name == "*" or (bool(domain) and f".{host}".endswith(f".{domain}"))
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, str]:
    """Host and port ("" where there is none): of ``[::1]:80``, ``::1``, ``10.0.0.0/8``, ``example.com:80``."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::([0-9]+))?", entry)
    if bracketed:
        return bracketed[1], bracketed[2] or ""
    plain = re.fullmatch(r"([^:]*):([0-9]+)", entry)
    return (plain[1], plain[2]) if plain else (entry, "")


@cache
def _warn_once(sentence: str) -> None:
    """A download asks many times; its environment stays."""
    log.warning("%s", sentence)
