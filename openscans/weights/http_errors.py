"""What can go wrong between us and a server, as errors with a sentence: those that may pass, and those that last.

What goes wrong where a proxy stands between has a hint that names the variable that sets it.

Knows HTTP's statuses and httpx's errors; nothing of bodies, files or of asking again.
"""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import httpx

from openscans.errors import DownloadFailed
from openscans.weights.proxies import proxy_for
from openscans.weights.retry_policy import parse_retry_after

WHOLE = httpx.codes.OK
REST = httpx.codes.PARTIAL_CONTENT
NOTHING_MORE = httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE

REDIRECTS_AGAIN = 2
"""How often a new redirect is asked for where the address that one named was refused. It helps at once or not at all,
but for a proxy that remembers the old one for a second."""

TRANSIENT_STATUSES = {408, 425, 429}
"""Statuses, besides the server's own failures (5xx), that may be gone a moment later."""

NO_ENCODINGS = {"", "identity", "aws-chunked"}
"""Names in Content-Encoding under which the bytes are the file's own. The last is how a file came into an S3 store; the
store leaves the word there."""

REFUSED_SENTENCES = {
    401: "{host} wants a password for {file} (401).",
    403: "{host} refuses to give out {file} (403).",
    404: "{host} has no file {file} (404).",
    407: "The proxy wants a name and a password (407).",
    410: "{host} no longer has {file} (410).",
}

CERTIFICATE_HINT = (
    "If your network has a certificate authority of its own, set SSL_CERT_FILE to its certificates in PEM format; "
    "otherwise check the computer's clock."
)

NO_NETWORK_HINT = (
    "Check the network. Without one, import the model with POST /api/models/import/{task}, or name a mirror within "
    "reach in OPENSCANS_WEIGHTS_URL; OPENSCANS_OFFLINE=1 says that nobody shall be asked."
)


class TransientError(DownloadFailed):
    """A failure that may be gone when asked again, after ``retry_after_s`` if the server said so.

    ``retries``: how many in a row are forgiven, where it knows that better than the `RetryPolicy`.
    """

    def __init__(
        self, message: str, *, retry_after_s: float = 0.0, retries: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
        self.retries = retries


class Unreached(TransientError):
    """No connection was made: to nobody, if there is no network."""

    hint = NO_NETWORK_HINT


def strip_login(url: str) -> str:
    """A mirror's address may hold a name and password, which belong into no log and no manifest."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def host_of(url: str) -> str:
    return urlsplit(url).hostname or "The server"


def connection_broken(url: str) -> TransientError:
    return TransientError(f"The connection to {host_of(url)} broke off.", hint=_proxy_hint(url))


def unreached(url: str) -> Unreached:
    proxy = proxy_for(url)
    way = "(no connection)" if proxy is None else f"through the proxy {proxy}"
    return Unreached(f"{host_of(url)} cannot be reached {way}.", hint=_proxy_hint(url))


@contextmanager
def translate_setting_errors() -> Iterator[None]:
    try:
        yield
    except (ImportError, ValueError, OSError) as error:
        raise DownloadFailed(
            "The certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be used.",
            hint="SSL_CERT_FILE must be a file of certificates in PEM format, SSL_CERT_DIR a folder of such.",
        ) from error


def check_response(url: str, response: httpx.Response) -> None:
    """Raises DownloadFailed. It names the file that was asked for, and the host that a redirect may have led to."""
    status = response.status_code
    host, file = response.url.host, urlsplit(url).path.rpartition("/")[2]
    if status in TRANSIENT_STATUSES or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        retry_after_s = parse_retry_after(response.headers.get("retry-after", ""), response.headers.get("date", ""))
        raise TransientError(f"{host} cannot give out the file at the moment ({status}).", retry_after_s=retry_after_s)
    if status == httpx.codes.FORBIDDEN and response.history:
        # What a redirect names may be an address that was signed for some minutes; the first one signs another.
        sentence = f"{host} refuses to give out {file} at the address that a redirect named (403)."
        raise TransientError(sentence, retries=REDIRECTS_AGAIN)
    if status not in {WHOLE, REST, NOTHING_MORE}:
        sentence = REFUSED_SENTENCES.get(status, "{host} answered {status} instead of {file}.")
        raise DownloadFailed(sentence.format(host=host, file=file, status=status), hint=_proxy_hint(str(response.url)))
    if _encodings(response) - NO_ENCODINGS:
        raise DownloadFailed(
            f"{host} or a proxy sends {file} compressed, though it was asked not to.",
            hint=_proxy_hint(str(response.url)),
        )


def _encodings(response: httpx.Response) -> set[str]:
    return {name.strip().lower() for name in response.headers.get("content-encoding", "").split(",")}


@contextmanager
def translate_http_errors(url: str) -> Iterator[None]:
    """Raises DownloadFailed for any of httpx's errors inside the block, where ``url`` is asked for."""
    try:
        yield
    except httpx.ReadTimeout as error:
        asked = _asked_url(error, url)
        raise TransientError(f"{host_of(asked)} stopped sending.", hint=_proxy_hint(asked)) from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _connect_failure(_asked_url(error, url), error) from error
    except httpx.ProxyError as error:
        raise _proxy_refusal(_asked_url(error, url), error) from error
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise DownloadFailed(f"{host_of(url)} cannot be asked: {type(error).__name__}.") from error
    except httpx.HTTPError as error:
        raise connection_broken(_asked_url(error, url)) from error


def _asked_url(error: httpx.HTTPError, url: str) -> str:
    """Where a redirect may have led; that is what a firewall has to let through."""
    try:
        return str(error.request.url)
    except RuntimeError:
        return url


def _connect_failure(url: str, error: httpx.TransportError) -> DownloadFailed:
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return DownloadFailed(f"The certificate of {host_of(url)} is not trusted.", hint=CERTIFICATE_HINT)
    if any(isinstance(cause, ssl.SSLError | ConnectionResetError) for cause in causes):
        # Somebody was there, and left in the middle of the first words.
        return connection_broken(url)
    proxy = proxy_for(url)
    if proxy is not None and any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return DownloadFailed(f"Nothing answers at the proxy's address, {proxy}.", hint=proxy.hint)
    return unreached(url)


def _proxy_refusal(url: str, error: httpx.ProxyError) -> DownloadFailed:
    """The error's text begins with the status that the proxy gave, if it gave one."""
    status = re.match(r"[0-9]{3}\b", str(error))
    hint = _proxy_hint(url)
    if status is None or status[0].startswith("5"):
        return TransientError(f"The proxy cannot connect to {host_of(url)} at the moment.", hint=hint)
    return DownloadFailed(f"The proxy refuses to connect to {host_of(url)} ({status[0]}).", hint=hint)


def _proxy_hint(url: str) -> str | None:
    """What to do about the proxy that is asked for ``url``; None where the server itself is."""
    proxy = proxy_for(url)
    return None if proxy is None else proxy.hint


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
