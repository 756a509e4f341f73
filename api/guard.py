"""The outermost layer, pure ASGI: what holds for every request whatever it asks for.

Request id, timing, CORS, bounded bodies, shedding, one form for every error, one log line for
what went wrong or took long. It also answers the hot paths itself, from functions that never
wait, so that they pay for nothing below. Limits on what comes before a request is complete
(header fields, address) are `protocol.py`'s.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from itertools import count
from time import perf_counter
from typing import NamedTuple, Protocol

from starlette.types import ASGIApp, Receive, Send

from api import problems
from api.answers import Answer, Handler, HeaderField, Headers, Scope, header_map
from api.bodies import STREAMED_ROUTES, BodyRefused, ClientGone, has_body, read_body
from api.cors import CrossOrigin, is_preflight
from api.exchange import CLOSE, Exchange, Request, route_of
from api.lifecycle import Lifecycle
from api.problems import error_answer, problem_answer
from shared.errors import TasteMatchError
from shared.logs import get_logger
from shared.metrics import request_shed
from shared.settings import Settings

SLOW_SECONDS = 1.0
REQUEST_ID = "tastematch.request_id"  # where a route finds it in the scope

_REQUEST_ID_FORM = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_QUIET_ROUTES = frozenset({"/health", "/metrics"})


class Observe(Protocol):
    def __call__(self, *, method: str, route: str, status: int, seconds: float) -> None: ...


class HotRoute(NamedTuple):
    """`template` names the route in logs and metrics."""

    template: str
    handler: Handler


class Guard:
    """`find_hot` knows the routes that it answers itself, for GET and HEAD, by their paths.

    `is_light` tells of a path whether its requests bound themselves: those are not counted, so
    that a dependency that hangs does not shed them. `observe` is told of each request when its
    answer begins.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        lifecycle: Lifecycle,
        find_hot: Callable[[str], HotRoute | None],
        is_light: Callable[[str], bool],
        observe: Observe,
    ) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._find_hot = find_hot
        self._is_light = is_light
        self._observe = observe
        self._max_in_flight = settings.max_in_flight
        self._cross_origin = CrossOrigin(settings.cors_origins)
        self._id_prefix = secrets.token_hex(6).encode()
        self._numbers = count(1)
        self._is_chatty = settings.log_level == "DEBUG"
        self._log = get_logger(__name__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            else:
                await self._app(scope, receive, send)
            return
        at_once = self.at_once(scope)
        if at_once is not None:
            status, fields, body = at_once
            await send({"type": "http.response.start", "status": status, "headers": fields})
            await send({"type": "http.response.body", "body": body})
            return
        request = self._begun(scope)
        if not _has_one_host(request.headers) and scope["http_version"] != "1.0":
            detail = "a request has exactly one Host field"
            answer = self._problem(request, problems.BAD_REQUEST, detail, CLOSE)
            await self._answer(request, answer, send)
        elif is_preflight(request.method, request.headers):
            request_id = request.id.decode()
            answer = self._cross_origin.preflight(request.headers, request_id=request_id)
            await self._answer(request, answer, send)
        else:
            await self._pass_on(request, scope, receive, send)

    def at_once(self, scope: Scope) -> Answer | None:
        """The complete answer to a request of a hot path; None for any other request."""
        method = scope["method"]
        if method != "GET" and method != "HEAD":  # noqa: PLR1714 - a set takes longer
            return None
        path = scope["path"]
        hot = self._find_hot(path)
        if hot is None:
            return None
        request = self._begun(scope)
        if not _has_one_host(request.headers):
            return None
        request.route = hot.template
        answer = self._handled(hot.handler, scope, request)
        fields = answer.headers + self.own_fields(request, answer.status)
        return Answer(answer.status, fields, answer.body if method == "GET" else b"")

    @property
    def is_draining(self) -> bool:
        return self._lifecycle.is_draining

    def _begun(self, scope: Scope) -> Request:
        started = perf_counter()
        headers = header_map(scope["headers"])
        request_id = headers.get(b"x-request-id")
        if request_id is None or not _REQUEST_ID_FORM.fullmatch(request_id):
            request_id = self._new_id()
        return Request(scope["method"], headers, request_id, started)

    def refusal(
        self, problem: problems.Problem, detail: str, fields: Sequence[HeaderField]
    ) -> Answer:
        """The answer to what the server refuses below the application, and closes after.

        `fields` are those of the request as far as they came.
        """
        headers = header_map(fields)
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID_FORM.fullmatch(request_id):
            request_id = self._new_id()
        request = Request("", headers, request_id, perf_counter())
        answer = self._problem(request, problem, detail, CLOSE)
        return answer._replace(headers=answer.headers + self.own_fields(request, answer.status))

    def _new_id(self) -> bytes:
        return b"%s-%x" % (self._id_prefix, next(self._numbers))

    def _handled(self, handler: Handler, scope: Scope, request: Request) -> Answer:
        try:
            return handler(scope, request.headers)
        except TasteMatchError as error:
            return error_answer(error, request_id=request.id.decode())
        except Exception as error:
            self._log_failure(request)
            return error_answer(error, request_id=request.id.decode())

    async def _answer(self, request: Request, answer: Answer, send: Send) -> None:
        fields = answer.headers + self.own_fields(request, answer.status)
        body = b"" if request.method == "HEAD" else answer.body
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def _pass_on(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the application answer, once the body is complete and there is room for it."""
        is_streamed = (request.method, scope["path"]) in STREAMED_ROUTES
        body: bytes | None = None if is_streamed else b""
        try:
            if not is_streamed and has_body(request.headers):
                body = await read_body(request.headers, receive)
        except ClientGone:
            return
        except BodyRefused as refusal:
            answer = self._problem(request, refusal.problem, refusal.detail, CLOSE)
            await self._answer(request, answer, send)
            return
        counted = None if self._is_light(scope["path"]) else self._lifecycle
        if counted is not None and counted.in_flight >= self._max_in_flight:
            request_shed()
            detail = "try again after the time that Retry-After names"
            await self._answer(request, self._problem(request, problems.OVERLOADED, detail), send)
            return
        inner: Scope = {**scope, REQUEST_ID: request.id.decode()}
        if request.method == "HEAD":
            inner["method"] = "GET"
        exchange = Exchange(
            own_fields=self.own_fields,
            request=request,
            scope=inner,
            body=body,
            counted=counted,
            receive=receive,
            send=send,
        )
        try:
            await self._app(inner, exchange.receive, exchange.send)
        except Exception as error:
            request.route = route_of(inner)
            self._log_failure(request)
            if exchange.is_unfinished:
                raise  # the server must cut the connection: half an answer is none
            if not exchange.has_started:
                answer = error_answer(error, request_id=request.id.decode())
                await self._answer(request, answer, send)
        finally:
            exchange.release()

    def own_fields(self, request: Request, status: int) -> list[HeaderField]:
        """The fields every answer carries. Called once a request, when its answer begins."""
        seconds = perf_counter() - request.started
        self._observe(method=request.method, route=request.route, status=status, seconds=seconds)
        if status >= 400 or seconds >= SLOW_SECONDS or self._is_chatty:
            self._log_request(request, status, seconds)
        fields = [
            (b"x-request-id", request.id),
            (b"x-process-time", b"%.6f" % seconds),
            (b"server-timing", b"app;dur=%.3f" % (seconds * 1000)),
        ]
        if b"origin" in request.headers:
            fields += self._cross_origin.fields(request.headers)
        if self._lifecycle.is_draining:
            fields.append(CLOSE)
        return fields

    def _problem(
        self, request: Request, problem: problems.Problem, detail: str, *headers: HeaderField
    ) -> Answer:
        return problem_answer(problem, detail, request_id=request.id.decode(), headers=headers)

    def _log_request(self, request: Request, status: int, seconds: float) -> None:
        if request.route in _QUIET_ROUTES:
            return
        is_notable = status >= 400 or seconds >= SLOW_SECONDS
        (self._log.info if is_notable else self._log.debug)(
            "request",
            method=request.method,
            route=request.route,
            status=status,
            seconds=round(seconds, 6),
            request_id=request.id.decode(),
        )

    def _log_failure(self, request: Request) -> None:
        self._log.error(
            "request.failed",
            route=request.route,
            request_id=request.id.decode(),
            exc_info=True,
        )


def _has_one_host(headers: Headers) -> bool:
    host = headers.get(b"host")
    return host is not None and b"," not in host
