"""HEAD at every address that answers to GET: the same status and headers, and nothing else.

Knows requests and answers by their ASGI messages; nothing of what the routes do.
"""

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD_ONLY = "openscans.head_only"
"""What a scope says of itself, for routes whose GET begins something."""


class HeadRequests:
    """ASGI middleware that has a HEAD answered as a GET, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET", HEAD_ONLY: True}, receive, send_head)


def wants_head_only(request: Request) -> bool:
    """Whether only the head of the answer is asked for; then a route must begin nothing."""
    return request.scope.get(HEAD_ONLY) is True
