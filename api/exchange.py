"""A request on its way through the application: the body it is given, the answer it sends.

The application knows nothing of what the guard adds: the fields every answer has, a HEAD that is
answered like a GET without its body, the place among the requests in flight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Message, Receive, Send

from api.answers import HeaderField, Headers, Scope
from api.bodies import discard
from api.lifecycle import Lifecycle

CLOSE: HeaderField = (b"connection", b"close")
# For answers that say nothing about caching: they are for this caller, now.
UNCACHED: list[HeaderField] = [
    (b"cache-control", b"no-store"),
    (b"vary", b"Authorization, Origin"),
]


@dataclass(slots=True)
class Request:
    """`route` is the template once it is known: never an id, nothing a client made up."""

    method: str
    headers: Headers
    id: bytes
    started: float
    route: str = "unmatched"


class Exchange:
    """One request that the application answers: the body it is given, the answer it sends.

    Without a `body` the application receives it itself. What it leaves of it is forgotten when it
    answers, and the connection ends where that is much.
    """

    def __init__(
        self,
        *,
        own_fields: Callable[[Request, int], list[HeaderField]],
        request: Request,
        scope: Scope,
        body: bytes | None,
        counted: Lifecycle | None,
        receive: Receive,
        send: Send,
    ) -> None:
        self._own_fields = own_fields
        self._request = request
        self._scope = scope
        self._body = body
        self._has_more = body is None
        self._was_asked = False
        self._counted = counted
        self._receive = receive
        self._send = send
        self.has_started = False
        self._is_complete = False
        if counted is not None:
            counted.in_flight += 1

    @property
    def is_unfinished(self) -> bool:
        return self.has_started and not self._is_complete

    async def receive(self) -> Message:
        if self._body is None:
            self._was_asked = True
            message = await self._receive()
            self._has_more = self._has_more and bool(message.get("more_body", False))
            return message
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            self.release()  # a client that reads slowly takes no room from others
            self._request.route = route_of(self._scope)
            if self._has_more:
                await self._forget_body()
            fields: list[HeaderField] = list(message.get("headers", ()))
            if not any(name == b"cache-control" for name, _ in fields):
                fields += UNCACHED
            fields += self._own_fields(self._request, message["status"])
            if self._has_more and CLOSE not in fields:
                fields.append(CLOSE)
            message = {**message, "headers": fields}
        else:
            self._is_complete = not message.get("more_body", False)
            if self._request.method == "HEAD":
                message = {**message, "body": b""}
        await self._send(message)

    async def _forget_body(self) -> None:
        # A client that waits to be asked for the body need not send it.
        if self._was_asked or b"expect" not in self._request.headers:
            await discard(self.receive)

    def release(self) -> None:
        if self._counted is not None:
            self._counted.in_flight -= 1
            self._counted = None


def route_of(scope: Scope) -> str:
    """The template of the route that was found; what a client made up stands in no log."""
    template = getattr(scope.get("route"), "path_format", None)
    return template if isinstance(template, str) else "unmatched"
