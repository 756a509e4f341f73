"""More than there is room for: many at once, a database that hangs, connections that sit idle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from sqlalchemy import insert

from shared.db.engine import sync_engine
from shared.db.migration import migrate
from shared.db.models import Order, Restaurant, User
from shared.settings import Settings, load_settings
from shared.tokens import issue_user_token
from tests.api.wire import Wire, wire
from tests.services.children import wait_until
from tests.services.postgres import PostgresServer
from tests.services.processes import Serving, start_serve

DETAIL = "/api/restaurants/7"
ORDERS = "/api/orders"
IDLE = 500
IDLE_BYTES = 6 * 1024**2
QUICK_SECONDS = 2.0  # of a refusal; an answer may take its time
BATCHES = 2
USER = 42
SECRET = "a secret that this test and its servers know"


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def serving(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Serving, PostgresServer | None]]:
    """A server whose database holds one restaurant with orders, and that database's server."""
    env = {"TASTEMATCH_DATA_DIR": str(tmp_path), "TASTEMATCH_JWT_SECRET": SECRET}
    server = None
    if request.param == "postgresql":
        server = request.getfixturevalue("own_postgres")
        env["DATABASE_URL"] = server.create_database()
    _add_restaurant(load_settings(env))
    with start_serve(env=env) as started, wire(started.port) as asked:
        assert asked.ask(DETAIL).status == 200
        yield started, server


def _add_restaurant(settings: Settings) -> None:
    migrate(settings)
    engine = sync_engine(settings)
    with engine.begin() as connection:
        connection.execute(insert(Restaurant).values(id=7, name="Seven", is_active=True))
        connection.execute(insert(User).values(id=USER))
        order = {
            "user_id": USER,
            "restaurant_id": 7,
            "order_date": datetime(2025, 1, 1, tzinfo=UTC),
        }
        connection.execute(insert(Order), [{"id": number, **order} for number in range(30)])
    engine.dispose()


async def test_a_hundred_at_once_are_answered_and_three_hundred_shed_quickly(
    serving: tuple[Serving, PostgresServer | None],
) -> None:
    server, _ = serving
    for paths in (
        (DETAIL, ORDERS),
        (DETAIL, "/api/restaurants?limit=50", "/api/restaurants?sort=-rating"),
    ):
        hundred, _ = await _storm(server.port, paths, count=100)
        assert set(hundred) == {200}
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    for _batch in range(BATCHES):
        answered, health_seconds = await _storm(server.port, (DETAIL, ORDERS), count=300)
        assert answered[200] >= 100
        statuses += answered
        seconds += health_seconds
    assert set(statuses) == {200, 503}
    assert sorted(seconds)[len(seconds) // 2] < 0.1


async def _storm(
    port: int, paths: tuple[str, ...], *, count: int
) -> tuple[Counter[int], list[float]]:
    """Requests that are all sent before one is answered; and how long `/health` takes meanwhile."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count + 1)]
    (health_reader, health_writer), *storm = opened
    statuses: Counter[int] = Counter()

    known = load_settings({"TASTEMATCH_JWT_SECRET": SECRET})
    token = issue_user_token(known, user_id=USER, ttl_seconds=600, now=time.time())

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        begun = time.monotonic()
        head = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        writer.write(head.encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split(" ", 2)[1])
        size = re.search(r"content-length: (\d+)", head)
        assert size is not None
        body = await reader.readexactly(int(size[1]))
        if status == 503:
            assert re.search(r"retry-after: [1-9]", head)
            assert json.loads(body)["code"] == "overloaded"
            assert time.monotonic() - begun < QUICK_SECONDS
        statuses[status] += 1

    asking = [
        asyncio.create_task(ask(*connection, paths[number % len(paths)]))
        for number, connection in enumerate(storm)
    ]
    seconds = []
    while not seconds or not all(task.done() for task in asking):
        begun = time.monotonic()
        health_writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await health_reader.readuntil(b'{"status":"ok"}')).startswith(b"HTTP/1.1 200 ")
        seconds.append(time.monotonic() - begun)
    await asyncio.gather(*asking)
    for _, writer in opened:
        writer.close()
    return statuses, seconds


@pytest.mark.parametrize("serving", ["postgresql"], indirect=True)
def test_a_database_that_hangs_or_is_gone_leaves_the_process_healthy(
    serving: tuple[Serving, PostgresServer | None],
) -> None:
    server, database = serving
    assert database is not None
    with wire(server.port) as asked:
        for harm in (database.pause, database.kill):
            harm()
            try:
                # The question may take 1.5 s, its answer is good for one more.
                wait_until(lambda: _database(asked) == "down", timeout_seconds=6, describe="down")
                with contextlib.ExitStack() as stack:
                    # Far more than there is room for, all of them waiting for the database.
                    for _ in range(200):
                        waiting = stack.enter_context(
                            socket.create_connection(("127.0.0.1", server.port))
                        )
                        waiting.sendall(f"GET {DETAIL} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    seconds = [_health_seconds(asked) for _ in range(20)]
                    assert sorted(seconds)[len(seconds) // 2] < 0.05
                    assert _database(asked) == "down"
                detail = asked.ask(DETAIL)
                assert detail.status == 503
                assert int(detail["retry-after"]) >= 1
            finally:
                if harm == database.pause:
                    database.resume()
        database.restart()
        wait_until(
            lambda: asked.ask(DETAIL).status == 200, timeout_seconds=10, describe="the database"
        )


def _health_seconds(asked: Wire) -> float:
    begun = time.monotonic()
    assert asked.ask("/health").status == 200
    return time.monotonic() - begun


def _database(asked: Wire) -> str:
    begun = time.monotonic()
    ready = asked.ask("/ready")
    assert time.monotonic() - begun < 3, "it hangs with the database"
    state: str = json.loads(ready.body)["checks"]["database"]
    return state


@pytest.mark.parametrize("serving", ["sqlite"], indirect=True)
def test_idle_connections_cost_memory_only(
    serving: tuple[Serving, PostgresServer | None],
) -> None:
    server, _ = serving
    process = psutil.Process(server.child.pid)
    request = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    with contextlib.ExitStack() as stack:
        before = process.memory_full_info().uss
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            for _ in range(IDLE)
        ]
        for connection in idle[::2]:  # half of them idle after an answer, half before a request
            connection.sendall(request)
        for connection in idle[::2]:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        with wire(server.port) as asked:
            for target in ("/health", "/ready", DETAIL):
                assert asked.ask(target).status in (200, 503)
            assert asked.ask("/health").status == 200
            assert asked.ask(DETAIL).status == 200
        assert process.memory_full_info().uss - before < IDLE_BYTES
        # None of them was closed to make room.
        for connection in idle:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                raise AssertionError(f"closed, or told something: {connection.recv(4096)!r}")
