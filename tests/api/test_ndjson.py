"""Bodies of many rows: which are read, where their lines end, what bounds them."""

from __future__ import annotations

import asyncio
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from api import ndjson
from api.routes.users import LIMITS
from shared.db.engine import sync_engine
from shared.db.migration import migrate
from shared.db.models import User
from shared.settings import load_settings
from tests.api.wire import Wire
from tests.api.writing import NDJSON, Writing, outcomes, shortly, writing
from tests.services.processes import start_serve

USERS = "/api/users"
ROW = b'{"id":1,"name":"Ada"}'


@pytest.fixture
async def shop(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Writing]:
    async with writing(sqlite_url, tmp_path) as started:
        yield started


async def test_only_lines_of_json_are_read(shop: Writing) -> None:
    good = {"Content-Type": "application/x-ndjson"}
    refused: list[dict[str, str]] = [
        good | {"Content-Encoding": "gzip"},
        {"Content-Type": "application/json"},
        {"Content-Type": "text/csv"},
        {"Content-Type": "application/x-ndjson, text/csv"},
    ]
    for fields in refused:
        headers = shop.api.as_service | fields
        answer = await shop.api.client.put(USERS, content=ROW, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-media-type")
    assert shop.rows(User.id) == []
    other_spelling = {"Content-Type": "Application/NDJSON; charset=utf-8"}
    for fields in ({}, good, other_spelling, good | {"Content-Encoding": "identity"}):
        headers = shop.api.as_service | fields
        answer = await shop.api.client.put(USERS, content=ROW, headers=headers)
        assert answer.status_code == 200
    assert len(shop.rows(User.id)) == 1


async def test_what_is_wrong_with_a_line_costs_no_other(shop: Writing) -> None:
    long = b'{"id":9,"name":"' + b" " * LIMITS.line_bytes + b'"}'
    longest = b'{"id":10,"name":"' + b" " * (LIMITS.line_bytes - 19) + b'"}'
    lines = [
        b'\xef\xbb\xbf{"id":1}\r',
        b"",
        b" \t\r",
        b"\xff\xfe",
        b'{"id":2',
        b"[]",
        b"7",
        b"null",
        b'{"id":3,"id":4}',
        b'{"id":5,"name":NaN}',
        b"[" * 5_000,
        b'{"id":6,"name":"\\ud800"}',
        b'\xef\xbb\xbf{"id":7}',
        b'{"id":8}\x00',
        long,
        long[:-5],
        longest,
        b'{"id":18446744073709551616}',
        b'{"\\udfff":1}',
        b'{"id":11}',
    ]
    assert len(longest) == LIMITS.line_bytes
    told = await shop.put_lines(USERS, lines)
    good = {1: 1, 17: 10, 20: 11}
    assert shortly(told) == [
        (n, good.get(n, 6 if n == 12 else None), "created" if n in good else "rejected")
        for n in (1, *range(4, 21))
    ]
    for each in told:
        assert ("errors" in each) == (each["outcome"] == "rejected")
    assert "longer than" in told[12]["errors"][0]["detail"]
    assert [row.id for row in shop.rows(User.id)] == [1, 10, 11]


async def test_a_body_without_lines(shop: Writing) -> None:
    for body in (b"", b"\n\n", b"\r\n"):
        answer = await shop.api.client.put(
            USERS, content=body, headers=shop.api.as_service | NDJSON
        )
        assert (answer.status_code, outcomes(answer)) == (200, [])


async def test_what_is_too_large_is_not_begun(shop: Writing) -> None:
    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(body), 60_000):
            yield body[at : at + 60_000]

    headers = shop.api.as_service | NDJSON
    for body in (
        b'{"id":1}\n' * LIMITS.lines + b'{"id":1}',
        b"\n" * (LIMITS.lines + 1),
        ROW + b"\n" + b" " * LIMITS.total_bytes,
    ):
        for content in (body, pieces(body)):  # its length stated, or not
            answer = await shop.api.client.put(USERS, content=content, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
    assert shop.rows(User.id) == []


async def test_as_many_lines_as_there_may_be(shop: Writing) -> None:
    told = await shop.put_lines(USERS, [{"id": n % 1000} for n in range(LIMITS.lines)])
    assert shortly(told) == [
        (n + 1, n % 1000, "created" if n < 1000 else "rejected") for n in range(LIMITS.lines)
    ]
    assert len(shop.rows(User.id)) == 1000


async def test_a_body_that_does_not_end_in_time(
    shop: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ndjson, "RECEIVE_SECONDS", 0.1)
    is_answered = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield ROW + b"\n"
        await is_answered.wait()

    sending = asyncio.create_task(
        shop.api.client.put(USERS, content=endless(), headers=shop.api.as_service | NDJSON)
    )
    answer = await asyncio.wait_for(sending, 10)
    is_answered.set()
    assert (answer.status_code, answer.json()["code"]) == (408, "request-timeout")
    assert shop.rows(User.id) == []


async def test_memory_holds_a_block_and_no_more(shop: Writing) -> None:
    row: dict[str, Any] = {"name": "x", "description": "ü" * 65_000, "is_active": True}
    count = 200  # of 130 kB
    body = b"".join(
        json.dumps({"id": n, **row}, ensure_ascii=False).encode() + b"\n" for n in range(count)
    )

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 64 * 1024):
            yield body[at : at + 64 * 1024]

    headers = shop.api.as_service | NDJSON
    warm = await shop.api.client.put("/api/restaurants", content=b'{"id":0}', headers=headers)
    assert warm.status_code == 200
    tracemalloc.start()
    try:
        answer = await shop.api.client.put("/api/restaurants", content=pieces(), headers=headers)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {each["outcome"] for each in outcomes(answer)} == {"created"}
    size = len(body)
    assert size > 24 * 1024**2
    assert peak < 12 * 1024**2, f"{peak / 1024**2:.1f} MiB"


