"""The readiness check's own way to the database counts what SQLAlchemy's statements see."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from api.worker_count import WorkerCount
from shared.db.engine import sync_engine
from shared.errors import DatabaseUnavailable, SchemaError
from shared.jobs import workers
from shared.jobs.clock import database_time
from shared.settings import load_settings
from tests.services.children import wait_until
from tests.services.databases import sqlite_address

OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database()
"""
AGES = (0, 0.5, 29, 31, 3000)  # seconds


async def test_the_same_workers_are_alive(database_url: str, tmp_path: Path) -> None:
    settings = load_settings({"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    count = WorkerCount(settings)
    assert await count.ask() == 0
    engine = sync_engine(settings)
    with engine.begin() as connection:
        now = database_time(connection)
        for number, age in enumerate(AGES):
            worker = workers.Worker(id=f"w{number}", kind="arq", host="one", pid=number)
            workers.beat(connection, worker, state="idle", now=now - timedelta(seconds=age))
    with engine.connect() as connection:
        seen = len(workers.seen(connection, now=database_time(connection)))
    assert await count.ask() == seen == 3
    if not settings.is_sqlite:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            wait_until(
                lambda: connection.execute(text(OTHERS)).scalar_one() == 0,
                timeout_seconds=5,
                describe="the end of the connection",
            )
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE workers"))
    with pytest.raises(SchemaError, match="tastematch migrate"):
        await count.ask()
    engine.dispose()


async def test_what_is_no_database(tmp_path: Path) -> None:
    def counting(url: str) -> WorkerCount:
        return WorkerCount(
            load_settings({"DATABASE_URL": url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
        )

    missing = tmp_path / "missing ?#%41.db"
    with pytest.raises(SchemaError):
        await counting("sqlite:///" + str(missing).replace("%", "%25").replace("?", "%3F")).ask()
    assert not missing.exists()
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database, but longer than the header of one\n" * 50)
    for url in (
        sqlite_address(tmp_path),
        sqlite_address(notes),
        "postgresql://nobody:SECRET@127.0.0.1:9/nothing",
    ):
        with pytest.raises(DatabaseUnavailable) as caught:
            await counting(url).ask()
        assert "SECRET" not in caught.value.message
