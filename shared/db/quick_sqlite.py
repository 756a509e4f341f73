"""SQLite for the API's event loop: one trip to the connection's thread for each statement.

aiosqlite runs a connection in a thread of its own, and goes there once each for making a cursor,
executing, fetching and closing. A trip costs as much as a short statement, since two threads take
turns. Here a statement is executed, fetched whole and closed in one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

import aiosqlite
from aiosqlite.context import Result

Rows = list[Any]


class QuickConnection(aiosqlite.Connection):
    """A connection of aiosqlite whose cursors take one trip a statement, for SQLAlchemy alone."""

    def cursor(self) -> Result[Any]:
        return Result(self._quick_cursor())

    async def _quick_cursor(self) -> QuickCursor:
        return QuickCursor(self)


class QuickCursor:
    """What SQLAlchemy asks of a cursor; rows are fetched when the statement is executed."""

    def __init__(self, connection: QuickConnection) -> None:
        self._quick = connection
        self._rows: Rows = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def execute(self, sql: str, parameters: Iterable[Any] = ()) -> QuickCursor:
        return await self._run("execute", sql, parameters)

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> QuickCursor:
        return await self._run("executemany", sql, parameters)

    async def fetchall(self) -> Rows:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

    async def _run(self, method: str, sql: str, parameters: Iterable[Any]) -> QuickCursor:
        def run(connection: sqlite3.Connection) -> Rows:
            cursor = connection.cursor()
            try:
                getattr(cursor, method)(sql, parameters)
                self.description = cursor.description
                rows = [] if cursor.description is None else cursor.fetchall()
                self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
                return rows
            finally:
                cursor.close()

        trip: Any = self._quick._execute(run, self._quick._conn)  # type: ignore[no-untyped-call]
        self._rows = await trip
        return self


async def connect(arguments: Iterable[Any], options: Mapping[str, Any]) -> aiosqlite.Connection:
    """`arguments` and `options` are those of `sqlite3.connect`."""
    connection = QuickConnection(lambda: sqlite3.connect(*arguments, **options), iter_chunk_size=64)
    connection._thread.daemon = True  # a statement that hangs must not keep the process
    return await connection
