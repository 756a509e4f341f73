"""Uvicorn's HTTP/1.1 protocol with the limits that must hold before a request is complete.

The parser itself takes header fields of any size and waits for them for ever. Here the head of a
request is bounded in bytes and in time, a client that stops reading is cut off, and what is
refused at this level is answered as a problem document like everything else. Limits on bodies
are `bodies.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api import problems
from api.answers import Answer, HeaderField
from api.problems import Problem

MAX_HEAD_BYTES = 32 * 1024
MAX_URL_BYTES = 8 * 1024
HEAD_SECONDS = 10.0
STALL_SECONDS = 10.0
STALL_BYTES = 10 * 1024  # what a slow reader must take in STALL_SECONDS
LINGER_SECONDS = 1.0  # in which what a refused client still sends is taken and forgotten
LINGER_BYTES = 1024**2


class _Refused(Exception):
    pass


class Refuses(Protocol):
    """What the application must offer, so that refusals look like its own answers."""

    def refusal(self, problem: Problem, detail: str, fields: Sequence[HeaderField]) -> Answer:
        """The answer, to a request of which these header fields have come so far."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_head_open = False
        self._is_head_whole = False
        self._head_bytes = 0
        self._refusal: Problem | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0
        self._is_lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._on_head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            self._linger(len(data))
            return
        if self.transport.is_closing():
            return
        if self._is_head_open:
            self._head_bytes += len(data)
        else:
            self._head_bytes = len(data)
        self._is_head_whole = False
        super().data_received(data)
        if self._is_head_open:
            if self._is_head_whole:  # so most of this piece were other requests
                self._head_bytes = MAX_URL_BYTES + 1  # enough to look closely once it is complete
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(problems.HEADERS_TOO_LARGE)
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._on_head_late)

    def on_message_begin(self) -> None:
        self._is_head_open = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_head_open = False
        self._is_head_whole = True
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self._head_bytes > MAX_URL_BYTES:  # else nothing in it can be too long
            if len(self.url) > MAX_URL_BYTES:
                self._refusal = problems.URL_TOO_LONG
                raise _Refused
            fields = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if fields + len(self.url) > MAX_HEAD_BYTES:
                self._refusal = problems.HEADERS_TOO_LARGE
                raise _Refused
        self.begin_exchange()

    def begin_exchange(self) -> None:
        """The head is complete and within its limits."""
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        is_body_open = not self.pipeline and self.cycle.more_body
        super().on_response_complete()
        if self._is_head_open:
            self._unset_keepalive_if_required()  # the head has a deadline of its own
        if is_body_open and not self.transport.is_closing():
            # The rest of a body that nobody read must not be taken for the next request.
            self._unset_keepalive_if_required()
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Called for whatever the parser, or `on_headers_complete`, refuses."""
        self._refuse(self._refusal or problems.BAD_REQUEST)

    def timeout_keep_alive_handler(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()  # sends what is left, if the client takes it
            self._watch_stall()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_stall()

    def resume_writing(self) -> None:
        if self._stall_timer is not None and not self.transport.is_closing():
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def _on_head_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._is_head_open:
            self._refuse(problems.REQUEST_TIMEOUT)
        elif self.cycle is None:
            self.transport.close()

    def _watch_stall(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        if self._unsent_bytes and self._stall_timer is None:
            self._stall_timer = self.loop.call_later(STALL_SECONDS, self._on_stall)

    def _on_stall(self) -> None:
        self._stall_timer = None
        unsent = self.transport.get_write_buffer_size()
        if unsent > max(0, self._unsent_bytes - STALL_BYTES):
            self.transport.abort()
        elif unsent:
            self._watch_stall()

    def _refuse(self, problem: Problem) -> None:
        """Answers below the application, with the fields every answer has, and closes."""
        if self.transport.is_closing() or self._is_lingering:
            return
        self._is_head_open = False
        application = cast(Refuses, self.app)
        answer = application.refusal(problem, _DETAILS[problem.code], self.headers or ())
        fields = [*self.server_state.default_headers, *answer.headers]
        lines = [b"%s: %s\r\n" % field for field in fields]
        self.transport.write(
            b"".join((STATUS_LINE[problem.status], *lines, b"\r\n", bytes(answer.body)))
        )
        # Closing with unread bytes resets the connection, and the answer may be lost by it.
        self._is_lingering = True
        self._head_bytes = 0
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _linger(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > LINGER_BYTES:
            self.transport.abort()


_DETAILS = {
    problems.BAD_REQUEST.code: "this is not a valid HTTP/1.1 request",
    problems.URL_TOO_LONG.code: f"an address takes at most {MAX_URL_BYTES} bytes",
    problems.HEADERS_TOO_LARGE.code: f"the header fields take at most {MAX_HEAD_BYTES} bytes",
    problems.REQUEST_TIMEOUT.code: f"the head did not arrive within {HEAD_SECONDS:.0f} s",
}
