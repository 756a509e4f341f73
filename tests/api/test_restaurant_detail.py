"""One restaurant in full, from the database, on each engine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import insert

from shared.db.engine import sync_engine
from shared.db.models import Restaurant
from shared.settings import load_settings
from tests.api.running import BEYOND_JAVASCRIPT, FULL, Api, running
from tests.services.databases import sqlite_address
from tests.services.postgres import PostgresDatabases

# No test changes what the database holds: all ask the same API, in its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def catalogue(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    """An API over a database with a few restaurants, on each engine."""
    folder = tmp_path_factory.mktemp("catalogue")
    if request.param == "sqlite":
        file = shutil.copyfile(request.getfixturevalue("sqlite_template"), folder / "tastematch.db")
        url = sqlite_address(Path(file))
    else:
        postgres: PostgresDatabases = request.getfixturevalue("postgres")
        url = postgres.create_database(template=request.getfixturevalue("postgres_template"))
    settings = load_settings({"TASTEMATCH_DATA_DIR": str(folder / "data"), "DATABASE_URL": url})
    engine = sync_engine(settings)
    with engine.begin() as connection:
        for row in (
            FULL,
            {"id": 8, "name": "closed", "is_active": False},
            {"id": 0, "name": "first"},
            {"id": BEYOND_JAVASCRIPT, "name": "beyond"},
            {"id": BEYOND_JAVASCRIPT - 1, "name": "just below"},
            {"id": 2**63 - 1, "name": "last"},
            {"id": 2**31, "name": "wide"},
        ):
            connection.execute(insert(Restaurant).values(row))
    engine.dispose()
    async with running(settings) as api:
        yield api
    if request.param == "postgresql":
        postgres.drop_database(url)


async def test_every_column_a_visitor_may_see(catalogue: Api) -> None:
    response = await catalogue.client.get("/api/restaurants/7")
    assert response.status_code == 200
    assert response.json() == FULL


@pytest.mark.parametrize(
    ("text", "status"),
    [
        *[(str(known), 200) for known in (0, 7, 2**31, BEYOND_JAVASCRIPT, 2**63 - 1)],
        *[(text, 404) for text in ("8", "9", "2147483647", "9223372036854775806")],
        *[(text, 422) for text in ("9223372036854775808", "-1", "1e3", "7.0", "+7", "1_0", "%207")],
        *[(text, 422) for text in ("%D9%A7", "%00", "%ED%A0%80", "7%00", "nan", "' OR 1=1--", "%")],
        ("1" + "0" * 30, 422),
        ("9" * 5_000, 422),
        ("7?x=1", 422),
        ("7/", 404),
    ],
)
async def test_ids_in_the_path(catalogue: Api, text: str, status: int) -> None:
    response = await catalogue.client.get(f"/api/restaurants/{text}")
    assert response.status_code == status
    if status == 200:
        assert response.text.startswith(f'{{"id":{text},')
    else:
        assert response.headers["content-type"] == "application/problem+json"


async def test_the_detail_is_validated_and_asked_for_again(catalogue: Api) -> None:
    whole = await catalogue.client.get("/api/restaurants/7")
    assert whole.headers["cache-control"] == "public, no-cache"
    headers = {"If-None-Match": f"W/{whole.headers['etag']}"}
    again = await catalogue.client.get("/api/restaurants/7", headers=headers)
    assert (again.status_code, again.content) == (304, b"")
    other = await catalogue.client.get("/api/restaurants/0", headers=headers)
    assert other.status_code == 200
