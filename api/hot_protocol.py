"""The hot paths, answered while the request is still being parsed.

An answer that waits for nothing needs no task, no event and no channel of messages; those cost
more than the answer. So a connection asks the application first: what it can say at once is
written as one piece of bytes. Everything unusual takes the server's ordinary way: bodies,
pipelines, upgrades, HTTP/1.0, connections that end, clients that do not read. The application
gives the same answers on any ASGI server; this is only a shorter way to them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from api.answers import Answer, HeaderField
from api.guard import Guard
from api.protocol import LimitedProtocol

JOINED_BYTES = 16 * 1024  # bodies up to this size are copied behind their head, others are not

MAX_KNOWN_URLS = 1024  # addresses that are asked again and again, and not taken apart again
MAX_KNOWN_BYTES = 256

_METHODS = {b"GET": "GET", b"HEAD": "HEAD"}
_WITH_BODY = frozenset({b"content-length", b"transfer-encoding"})

_known_urls: dict[bytes, tuple[str, bytes]] = {}


class HotProtocol(LimitedProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        guard: Any = self.app
        assert isinstance(guard, Guard), "this protocol serves the API alone"
        self._guard = guard
        self._is_answered = False
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        super().connection_lost(exc)

    def begin_exchange(self) -> None:
        answer = self._answer_at_once()
        self._is_answered = answer is not None
        if answer is None:
            super().begin_exchange()
            return
        method = self.scope["method"]
        head = _head(answer, self.server_state.default_headers)
        if method == "HEAD" or not answer.body:
            self.transport.write(head)
        elif len(answer.body) <= JOINED_BYTES:
            self.transport.write(head + answer.body)
        else:
            self.transport.writelines((head, answer.body))
        self.server_state.total_requests += 1
        self._await_next()

    def on_body(self, body: bytes) -> None:
        if not self._is_answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_answered:
            super().on_message_complete()

    def _answer_at_once(self) -> Answer | None:
        url, parser = self.url, self.parser
        known = _known_urls.get(url) or _take_apart(url)
        cycle: RequestResponseCycle | None = self.cycle
        if (
            known is None
            or self._guard.is_draining
            or not (cycle is None or cycle.response_complete)
            # What is not sent yet came in the same piece, or the client does not read.
            or self.transport.get_write_buffer_size()
            or self.transport.is_closing()
            or not parser.should_keep_alive()
            or parser.should_upgrade()
            or self.expect_100_continue
        ):
            return None
        method = _METHODS.get(parser.get_method())
        if method is None or parser.get_http_version() != "1.1":
            return None
        for name, _ in self.headers:
            if name in _WITH_BODY:
                return None
        scope: Any = self.scope
        scope["method"] = method
        scope["path"], scope["query_string"] = known
        return self._guard.at_once(scope)

    def _await_next(self) -> None:
        """Like uvicorn's keep-alive timer, yet one timer serves many requests."""
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._on_idle)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None
        if self.timeout_keep_alive_task is not None:
            super()._unset_keepalive_if_required()

    def _on_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None or self._is_head_open:  # a head has a deadline of its own
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._on_idle)
        else:
            self.timeout_keep_alive_handler()


def _take_apart(url: bytes) -> tuple[str, bytes] | None:
    """Path and query; None for what only the server's own parser reads rightly."""
    path, _, query = url.partition(b"?")
    if not url.isascii() or b"%" in path or b"#" in url:
        return None
    parts = path.decode("ascii"), query
    if len(url) <= MAX_KNOWN_BYTES and len(_known_urls) < MAX_KNOWN_URLS:
        _known_urls[url] = parts
    return parts


def _head(answer: Answer, defaults: list[HeaderField]) -> bytes:
    lines = [b"%b: %b\r\n" % field for field in (*defaults, *answer.headers)]
    return b"".join((STATUS_LINE[answer.status], *lines, b"\r\n"))
