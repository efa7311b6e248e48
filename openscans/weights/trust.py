"""Which certificates a server must show one of: those that the environment names, else those that come with certifi.

Knows variables and TLS; nothing of what is asked for.
"""

import logging
import os
import ssl
import sys
from functools import lru_cache

import certifi
import httpx

from openscans.system.regular_files import AT_ONCE

log = logging.getLogger("openscans.downloads")


@lru_cache(maxsize=1)
def trusted_certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """What SSL_CERT_FILE and SSL_CERT_DIR name; reading it takes a while. Raises OSError."""
    key_log = os.environ.get("SSLKEYLOGFILE")
    if not key_log or _can_be_written(key_log):
        return httpx.create_ssl_context()
    log.warning("SSLKEYLOGFILE is passed over: the file that it names cannot be written.")
    return _without_key_log(file, folder)


def _can_be_written(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | AT_ONCE, 0o666))
    except (OSError, ValueError):
        return False
    return True


def _without_key_log(file: str | None, folder: str | None) -> ssl.SSLContext:
    """What `ssl.create_default_context` gives; it cannot be told to leave the file of keys alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    if file or not folder:
        context.load_verify_locations(cafile=file or certifi.where())
    else:
        context.load_verify_locations(capath=folder)
    return context
