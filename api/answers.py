"""What a handler answers: status, header fields, body. And what it reads of a request: its headers.

A handler is a plain function from the head of a request to an `Answer`; it never waits. The guard
sends answers of the hot paths itself, `as_response` hands the same answer to a FastAPI route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from starlette.responses import Response

HeaderField = tuple[bytes, bytes]
Headers = Mapping[bytes, bytes]
Scope = MutableMapping[str, Any]
Handler = Callable[[Scope, Headers], "Answer"]

JSON_TYPE: HeaderField = (b"content-type", b"application/json")


class Answer(NamedTuple):
    """`headers` are in lower case and hold `content-length`, except where there is no body.

    A tuple, as a frozen dataclass takes three times as long to make.
    """

    status: int
    headers: list[HeaderField]
    body: bytes | memoryview = b""


def header_map(fields: Iterable[HeaderField]) -> dict[bytes, bytes]:
    """Header fields by name; lines of the same name are joined as RFC 9110, 5.2 has it.

    Two Authorization lines thereby become one value that is no valid credential.
    """
    raw = list(fields)
    headers = dict(raw)
    if len(headers) != len(raw):
        headers.clear()
        for name, value in raw:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def json_answer(document: Any, *, status: int = 200, headers: Iterable[HeaderField] = ()) -> Answer:
    body = orjson.dumps(document)
    return Answer(status, [JSON_TYPE, length_of(body), *headers], body)


def length_of(body: bytes | memoryview) -> HeaderField:
    return (b"content-length", b"%d" % len(body))


def as_response(answer: Answer) -> Response:
    """The same answer for Starlette, its header fields in the same order."""
    # Here, so that a command may read snapshots where no web framework is installed.
    from starlette.responses import Response

    response = Response(answer.body, status_code=answer.status)
    response.raw_headers = list(answer.headers)
    return response
