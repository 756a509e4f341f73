"""Whether the database answers and a worker is alive, asked without SQLAlchemy.

A process that serves snapshots needs no more of the database than this, and would hold 20 MB for
it.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from shared.database_address import DatabaseAddress
from shared.errors import DatabaseUnavailable, SchemaError
from shared.jobs.liveness import COUNT_POSTGRESQL, COUNT_SQLITE
from shared.settings import Settings

if TYPE_CHECKING:
    from asyncpg import Connection

SQLITE_BUSY_SECONDS = 1.0

_NO_TABLES = "the database has no tables yet: run `tastematch migrate`"


class WorkerCount:
    """Asks one question at a time. Whoever asks sets the deadline, by cancelling.

    The connection ends with the answer: none is taken from requests for longer than that.
    """

    def __init__(self, settings: Settings) -> None:
        self._address = settings.database_address
        self._connect_timeout = settings.db_connect_timeout
        self._thread: asyncio.Future[int] | None = None

    async def ask(self) -> int:
        """How many workers were seen lately. Raises DatabaseUnavailable, SchemaError."""
        if self._address.scheme == "sqlite":
            return await self._ask_sqlite()
        return await self._ask_postgresql()

    async def _ask_postgresql(self) -> int:
        import asyncpg

        try:
            connection = await _connected(self._address, self._connect_timeout)
            try:
                count: int = await connection.fetchval(COUNT_POSTGRESQL)
                await connection.close()
            finally:
                connection.terminate()  # at once, whatever state it is in
            return count
        except asyncpg.UndefinedTableError:
            raise SchemaError(_NO_TABLES) from None
        except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
            name = type(error).__name__
            raise DatabaseUnavailable(f"the database does not answer ({name})") from None

    async def _ask_sqlite(self) -> int:
        if self._thread is not None and not self._thread.done():
            raise DatabaseUnavailable("the file of the database does not answer")
        path = Path(self._address.database or "")
        self._thread = asyncio.ensure_future(asyncio.to_thread(_count_in_file, path))
        return await asyncio.shield(self._thread)


async def _connected(address: DatabaseAddress, timeout_seconds: float) -> Connection:
    import asyncpg

    connection: Connection = await asyncpg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        database=address.database,
        ssl=address.query.get("sslmode"),
        timeout=timeout_seconds,
        statement_cache_size=0,  # a pooler in front of the server may hand out another one
    )
    return connection


def _count_in_file(path: Path) -> int:
    import sqlite3

    if not path.exists():
        raise SchemaError(_NO_TABLES)
    # Never makes a file where there is none.
    address = f"file:{quote(str(path.absolute()))}?mode=rw"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=SQLITE_BUSY_SECONDS)) as connection:
            count: int = connection.execute(COUNT_SQLITE).fetchone()[0]
            return count
    except sqlite3.Error as error:
        if "no such table" in str(error):
            raise SchemaError(_NO_TABLES) from None
        raise DatabaseUnavailable(
            f"the database does not answer ({type(error).__name__})"
        ) from None
