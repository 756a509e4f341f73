"""Orders while things die: the API, its database, the clients, a row that somebody holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import insert

from shared.db.engine import sync_engine
from shared.db.models import Restaurant, User
from shared.settings import Settings, load_settings
from shared.tokens import issue_user_token
from tests.api.running import running
from tests.api.wire import Reply, Wire, wire
from tests.services.children import wait_until
from tests.services.postgres import PostgresServer
from tests.services.processes import Serving, start_serve

ORDERS = "/api/orders"
USERS = range(1, 41)
BODY = b'{"restaurant_id":7}'
LATE_SECONDS = 3.0  # until a request is refused whose database does not answer

Env = dict[str, str]


@pytest.fixture
def env(database_url: str, tmp_path: Path) -> Env:
    """Of an API over a database with users and a restaurant, on each engine."""
    env = {"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    fill(load_settings(env))
    return env


def fill(settings: Settings) -> None:
    engine = sync_engine(settings)
    with engine.begin() as connection:
        connection.execute(insert(Restaurant).values(id=7, name="seven"))
        connection.execute(insert(User), [{"id": user} for user in USERS])
    engine.dispose()


def fields(settings: Settings, user: int) -> dict[str, str]:
    token = issue_user_token(settings, user_id=user, ttl_seconds=600, now=time.time())
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def request_bytes(settings: Settings, user: int, *, method: str = "POST") -> bytes:
    lines = [f"{method} {ORDERS} HTTP/1.1", "Host: a"]
    lines += [f"{name}: {value}" for name, value in fields(settings, user).items()]
    lines += [f"Content-Length: {len(BODY)}"] if method == "POST" else []
    return "\r\n".join([*lines, "", ""]).encode() + (BODY if method == "POST" else b"")


def listed(asked: Wire, settings: Settings, user: int) -> Reply:
    return asked.ask(ORDERS, fields=fields(settings, user))


def test_what_was_confirmed_outlives_a_kill(env: Env) -> None:
    settings = load_settings(env)
    confirmed: dict[int, Any] = {}
    with start_serve(env=env) as serving, contextlib.ExitStack() as stack:
        wires = {user: stack.enter_context(wire(serving.port)) for user in USERS}
        for user, each in wires.items():
            each._connection.sendall(request_bytes(settings, user))
        for user in USERS[:20]:
            reply = wires[user].reply(has_body=True)
            assert reply.status == 201
            confirmed[user] = json.loads(reply.body)
        serving.child.kill()
    with start_serve(env=env) as serving, wire(serving.port) as asked:
        for user, order in confirmed.items():
            assert json.loads(listed(asked, settings, user).body)["items"] == [order]
        # What nobody was told of is there as a whole or not at all.
        for user in USERS[20:]:
            assert len(json.loads(listed(asked, settings, user).body)["items"]) <= 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_clients_that_go_away_leave_no_transaction_open(env: Env) -> None:
    settings = load_settings(env)
    with start_serve(env=env) as serving:
        for number in range(150):
            method = "POST" if number % 3 == 0 else "GET"
            with socket.create_connection(("127.0.0.1", serving.port)) as cut:
                cut.sendall(request_bytes(settings, USERS[number % 40], method=method))
                cut.settimeout(0.005)
                with contextlib.suppress(TimeoutError):
                    cut.recv(1)
        with wire(serving.port) as asked:
            for _ in range(20):
                wrong = fields(settings, 1)
                # Those before may be at work still.
                told = asked.ask(ORDERS, method="POST", fields=wrong, body=b"{}").status
                assert told in (422, 503)
            wait_until(
                lambda: idle_in_transaction(env["DATABASE_URL"]) == 0,
                timeout_seconds=10,
                describe="transactions that end",
            )
            wait_until(
                lambda: listed(asked, settings, 1).status == 200,
                timeout_seconds=10,
                describe="room for requests",
            )
            for user in USERS:
                assert listed(asked, settings, user).status == 200


def idle_in_transaction(url: str) -> int:
    statement = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
    )
    with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        found = cursor.fetchone()
        assert found is not None
        count: int = found[0]
        return count


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_row_that_somebody_holds_costs_one_user_only(env: Env) -> None:
    settings = load_settings(env)
    async with running(settings) as api:

        async def place(user: int) -> int:
            body = {"restaurant_id": 7}
            answer = await api.client.post(ORDERS, json=body, headers=api.as_user(user))
            return answer.status_code

        assert await place(1) == 201
        with contextlib.closing(psycopg2.connect(env["DATABASE_URL"])) as holder:
            with holder.cursor() as cursor:
                cursor.execute("SELECT * FROM changes WHERE subject_id = 1 FOR UPDATE")
            begun = time.monotonic()
            answers = await asyncio.gather(*(place(user) for user in (1, 2, 3, 1, 4)))
            assert time.monotonic() - begun < LATE_SECONDS
            assert answers == [503, 201, 201, 503, 201]
        assert await place(1) == 201


async def test_orders_of_a_user_that_is_erased_meanwhile(env: Env) -> None:
    async with running(load_settings(env)) as api:
        for user in USERS[:8]:
            placed, erased, again = await asyncio.gather(
                api.client.post(ORDERS, json={"restaurant_id": 7}, headers=api.as_user(user)),
                api.client.delete(f"/api/users/{user}", headers=api.as_service),
                api.client.post(ORDERS, json={"restaurant_id": 7}, headers=api.as_user(user)),
            )
            assert [placed.status_code, erased.status_code, again.status_code] == [201, 204, 201]


async def test_a_database_that_hangs_or_is_gone_refuses_in_time(
    private_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    from shared.db.migration import migrate

    server = private_postgres()
    settings = load_settings(
        {"DATABASE_URL": server.create_database(), "TASTEMATCH_DATA_DIR": str(tmp_path)}
    )
    migrate(settings)
    fill(settings)
    async with running(settings) as api:

        async def ask(method: str, user: int) -> tuple[int, float]:
            begun = time.monotonic()
            json_body = {"restaurant_id": 7} if method == "POST" else None
            answer = await api.client.request(
                method, ORDERS, json=json_body, headers=api.as_user(user)
            )
            if answer.status_code == 503:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"] == "database-unavailable"
                assert int(answer.headers["retry-after"]) >= 1
            return answer.status_code, time.monotonic() - begun

        assert (await ask("POST", 1))[0] == 201
        for harm in (server.pause, server.kill):
            harm()
            told = await asyncio.gather(*(ask(m, u) for u in USERS[:15] for m in ("GET", "POST")))
            assert {status for status, _ in told} == {503}
            assert max(seconds for _, seconds in told) < LATE_SECONDS
            if harm == server.pause:
                server.resume()
        server.restart()
        deadline = time.monotonic() + 10
        while (await ask("POST", 2))[0] != 201:
            assert time.monotonic() < deadline, "the database is back and not used"


@pytest.fixture
def endless(tmp_path: Path, sqlite_url: str) -> Iterator[Serving]:
    """An API whose database never comes to an end with any question about restaurants."""
    env = {"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    with contextlib.closing(sqlite3.connect(tmp_path / "tastematch.db")) as connection:
        connection.executescript(
            "ALTER TABLE restaurants RENAME TO kept;"
            "CREATE VIEW restaurants AS SELECT kept.* FROM kept, "
            "(WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
            "SELECT max(x) AS last FROM n) WHERE last > 0;"
        )
    with start_serve(env=env) as serving:
        yield serving


def test_statements_that_do_not_end_do_not_keep_the_process(endless: Serving) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            asking = stack.enter_context(socket.create_connection(("127.0.0.1", endless.port)))
            asking.sendall(b"GET /api/restaurants/7 HTTP/1.1\r\nHost: a\r\n\r\n")
        with wire(endless.port) as asked:
            late = asked.ask("/api/restaurants/7")
            assert (late.status, json.loads(late.body)["code"]) in (
                (503, "overloaded"),
                (503, "database-unavailable"),
            )
        endless.child.send(signal.SIGTERM)
        wait_until(
            lambda: not endless.child.is_running, timeout_seconds=10, describe="the API's end"
        )
        assert endless.child.exit_status == 0
