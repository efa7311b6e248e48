"""Who may call, and under which folders: Host, Origin, the optional bearer token, the roots.

Knows nothing of routes beside the one that needs no token.
"""

import hmac
import ipaddress
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from openscans.errors import ForbiddenHost, ForbiddenOrigin, OpenScansError, Unauthorized

OPEN_PATH = "/api/health"
"""Answers without a token, so that whoever starts the server can see that it is up."""

OWN_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names under which only programs of this machine find the server. A page that lets its own name point here, to be
taken for the server's (DNS rebinding), still says its own name in the Host header."""

HOST = re.compile(r"(\[[0-9a-z:.%]+\]|[^\s:/@\[\]]+)(:[0-9]{1,5})?")

ALLOWED_ORIGIN = r"tauri://localhost|https?://tauri\.localhost|http://(localhost|127\.0\.0\.1)(:[0-9]{1,5})?"
"""Pages of the desktop application's web view (the http form is Windows') and of development servers."""


@dataclass(frozen=True)
class AccessRules:
    """Who may call, and which files may be read. ``host`` is the address that was asked for at the start.

    ``token`` None: nobody has to show one. ``allowed_roots`` empty: any file that the user may read.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    allowed_roots: tuple[Path, ...] = ()
    allowed_origins: tuple[str, ...] = ()


Check = Callable[[Scope], None]
"""Looks at a request's head. Raises an OpenScansError to refuse it."""


class Gate:
    """ASGI middleware that passes on what ``check`` lets through; ``refuse`` makes the answer for the others."""

    def __init__(self, app: ASGIApp, *, check: Check, refuse: Callable[[OpenScansError], ASGIApp]) -> None:
        self._app = app
        self._check = check
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http":
            return beside_requests(self._app, scope)
        try:
            self._check(scope)
        except OpenScansError as error:
            return self._refuse(error)
        return self._app


def beside_requests(app: ASGIApp, scope: Scope) -> ASGIApp:
    """Who answers a ``scope`` that is no request: ``app`` the server's own start and end, nobody a websocket.

    One that is closed before it was accepted is answered with the status 403.
    """
    return WebSocketClose() if scope["type"] == "websocket" else app


def host_check(asked: str) -> Check:
    """Lets through who calls the server by a name of this machine, or by the address ``asked`` for at the start.

    Where that stands for every address, the one at which the connection arrived is a name too: a number cannot be
    made to point elsewhere.
    """
    names = OWN_HOSTS | {asked.lower()}
    everywhere = _is_unspecified(asked)

    def check(scope: Scope) -> None:
        given = _values(scope, b"host")
        found = HOST.fullmatch(given[0].lower()) if len(given) == 1 else None
        name = found[1].strip("[]") if found else ""
        if name not in names and not (everywhere and _same_address(name, scope)):
            raise ForbiddenHost("The request's Host header names another machine than this one.")

    return check


def origin_check(more: Collection[str]) -> Check:
    """Lets through who is no web page, and the pages of the application and of the origins in ``more``.

    Every request is checked, because one whose answer a page may not read can still have an effect.
    """
    allowed = re.compile(origins_pattern(more))

    def check(scope: Scope) -> None:
        origins = _values(scope, b"origin")
        if not origins and _values(scope, b"sec-fetch-site") == ["cross-site"]:
            raise ForbiddenOrigin("A page of another site sent this request.")
        if len(origins) > 1 or not all(allowed.fullmatch(origin) for origin in origins):
            raise ForbiddenOrigin("The page that sent this request may not use this server.")

    return check


def origins_pattern(more: Collection[str]) -> str:
    """The allowed origins, those in ``more`` included, as one regular expression."""
    return "|".join([ALLOWED_ORIGIN, *map(re.escape, more)])


def token_check(token: str) -> Check:
    """Lets through who shows ``token``, and everybody to `OPEN_PATH`."""
    # A token that is no text in the system's encoding keeps its bytes; the header's are compared as they came.
    expected = os.fsencode(token)

    def check(scope: Scope) -> None:
        shown = [value.partition(b" ") for name, value in scope["headers"] if name == b"authorization"]
        # compare_digest takes the same time wherever the first difference is, so that nothing can be guessed piecewise.
        known = [scheme.lower() == b"bearer" and hmac.compare_digest(rest, expected) for scheme, _, rest in shown]
        if scope["path"] != OPEN_PATH and known != [True]:
            raise Unauthorized("This server needs a token.")

    return check


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _same_address(name: str, scope: Scope) -> bool:
    """Whether ``name`` is the number of the address at which the request arrived."""
    try:
        named, own = ipaddress.ip_address(name), ipaddress.ip_address((scope.get("server") or ("",))[0])
    except ValueError:
        return False
    return named in {own, getattr(own, "ipv4_mapped", None)}
