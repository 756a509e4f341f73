"""The SQLite file of the overlay: opened with patience, on a full disk too, anew where replaced.

Every error leaves as one of ours. Tables are in docs/snapshot-format.md.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from shared.errors import StoreFull, StoreUnavailable
from shared.snapshot.disk_cache import (
    LOCK_SECONDS,
    drop_reserve,
    empty_log,
    keep_reserve,
    patiently,
    shrink,
    translated_errors,
    with_room,
)
from shared.snapshot.overlay import MAX_RECORD_BYTES

FILE_NAME = "overlay.db"

_MAX_ROW_BYTES = MAX_RECORD_BYTES + 64 * 1024

# A log that was dropped has no name, and its number is never given again.
_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS logs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        namespace TEXT NOT NULL,
        name TEXT,
        last INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        UNIQUE (namespace, name)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS records (
        log INTEGER NOT NULL,
        key TEXT NOT NULL,
        place INTEGER NOT NULL,
        record BLOB NOT NULL,
        UNIQUE (log, key),
        UNIQUE (log, place)
    )
    """,
)

T = TypeVar("T")


class OverlayFile:
    """Opens the file at the first call; threads may share it, and take turns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file_id: tuple[int, int] | None = None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self.opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """One thread at a time. An error closes the connection, and so ends its transaction."""
        with self._lock:
            try:
                connection = self._current()
                with translated_errors():
                    yield connection
            except BaseException:
                self.close()
                raise

    def with_room(self, action: Callable[[], T]) -> T:
        """On a full disk, too, where `action` removes something."""

        def make_room() -> None:
            with self.opened() as connection:
                empty_log(connection)

        try:
            return with_room(self._folder, action, make_room=make_room)
        except StoreFull as error:
            raise StoreUnavailable(error.message) from None

    def give_back(self) -> None:
        """Returns free room to the disk; where another process keeps the lock, later."""
        with suppress(StoreUnavailable, StoreFull), self.opened() as connection:
            shrink(connection, keep_bytes=0)
        keep_reserve(self._folder)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _current(self) -> sqlite3.Connection:
        if self._connection is None or self._file_id != self._found_id():
            self.close()
            with translated_errors():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = self._with_patience()
            self._file_id = self._found_id()
        return self._connection

    def _with_patience(self) -> sqlite3.Connection:
        """Processes that make the file at once refuse each other without waiting."""
        connect = partial(_connect, self._folder / FILE_NAME)
        with suppress(StoreFull), translated_errors():
            return patiently(connect)
        drop_reserve(self._folder)
        with translated_errors():
            return patiently(connect)

    def _found_id(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = os.stat(self._folder / FILE_NAME)
            return found.st_dev, found.st_ino
        return None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_ROW_BYTES)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        connection.execute("PRAGMA cache_size = -1024")
        # Asked first: what follows writes, also where it changes nothing.
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                connection.execute(table)
            connection.execute("COMMIT")
            keep_reserve(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection
