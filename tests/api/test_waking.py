"""Waking the worker after orders: seldom, beside the requests, and at nobody's expense."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import insert

from api.waking import WAKE_SECONDS
from shared.db.engine import sync_engine
from shared.db.models import Restaurant
from shared.metrics import render
from shared.settings import Settings, load_settings
from tests.api.overlays import until
from tests.api.running import Api, running
from tests.services.redis import RedisServer

ORDERS = 40


@pytest.fixture
def shop(sqlite_url: str, tmp_path: Path) -> Callable[[str], Settings]:
    """Settings of a shop with one restaurant and a Redis at an address."""

    def settings_with(redis_url: str) -> Settings:
        settings = load_settings(
            {
                "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
                "DATABASE_URL": sqlite_url,
                "REDIS_URL": redis_url,
            }
        )
        engine = sync_engine(settings)
        with engine.begin() as connection:
            connection.execute(insert(Restaurant).values(id=7, name="seven"))
        engine.dispose()
        return settings

    return settings_with


async def place(api: Api, user: int) -> None:
    body = {"restaurant_id": 7}
    answer = await api.client.post("/api/orders", json=body, headers=api.as_user(user))
    assert answer.status_code == 201, answer.text


def failures() -> float:
    name = b"tastematch_refresh_wakes_failed_total "
    (line,) = [line for line in render()[0].splitlines() if line.startswith(name)]
    return float(line.split()[1])


async def test_many_orders_are_one_wake_up_in_a_while(
    shop: Callable[[str], Settings], private_redis: Callable[..., RedisServer]
) -> None:
    server = private_redis()
    settings = shop(server.url())
    queue = f"{settings.namespace}:arq:queue"
    with Redis.from_url(server.url()) as client:
        async with running(settings) as api:
            await place(api, 1)
            await until(lambda: client.zcard(queue) == 1)
            assert client.delete(queue) == 1
            client.config_resetstat()
            begun = time.monotonic()
            for user in range(ORDERS):
                await place(api, user)
            await until(lambda: _connections_used(client) > 0)
            seconds = time.monotonic() - begun
            assert _connections_used(client) <= seconds / WAKE_SECONDS + 2
            await until(lambda: client.zcard(queue) <= 1)


def _connections_used(client: Redis) -> int:
    """How often somebody began to put a message into the queue."""
    stats = client.info("commandstats")
    return int(stats.get("cmdstat_watch", {}).get("calls", 0))


async def test_a_dead_queue_costs_no_order(
    shop: Callable[[str], Settings], private_redis: Callable[..., RedisServer]
) -> None:
    server = private_redis()
    async with running(shop(server.url())) as api:
        server.kill()
        before = failures()
        begun = time.monotonic()
        for user in range(5):
            await place(api, user)
        assert time.monotonic() - begun < 1
        await until(lambda: failures() > before)
        listed = await api.client.get("/api/orders", headers=api.as_user(4))
        assert len(listed.json()["items"]) == 1
