"""Brings a database to the newest schema. Safe to run twice at once.

A lock lets one process at a time migrate: an advisory lock on PostgreSQL, a lock file beside the
SQLite file. A run that is killed leaves the schema as it was before it on SQLite, as it was before
the migration under way on PostgreSQL; the next run goes on from there. A database that is newer
than this release is left as it is where the two work together, as when a release is taken back, and
refused where they do not. What is derived from rows is made afterwards, in short transactions: it
goes on where a killed run left it, and other processes read and write meanwhile.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from shared.db.engine import database_errors, sync_engine
from shared.db.restaurant_keys import refresh_keys
from shared.db.schema import check_schema
from shared.errors import DatabaseUnavailable
from shared.settings import Settings

ADVISORY_LOCK = 0x7A57E  # any number that nothing else in the database uses


def migrate(settings: Settings) -> tuple[str | None, str]:
    """Migrates and returns (revision before, revision after).

    Raises DatabaseUnavailable, or SchemaError where the database is too new for this release.
    """
    engine = sync_engine(settings)
    try:
        with database_errors(), _one_at_a_time(settings), engine.connect() as connection:
            if not settings.is_sqlite:
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
                connection.commit()
            before = _revision(connection)
            scripts = ScriptDirectory.from_config(_config(connection))
            if before is not None and _is_newer(before, scripts):
                check_schema(connection)
                return before, before
            connection.rollback()
            if settings.is_sqlite:
                # The driver opens no transaction for CREATE: a kill would leave half a schema.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            command.upgrade(_config(connection), "head")
            connection.commit()
            refresh_keys(connection)
            after = scripts.get_current_head()
            assert after is not None, "there is a first migration"
            return before, after
    finally:
        engine.dispose()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _is_newer(revision: str, scripts: ScriptDirectory) -> bool:
    return revision not in {script.revision for script in scripts.walk_revisions()}


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _one_at_a_time(settings: Settings) -> Iterator[None]:
    if not settings.is_sqlite:
        yield
        return
    path = Path(f"{settings.sqlalchemy_url.database}.migrate-lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise DatabaseUnavailable(
            f"the folder of the SQLite database cannot be written ({error.strerror})"
        ) from None
