"""From the database address of the settings to an engine, synchronous or asynchronous.

Drivers: psycopg2 or sqlite3 for worker and commands, asyncpg or aiosqlite for the API. Every
connection has a connect timeout; the statement timeout is the caller's, because a stream over all
orders may take minutes and a request may not.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared.errors import DatabaseUnavailable, SchemaError
from shared.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

SQLITE_BUSY_SECONDS = 10
# How long a statement of the API waits for a row, or for SQLite: within its deadline for all.
LOCK_SECONDS = 1.0
API_BUSY_SECONDS = 2
REST_SECONDS = 10.0
"""A connection of the API that rested as long is pinged before it is used again."""

# A peer that vanished without a word is noticed within half a minute, not after hours.
_KEEPALIVES = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
# Failures of the place and not of a statement, though drivers put them beside wrong statements.
_REFUSALS = ("permission denied", "file is not a database")


def sync_engine(settings: Settings, *, statement_timeout_seconds: float | None = None) -> Engine:
    """An engine for worker and commands. No statement timeout unless one is given."""
    url = settings.sqlalchemy_url
    if settings.is_sqlite:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            connect_args={"timeout": SQLITE_BUSY_SECONDS},
            hide_parameters=True,
        )
        event.listen(engine, "connect", _sqlite_preparation(SQLITE_BUSY_SECONDS, "NORMAL"))
        return engine
    connect_args: dict[str, Any] = {
        "connect_timeout": max(1, round(settings.db_connect_timeout)),
        **_KEEPALIVES,
    }
    if statement_timeout_seconds is not None:
        connect_args["options"] = f"-c statement_timeout={int(statement_timeout_seconds * 1000)}"
    return create_engine(
        url.set(drivername="postgresql+psycopg2"), connect_args=connect_args, **_pool(settings)
    )


def async_engine(settings: Settings) -> AsyncEngine:
    """The API's engine: pool, connect and statement timeouts from the settings."""
    from sqlalchemy.ext.asyncio import create_async_engine

    url = settings.sqlalchemy_url
    if settings.is_sqlite:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        from sqlalchemy.dialects.sqlite.aiosqlite import dialect

        from shared.db.quick_sqlite import connect

        url = url.set(drivername="sqlite+aiosqlite")
        arguments, options = dialect().create_connect_args(url)
        options["timeout"] = API_BUSY_SECONDS
        engine = create_async_engine(
            url,
            async_creator=lambda: connect(arguments, options),
            # A file has no connection to lose, and asking it costs as much as a statement.
            **_pool(settings) | {"pool_pre_ping": False},
        )
        # What is confirmed to somebody survives a loss of power too.
        event.listen(engine.sync_engine, "connect", _sqlite_preparation(API_BUSY_SECONDS, "FULL"))
        return engine
    url, ssl_args = _asyncpg_ssl(url)
    milliseconds = str(int(settings.db_statement_timeout * 1000))
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        connect_args={
            "timeout": settings.db_connect_timeout,
            "command_timeout": settings.db_statement_timeout,
            "server_settings": {
                "statement_timeout": milliseconds,
                "lock_timeout": str(int(LOCK_SECONDS * 1000)),
            },
            **ssl_args,
        },
        **_pool(settings),
    )
    _ping_after_rest(engine)
    return engine


@contextmanager
def database_errors() -> Iterator[None]:
    """Turns driver errors into ours. Raises DatabaseUnavailable or SchemaError."""
    try:
        yield
    except (PoolTimeoutError, TimeoutError, OSError) as error:
        raise DatabaseUnavailable(f"the database does not answer ({_kind(error)})") from None
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else ""
        if "no such table" in reason or _sql_state(error.orig) == UNDEFINED_TABLE:
            raise SchemaError("the database has no tables yet: run `tastematch migrate`") from None
        if "no such column" in reason or _sql_state(error.orig) == UNDEFINED_COLUMN:
            raise SchemaError(
                "the database schema is behind this release: run `tastematch migrate`"
            ) from None
        is_unusable = isinstance(error, OperationalError) or error.connection_invalidated
        if is_unusable or any(mark in reason for mark in _REFUSALS):
            raise DatabaseUnavailable(
                f"the database at DATABASE_URL cannot be used ({_brief(reason)})"
            ) from None
        raise


def _ping_after_rest(engine: AsyncEngine) -> None:
    """Lets `pool_pre_ping` ask only connections that have rested.

    SQLAlchemy's ping of asyncpg is three round trips, more than most transactions have besides. A
    connection that its server has closed is known without asking; what is left is a peer that
    vanished without a word within REST_SECONDS, which the statement's own deadline finds.
    """
    dialect = engine.sync_engine.dialect
    ask = dialect.do_ping
    used_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    def note(connection: Any, _record: object) -> None:
        if connection is not None:
            used_at[connection.driver_connection] = time.monotonic()

    def ping(connection: Any) -> bool:
        driver = connection.driver_connection
        if driver.is_closed():
            return False
        has_rested = time.monotonic() - used_at.get(driver, 0.0) > REST_SECONDS
        return ask(connection) if has_rested else True

    event.listen(engine.sync_engine, "checkin", note)
    dialect.do_ping = ping  # type: ignore[assignment, method-assign]


def _brief(reason: str) -> str:
    """The driver's first line, without the host, user and database names it may repeat."""
    lowered = reason.lower()
    for mark, meaning in (
        ("password authentication failed", "password refused"),
        ("no pg_hba.conf entry", "access refused by the server"),
        ("does not support ssl", "the server offers no TLS"),
        ("connection refused", "connection refused"),
        ("could not translate host name", "unknown host"),
        ("timeout expired", "connect timeout"),
        ("statement timeout", "statement timeout"),
        ("does not exist", "no such database or role"),
        ("too many clients", "too many connections"),
        ("database is locked", "database is locked"),
        ("disk is full", "disk is full"),
        ("readonly database", "read-only"),
        ("unable to open database file", "the file cannot be opened"),
        ("file is not a database", "the file is no database"),
        ("permission denied", "permission denied"),
    ):
        if mark in lowered:
            return meaning
    return "connection lost"


def _sql_state(error: object) -> str | None:
    """PostgreSQL's five characters, by whichever driver: psycopg2 calls them otherwise."""
    state: str | None = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state


def _kind(error: object) -> str:
    return type(error).__name__


def _pool(settings: Settings) -> dict[str, Any]:
    return {
        "hide_parameters": True,  # a traceback repeats no address and no name
        "pool_size": settings.db_pool_size,
        "max_overflow": settings.db_max_overflow,
        "pool_timeout": settings.db_pool_timeout,
        "pool_recycle": settings.db_pool_recycle,
        "pool_pre_ping": True,
    }


def _asyncpg_ssl(url: URL) -> tuple[URL, dict[str, Any]]:
    """asyncpg takes `ssl=`, not libpq's `sslmode`."""
    mode = url.query.get("sslmode")
    args: dict[str, Any] = {} if mode is None else {"ssl": mode}
    return url.difference_update_query(["sslmode", "sslrootcert", "application_name"]), args


def _sqlite_preparation(busy_seconds: float, synchronous: str) -> Callable[[Any, object], None]:
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={synchronous}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA busy_timeout={int(busy_seconds * 1000)}")
        cursor.close()

    return prepare
