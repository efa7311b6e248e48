"""Who may call and which files may be read: the optional bearer token, and the allowed folders.

Knows nothing of routes beside the one that needs no token.
"""

import hmac
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from errors import ForbiddenPath, InputNotFound, InvalidRequest, OpenScansError, Unauthorized

OPEN_PATH = "/api/health"
"""Answers without a token, so that whoever starts the server can see that it is up."""

ALLOWED_ORIGIN = r"tauri://localhost|https?://tauri\.localhost|http://(localhost|127\.0\.0\.1)(:\d{1,5})?"
"""Pages of the desktop application's web view (the http form is Windows') and of development servers."""


class TokenGate:
    """ASGI middleware that lets only callers with ``token`` pass; ``refuse`` makes the answer for the others."""

    def __init__(self, app: ASGIApp, *, token: str, refuse: Callable[[OpenScansError], ASGIApp]) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == OPEN_PATH or self._knows(Headers(scope=scope)):
            await self._app(scope, receive, send)
        else:
            await self._refuse(Unauthorized("This server needs a token."))(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        return hmac.compare_digest(headers.get("authorization", "").encode(), self._expected)


def readable_path(text: str, roots: Sequence[Path]) -> Path:
    """The absolute path that ``text`` names. Raises InvalidRequest, ForbiddenPath, and InputNotFound."""
    path = Path(text)
    if not path.is_absolute():
        raise InvalidRequest("file_path must be an absolute path.")
    if roots and not any(_real(path).is_relative_to(_real(root)) for root in roots):
        raise ForbiddenPath("The path lies outside the folders that this server may read.")
    try:
        path.stat()
    except OSError as error:
        raise InputNotFound("There is no file or folder at this path, or it may not be read.") from error
    return path


def _real(path: Path) -> Path:
    # Path.resolve() raises on a loop of links; realpath never does.
    return Path(os.path.realpath(path))
