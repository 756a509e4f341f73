"""Request bodies: received whole before a route sees them, bounded in bytes and in time.

Routes that take many rows at once receive theirs themselves (`ndjson`): who calls is looked at
first, and their limits are wider.
"""

from __future__ import annotations

import asyncio

from starlette.types import Receive

from api import problems
from api.answers import Headers
from api.problems import Problem

MAX_BODY_BYTES = 64 * 1024
RECEIVE_SECONDS = 10.0
STREAMED_ROUTES = frozenset(
    {("PUT", "/api/restaurants"), ("PUT", "/api/users"), ("POST", "/api/orders/batch")}
)
DISCARD_BYTES = 1024**2  # of a refused body, so that its sender can read why
DISCARD_SECONDS = 1.0


class ClientGone(Exception):
    """The connection was closed before the body was complete."""


class BodyRefused(Exception):
    def __init__(self, problem: Problem, detail: str) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail


def has_body(headers: Headers) -> bool:
    return b"content-length" in headers or b"transfer-encoding" in headers


async def read_body(headers: Headers, receive: Receive) -> bytes:
    """Raises BodyRefused (413, 408), ClientGone."""
    stated = headers.get(b"content-length", b"")
    if stated.isdigit() and int(stated[:20]) > MAX_BODY_BYTES:
        if b"expect" not in headers:
            await discard(receive)
        raise _too_large()
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            while size <= MAX_BODY_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece = message.get("body", b"")
                size += len(piece)
                pieces.append(piece)
                if size <= MAX_BODY_BYTES and not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        detail = f"the body did not arrive within {RECEIVE_SECONDS:.0f} s"
        raise BodyRefused(problems.REQUEST_TIMEOUT, detail) from None
    await discard(receive)
    raise _too_large()


async def discard(receive: Receive) -> None:
    """Reads and forgets a little of a refused body: closing at once would lose the answer."""
    left = DISCARD_BYTES
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return


def _too_large() -> BodyRefused:
    return BodyRefused(problems.BODY_TOO_LARGE, f"a body holds at most {MAX_BODY_BYTES} bytes")