def test_who_asks_is_looked_at_before_the_body(tmp_path: Path) -> None:
    """On the wire: the answer to a body that nobody wants."""
    settings = load_settings({"TASTEMATCH_DATA_DIR": str(tmp_path)})
    migrate(settings)
    assert settings.service_token is not None
    token = settings.service_token.get_secret_value()
    head = b"PUT /api/users HTTP/1.1\r\nHost: api.test\r\nContent-Type: application/x-ndjson\r\n"
    with start_serve(env={"TASTEMATCH_DATA_DIR": str(tmp_path)}) as serving:

        def connected() -> socket.socket:
            return socket.create_connection(("127.0.0.1", serving.port), timeout=20)

        with connected() as asking:  # who waits to be asked for the body is not asked
            asking.sendall(head + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
            answer = _read_all(asking)
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert b"connection: close" in answer
        with connected() as asking:  # of a large body a part is read, so that the answer arrives
            asking.sendall(head + b"Content-Length: 8000000\r\n\r\n" + b" " * 500_000)
            answer = _read_all(asking)
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert b"connection: close" in answer
        with connected() as asking:  # a small one costs nobody the connection
            wire = Wire(asking)
            reply = wire.ask("/api/users", method="PUT", body=b" " * 100_000)
            assert (reply.status, "connection" in reply.names) == (401, False)
            assert wire.ask("/health").status == 200
        with connected() as asking:  # one that is cut off changes nothing
            fields = b"Authorization: Bearer %b\r\nContent-Length: 1000\r\n\r\n" % token.encode()
            asking.sendall(head + fields + ROW + b"\n" + ROW[:5])
        with connected() as asking:
            fields_of_service = {"Authorization": f"Bearer {token}", **NDJSON}
            wire = Wire(asking)
            reply = wire.ask("/api/users", method="PUT", fields=fields_of_service, body=b'{"id":2}')
            assert json.loads(reply.body) == {"line": 1, "id": 2, "outcome": "created"}
    engine = sync_engine(settings)
    with engine.connect() as connection:
        assert list(connection.scalars(select(User.id))) == [2]
    engine.dispose()


def _read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))
