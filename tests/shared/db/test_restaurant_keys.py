"""Keys and terms of restaurants: kept by bulk writes, made by the migration for what lacks them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

import shared.db
from shared.db.engine import database_errors, sync_engine
from shared.db.migration import migrate
from shared.db.restaurant_keys import ROWS_A_BATCH, refresh_keys
from shared.db.restaurants import CatalogueFilter, catalogue_page
from shared.db.targets import RESTAURANTS
from shared.db.upserts import Staging
from shared.errors import SchemaError
from shared.settings import Settings, load_settings
from tests.services.databases import sqlite_address

# As a release writes them that knows nothing of keys.
OLD_INSERT = text(
    "INSERT INTO restaurants (id, name, cuisine_type, city, is_active) "
    "VALUES (:id, :name, :cuisine, :city, :active)"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Of a database without any table."""
    url = sqlite_address(tmp_path / "tastematch.db")
    if request.param == "postgresql":
        url = request.getfixturevalue("empty_postgres_url")
    return load_settings({"DATABASE_URL": url, "TASTEMATCH_DATA_DIR": str(tmp_path)})


@pytest.fixture
def connection(settings: Settings) -> Iterator[Connection]:
    """At the schema of the release before."""
    engine = sync_engine(settings)
    with engine.connect() as opened:
        config = Config()
        folder = Path(shared.db.__path__[0]) / "migrations"
        config.set_main_option("script_location", str(folder))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = opened
        command.upgrade(config, "0002")
        opened.commit()
        yield opened
    engine.dispose()


def insert_old(connection: Connection, names: dict[int, str]) -> None:
    rest = {"cuisine": "Café|Bar", "city": "Łódź"}
    rows = [{"id": i, "name": name, "active": i % 2 == 0} | rest for i, name in names.items()]
    connection.execute(OLD_INSERT, rows)


def terms_of(connection: Connection, restaurant_id: int) -> set[str]:
    statement = text("SELECT term FROM restaurant_terms WHERE restaurant_id = :id")
    return set(connection.execute(statement, {"id": restaurant_id}).scalars())


def test_rows_of_the_release_before_are_made_up_for(
    settings: Settings, connection: Connection
) -> None:
    count = ROWS_A_BATCH + 5
    insert_old(connection, {number: f"Zoë {number}" for number in range(1, count + 1)})
    connection.commit()

    migrate(settings)

    keys = "SELECT name_key, search_text, city_key, cuisine_keys FROM restaurants WHERE id = :id"
    for number in (1, 2, count):
        found = connection.execute(text(keys), {"id": number}).one()
        assert tuple(found) == (f"zoe {number}", f" zoe {number} cafe bar ", "lodz", "|cafe|bar|")
        shared_terms = {"zoe", "^zo", "cafe", "afe", "^ca", "bar", "^ba", "@lodz", "=cafe", "=bar"}
        found_by = {term for term in terms_of(connection, number) if not term.strip("^").isdigit()}
        assert found_by == shared_terms
    connection.rollback()

    # While releases change, the one before still writes.
    insert_old(connection, {9_000: "Late"})
    connection.execute(text("UPDATE restaurants SET name = 'Renamed' WHERE id = 1"))
    connection.commit()
    assert refresh_keys(connection) == 2
    assert "late" in terms_of(connection, 9_000)
    assert {"renamed", "cafe"} <= terms_of(connection, 1)
    assert "zoe" not in terms_of(connection, 1)
    connection.rollback()
    assert refresh_keys(connection) == 0


def test_a_schema_without_keys_is_told_as_such(connection: Connection) -> None:
    with pytest.raises(SchemaError, match="behind this release"), database_errors():
        connection.execute(
            catalogue_page(CatalogueFilter(), sort="name", after=None, by=None, limit=2)
        )


def test_bulk_writes_keep_terms(settings: Settings, connection: Connection) -> None:
    migrate(settings)
    rest = (None, None, None, None, "Rome", None, None, None, True)
    with sync_engine(settings).connect() as writer:
        staging = Staging(writer, RESTAURANTS)
        staging.add([(1, "Nonna Pia", *rest, 2), (2, "Mori", *rest, 3)])
        staging.merge()
        staging.add([(1, "Nonno Pia", *rest, 2), (2, "Mori", *rest, 3), (3, "New", *rest, 4)])
        merged = staging.merge()
        writer.commit()
        writer.engine.dispose()
    assert (merged.imported, merged.updated, merged.unchanged) == (1, 1, 1)
    assert terms_of(connection, 1) == {"nonno", "onno", "nno", "^no", "pia", "^pi", "@rome"}
    assert terms_of(connection, 2) == {"mori", "ori", "^mo", "@rome"}
    assert terms_of(connection, 3) == {"new", "^ne", "@rome"}
