"""Bodies of many rows, one JSON object a line (NDJSON), and answers with a line for each.

A body is received whole before its first line is looked at, in a file once it is larger than
SPOOL_BYTES: what is too large, too slow or cut off changes nothing. Then its lines are read in
blocks, so that memory holds one block whatever the size. What is wrong with one line is that line's
outcome and costs no other line. Lines are numbered from 1, empty ones too, which have no outcome.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from api.answers import Answer, Headers, header_map, length_of
from api.json_bodies import parse_object
from shared.errors import (
    BodyTooLarge,
    DependencyError,
    FieldError,
    InvalidInput,
    MalformedInput,
    RequestTimeout,
    UnsupportedMedia,
)
from shared.parsing import MAX_ID

MEDIA_TYPE = "application/x-ndjson"
RECEIVE_SECONDS = 60.0
SPOOL_BYTES = 256 * 1024
BLOCK_BYTES = 1024**2
MAX_LINE_ERRORS = 5

_MEDIA_TYPES = frozenset({MEDIA_TYPE.encode(), b"application/ndjson"})
_BOM = b"\xef\xbb\xbf"
_MARKS = len(_BOM) + len(b"\r\n")

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a body may hold: lines, bytes of one line without its end, bytes in all."""

    lines: int
    line_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Line(Generic[Row]):
    """One line: its row, or what is wrong with it. `id` is its member of that name, if usable."""

    number: int
    id: int | None
    row: Row | None
    errors: tuple[FieldError, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a line; `outcome` is a word of the route's."""

    line: int
    id: int | None
    outcome: str
    errors: tuple[FieldError, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        document: dict[str, Any] = {"line": self.line, "id": self.id, "outcome": self.outcome}
        if self.errors:
            document["errors"] = [
                {"in": error.location, "name": error.name, "detail": error.detail}
                for error in self.errors[:MAX_LINE_ERRORS]
            ]
        return document


class Lines:
    """A received body."""

    def __init__(self, file: IO[bytes], *, line_bytes: int) -> None:
        self._file = file
        self._line_bytes = line_bytes

    async def blocks(
        self, read: Callable[[dict[str, Any]], Row], *, size: int
    ) -> AsyncIterator[list[Line[Row]]]:
        """All lines in their order, `size` at a time, or fewer that are longer.

        `read` makes a row of the members of a line, in a thread beside the event loop; what it
        raises as InvalidInput or MalformedInput is that line's.
        """
        self._file.seek(0)
        lines = self._read(read)
        while block := await asyncio.to_thread(self._take, lines, size):
            yield block

    def _take(self, lines: Iterator[Line[Row]], size: int) -> list[Line[Row]]:
        began = self._file.tell()
        block = []
        for line in lines:
            block.append(line)
            if len(block) == size or self._file.tell() - began >= BLOCK_BYTES:
                break
        return block

    def _read(self, read: Callable[[dict[str, Any]], Row]) -> Iterator[Line[Row]]:
        number = 0
        while (raw := self._file.readline(self._line_bytes + _MARKS)) != b"":
            number += 1
            is_whole = raw.endswith(b"\n")
            text = raw.removesuffix(b"\n").removesuffix(b"\r")
            if number == 1:
                text = text.removeprefix(_BOM)
            if len(text) > self._line_bytes:
                while not is_whole and (rest := self._file.readline(self._line_bytes)) != b"":
                    is_whole = rest.endswith(b"\n")
                detail = f"is longer than {self._line_bytes} bytes"
                yield Line(number, None, None, (FieldError("body", "", detail),))
            elif text.strip():
                yield _line(number, text, read)


@asynccontextmanager
async def received_lines(request: Request, *, limits: Limits, folder: Path) -> AsyncIterator[Lines]:
    """Receives the body of a request to one of `bodies.STREAMED_ROUTES`.

    folder: where a large body is kept meanwhile. Raises UnsupportedMedia, BodyTooLarge,
    RequestTimeout, and MalformedInput where the connection ended before the body did.
    """
    _check_media_type(header_map(request.scope["headers"]))
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=str(folder)) as file:
        await _receive(request, file, limits)
        yield Lines(file, line_bytes=limits.line_bytes)


async def outcomes_answer(outcomes: Iterable[Outcome]) -> Answer:
    """200: a line for each outcome, in the order of the lines of the request."""
    body = await asyncio.to_thread(_written, outcomes)
    return Answer(200, [(b"content-type", MEDIA_TYPE.encode()), length_of(body)], body)


def _check_media_type(headers: Headers) -> None:
    media_type = (
        headers.get(b"content-type", MEDIA_TYPE.encode()).partition(b";")[0].strip().lower()
    )
    if media_type not in _MEDIA_TYPES:
        raise UnsupportedMedia(f"the body must be {MEDIA_TYPE}: one JSON object a line")
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise UnsupportedMedia("the body must have no content coding")


async def _receive(request: Request, file: IO[bytes], limits: Limits) -> None:
    too_large = BodyTooLarge(
        f"a body holds at most {limits.lines} lines and {limits.total_bytes} bytes here; "
        "nothing of it was looked at"
    )
    stated = header_map(request.scope["headers"]).get(b"content-length", b"")
    if stated.isdigit() and int(stated[:20]) > limits.total_bytes:
        raise too_large
    size = 0
    ends = 0
    last = b"\n"
    try:
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for piece in request.stream():
                if not piece:
                    continue
                size += len(piece)
                ends += piece.count(b"\n")
                last = piece[-1:]
                if size > limits.total_bytes or ends + (last != b"\n") > limits.lines:
                    raise too_large
                file.write(piece)
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {RECEIVE_SECONDS:.0f} s") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DependencyError(f"the body cannot be kept meanwhile ({reason})") from None
    except ClientDisconnect:
        raise MalformedInput("the connection ended before the body did") from None


def _line(number: int, text: bytes, read: Callable[[dict[str, Any]], Row]) -> Line[Row]:
    row_id = None
    try:
        members = parse_object(text, called="the line")
        if type(found := members.get("id")) is int and 0 <= found <= MAX_ID:
            row_id = found
        return Line(number, row_id, read(members))
    except InvalidInput as error:
        errors = error.fields or (FieldError("body", "", error.message),)
        return Line(number, row_id, None, errors)
    except MalformedInput as error:
        return Line(number, row_id, None, (FieldError("body", "", error.message),))


def _written(outcomes: Iterable[Outcome]) -> bytes:
    ordered = sorted(outcomes, key=lambda outcome: outcome.line)
    return b"".join(orjson.dumps(each.as_dict()) + b"\n" for each in ordered)
