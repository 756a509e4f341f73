"""What a page of orders asks of the database: two statements, for what an ORM would load."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks.orm_orders import page, shown
from shared.db.engine import sync_engine
from shared.db.migration import migrate
from shared.db.models import Order, Restaurant, User
from shared.settings import Settings, load_settings
from tests.api.running import Api, running
from tests.services.postgres import PostgresServer

USER = 42
ORDERS = 120


def filled(env: dict[str, str]) -> Settings:
    """A user with many orders in a migrated database."""
    settings = load_settings(env)
    engine = sync_engine(settings)
    chance = random.Random(7)
    start = datetime(2025, 1, 1, tzinfo=UTC)
    with engine.begin() as connection:
        connection.execute(insert(Restaurant), [{"id": n, "name": f"r{n}"} for n in range(1, 31)])
        connection.execute(insert(User).values(id=USER))
        rows = [
            {
                "id": chance.randrange(2**53),
                "user_id": USER,
                "restaurant_id": chance.randint(1, 30),
                "order_date": start + timedelta(seconds=chance.randrange(60)),
                "total_amount": chance.choice((None, n / 8)),
                "rating": chance.choice((None, 4.5)),
            }
            for n in range(ORDERS)
        ]
        connection.execute(insert(Order), rows)
    engine.dispose()
    return settings


async def get(api: Api, query: str) -> dict[str, Any]:
    answer = await api.client.get(f"/api/orders{query}", headers=api.as_user(USER))
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


async def count_statements(settings: Settings, told: Callable[[], list[str]]) -> None:
    async with running(settings) as api:
        cursor = (await get(api, "?limit=1"))["next_cursor"]
        for query in ("?limit=1", "?limit=20", "?limit=50", f"?limit=50&cursor={cursor}"):
            before = len(told())
            await get(api, query)
            words = [(text.split() or [""])[0].strip(";") for text in told()[before:]]
            assert words == ["SELECT", "SELECT"]  # no ping, no transaction


async def test_a_page_takes_two_statements_of_sqlite(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = filled({"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")})
    traced: list[str] = []
    connect = sqlite3.connect

    def connect_traced(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **named)
        if str(arguments[0]).endswith(settings.sqlalchemy_url.database or "?"):
            connection.set_trace_callback(traced.append)  # not those of the snapshot store
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_traced)
    await count_statements(settings, lambda: list(traced))


async def test_a_page_takes_two_statements_of_postgresql(
    private_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    server = private_postgres(settings={"log_statement": "all"})
    env = {"DATABASE_URL": server.create_database(), "TASTEMATCH_DATA_DIR": str(tmp_path)}
    migrate(load_settings(env))
    said = re.compile(r"(?:statement|execute [^:]*): (.*)")
    await count_statements(filled(env), lambda: said.findall(server.child.stderr()))


async def test_pages_hold_what_an_orm_would_load(database_url: str, tmp_path: Path) -> None:
    settings = filled({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")})
    async with running(settings) as api:
        engine = await api.resources.open_engine()
        async with AsyncSession(engine) as session:
            expected = [shown(order) for order in await page(session, USER, ORDERS)]
        found: list[dict[str, Any]] = []
        query = "?limit=50"
        while True:
            document = await get(api, query)
            found += document["items"]
            if document["next_cursor"] is None:
                break
            query = f"?limit=50&cursor={document['next_cursor']}"
    for order in found:
        order["order_date"] = datetime.fromisoformat(order["order_date"])
    assert found == expected
    assert len(found) == ORDERS
