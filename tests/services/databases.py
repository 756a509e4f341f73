"""Databases for tests: one of a test's own, migrated or empty, on SQLite and on PostgreSQL.

The migrations run once per session and engine, into a template; a test gets a copy.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.postgres import PostgresDatabases, database_name


@pytest.fixture(scope="session")
def postgres_template(
    postgres: PostgresDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of a migrated database, to be copied only: nobody may stay connected to it."""
    url = postgres.create_database(prefix="tastematch_template")
    try:
        _migrate(url, tmp_path_factory.mktemp("postgres"))
        yield database_name(url)
    finally:
        postgres.drop_database(url)


@pytest.fixture
def postgres_url(postgres: PostgresDatabases, postgres_template: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    url = postgres.create_database(template=postgres_template)
    try:
        yield url
    finally:
        postgres.drop_database(url)


@pytest.fixture
def empty_postgres_url(postgres: PostgresDatabases) -> Iterator[str]:
    """A database of the test's own without any table."""
    url = postgres.create_database()
    try:
        yield url
    finally:
        postgres.drop_database(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied only."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    _migrate(sqlite_address(path), path.parent)
    # A connection left open keeps rows in the log beside the file, which a copy would miss.
    assert not path.with_name(f"{path.name}-wal").exists(), "migrate left a connection open"
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite file of the test's own."""
    path = tmp_path / "tastematch.db"
    shutil.copyfile(sqlite_template, path)
    return sqlite_address(path)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own; the test runs once on each engine."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


def sqlite_address(path: Path) -> str:
    """Returns the URL of a SQLite file."""
    return f"sqlite:///{path.absolute()}"


def _migrate(url: str, data_folder: Path) -> None:
    # Imported late, so that a fault in the product fails the tests that need it, not all.
    from shared.db.migration import migrate
    from shared.settings import load_settings

    migrate(load_settings({"DATABASE_URL": url, "TASTEMATCH_DATA_DIR": str(data_folder)}))
