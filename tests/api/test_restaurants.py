"""Restaurants: those like one and what is popular from memory, and databases that do not answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from shared.db.engine import sync_engine
from shared.settings import Settings
from shared.snapshot.store import SnapshotStore
from tests.api.running import BEYOND_JAVASCRIPT, OSAKA, POPULAR, Api, running
from tests.services.postgres import PostgresServer


async def test_a_database_without_tables_is_503(settings: Settings, tmp_path: Path) -> None:
    empty = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'empty.db'}"})
    async with running(empty) as api:
        response = await api.client.get("/api/restaurants/7")
        assert response.status_code == 503
        assert response.json()["code"] == "database-schema"
        ready = (await api.client.get("/ready")).json()
        assert ready["checks"]["database"] == "not-migrated"


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.stop()


async def test_a_database_that_hangs_or_is_gone_costs_only_what_needs_it(
    own_postgres: PostgresServer, api: Api, tmp_path: Path
) -> None:
    url = own_postgres.create_database()
    settings = api.settings.model_copy(update={"database_url": url})
    async with running(settings) as started:
        await started.serves(api.resources.snapshots.require_active().version)
        client = started.client
        assert (await client.get("/ready")).json()["checks"]["database"] == "not-migrated"

        for harm in (own_postgres.pause, own_postgres.kill):
            harm()
            await _until_down(started)
            begun = time.monotonic()
            detail = await client.get("/api/restaurants/101")
            assert time.monotonic() - begun < 5
            assert detail.status_code == 503
            assert detail.json()["code"] == "database-unavailable"
            assert "retry-after" in detail.headers
            assert url not in detail.text
            begun = time.monotonic()
            assert (await client.get("/health")).status_code == 200
            lists = await client.get("/api/recommendations", headers=started.as_user(1))
            assert lists.status_code == 200
            assert (await client.get("/api/restaurants/101/similar")).status_code == 200
            assert time.monotonic() - begun < 2
            if harm == own_postgres.pause:
                own_postgres.resume()

        own_postgres.restart()
        deadline = time.monotonic() + 10
        while (await client.get("/api/restaurants/101")).json()["code"] != "database-schema":
            assert time.monotonic() < deadline, "the database is back and not used"


async def test_a_database_without_free_connections_is_503(
    own_postgres: PostgresServer, settings: Settings
) -> None:
    url = own_postgres.create_database()
    held = []
    with contextlib.suppress(psycopg2.OperationalError):
        for _ in range(200):
            held.append(psycopg2.connect(url))
    async with running(settings.model_copy(update={"database_url": url})) as api:
        response = await api.client.get("/api/restaurants/7")
        assert response.status_code == 503
        assert response.json()["code"] == "database-unavailable"
    for connection in held:
        connection.close()


async def _until_down(api: Api) -> None:
    """`/ready` says so, and never takes long to say anything."""
    deadline = time.monotonic() + 5
    while True:
        begun = time.monotonic()
        ready = await api.client.get("/ready")
        assert time.monotonic() - begun < 4
        assert ready.status_code == 200
        if ready.json()["checks"]["database"] == "down":
            assert ready.json()["status"] == "degraded"
            assert ready.json()["checks"]["worker"] == "unknown"
            return
        assert time.monotonic() < deadline, ready.json()


# --- from the snapshot ------------------------------------------------------------------------


async def test_similar_ones(api: Api) -> None:
    response = await api.client.get("/api/restaurants/105/similar")
    assert response.json() == [102, 103]
    assert (await api.client.get("/api/restaurants/105/similar?limit=1")).json() == [102]
    nothing = await api.client.get(f"/api/restaurants/{BEYOND_JAVASCRIPT}/similar")
    assert nothing.json() == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *[(text, 404) for text in ("1", "9223372036854775807")],
        *[(text, 422) for text in ("9223372036854775808", "x", "105", "-1")],
    ],
)
async def test_similar_to_what_is_not_there(api: Api, path: str, status: int) -> None:
    query = "?limit=51" if path == "105" else ""
    response = await api.client.get(f"/api/restaurants/{path}/similar{query}")
    assert response.status_code == status


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", POPULAR[:20]),
        ("?limit=50", POPULAR[:50]),
        ("?city=Osaka", OSAKA[:20]),
        ("?city=osaka&limit=3", OSAKA[:3]),
        ("?city=%20Osaka%20&limit=2", OSAKA[:2]),
        ("?city=Atlantis", ()),
        ("?city=%25", ()),
        ("?city=' OR 1=1--", ()),
        ("?city=%E2%80%AE", ()),
    ],
)
async def test_what_is_popular(api: Api, query: str, expected: tuple[int, ...]) -> None:
    response = await api.client.get(f"/api/lists/popular{query}")
    assert response.status_code == 200
    assert response.json() == list(expected)


@pytest.mark.parametrize(
    "query",
    [
        *("city=", "city=%00", "city=%ED%A0%80", f"city={'x' * 10_000}", "city=a&city=b"),
        *("cuisine=", "price_range=1", "limit=0", "limit=51"),
    ],
)
async def test_what_is_popular_takes_no_other_parameters(api: Api, query: str) -> None:
    assert (await api.client.get(f"/api/lists/popular?{query}")).status_code == 422


@pytest.mark.parametrize("path", ["/api/lists/popular?limit=3", "/api/restaurants/105/similar"])
async def test_public_lists_have_the_cache_rules_of_the_metadata(api: Api, path: str) -> None:
    metadata = await api.client.get("/api/restaurants/metadata")
    whole = await api.client.get(path)
    for name in ("cache-control", "vary", "x-snapshot-version", "x-metadata-version"):
        assert whole.headers[name] == metadata.headers[name]
    again = await api.client.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == whole.headers["cache-control"]
    head = await api.client.head(path)
    assert head.headers["content-length"] == str(len(whole.content))
    tags = {
        (await api.client.get(other)).headers["etag"]
        for other in ("/api/lists/popular", "/api/lists/popular?city=Osaka", path)
    }
    assert len(tags) == 3


async def test_before_the_first_snapshot(empty_api: Api) -> None:
    for path in ("/api/lists/popular", "/api/restaurants/105/similar"):
        response = await empty_api.client.get(path)
        assert response.status_code == 503
        assert response.json()["code"] == "snapshot-unavailable"


async def test_workers_show_in_readiness(api: Api, store: SnapshotStore) -> None:
    from shared.jobs import workers
    from shared.jobs.clock import database_time

    assert (await api.client.get("/ready")).json()["checks"]["worker"] == "down"
    worker = workers.Worker(id="w1", kind="embedded", host="here", pid=1)
    engine = sync_engine(api.settings)
    with engine.begin() as connection:
        workers.beat(connection, worker, state="idle", now=database_time(connection))
    engine.dispose()
    deadline = time.monotonic() + 5
    while (ready := (await api.client.get("/ready")).json())["checks"]["worker"] != "ok":
        assert time.monotonic() < deadline, ready
    assert ready["status"] == "ready"
    snapshot = api.resources.snapshots.require_active()
    assert ready["checks"]["snapshot"]["version"] == snapshot.version
    assert ready["checks"]["snapshot"]["age_seconds"] >= 0
    api.resources.lifecycle.is_draining = True
    draining = await api.client.get("/ready")
    assert draining.status_code == 503
    assert draining.json()["status"] == "unavailable"
