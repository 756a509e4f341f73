"""Bulk upserts: what became of each row, and that equal rows are not written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError

from shared.db.engine import sync_engine
from shared.db.models import User
from shared.db.targets import USERS
from shared.db.upserts import Merged, Staging
from shared.settings import load_settings

ROWS = [
    (1, "Ada", None, "Rome", 2),
    (2, "tab\t\\N\r\n", "a@b", None, 3),
    (2**63 - 1, "", "", "", 4),
]


@pytest.fixture
def engine(database_url: str, tmp_path: Path) -> Iterator[Engine]:
    settings = load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    engine = sync_engine(settings)
    yield engine
    engine.dispose()


def test_each_row_is_new_changed_or_equal(engine: Engine) -> None:
    with engine.connect() as connection:
        staging = Staging(connection, USERS)
        assert staging.merge() == Merged(0, 0, 0, ())
        staging.add(ROWS[:1])
        staging.add(ROWS[1:])
        assert staging.count == 3
        assert staging.merge() == Merged(3, 0, 0, ())
        connection.commit()
        assert staging.count == 0
        staging.add([(0, "New", None, None, 2), (1, "Ada", "", "Rome", 3), ROWS[1]])
        assert staging.merge() == Merged(1, 1, 1, ())
        connection.commit()
        stored = connection.execute(select(User.id, User.name, User.email, User.city))
        assert sorted(tuple(row) for row in stored) == [
            (0, "New", None, None),
            (1, "Ada", "", "Rome"),
            ROWS[1][:4],
            ROWS[2][:4],
        ]


def test_nothing_is_written_for_equal_rows(engine: Engine) -> None:
    is_sqlite = engine.dialect.name == "sqlite"
    # What changes with any write: the version of the file; who wrote or locked a row.
    marks = text("PRAGMA data_version" if is_sqlite else "SELECT id, xmin, xmax, ctid FROM users")
    with engine.connect() as connection, engine.connect() as watcher:
        staging = Staging(connection, USERS)
        staging.add(ROWS)
        staging.merge()
        connection.commit()
        before = watcher.execute(marks).all()
        watcher.rollback()
        staging.add(ROWS)
        assert staging.merge() == Merged(0, 0, 3, ())
        connection.commit()
        assert watcher.execute(marks).all() == before


def test_an_error_of_the_bulk_load_is_one_of_the_database(engine: Engine) -> None:
    with engine.connect() as connection:
        staging = Staging(connection, USERS)
        with pytest.raises(DBAPIError):
            staging.add([(1, "Ada", None, "Rome", None)])
