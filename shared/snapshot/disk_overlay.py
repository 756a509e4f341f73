"""The overlay in a SQLite file beside the snapshots: bytes only, short transactions.

The file is `overlay.db` in the folder of the store; a file that was replaced under a running
process is opened anew. Every error leaves as one of ours. Tables are in docs/snapshot-format.md.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from shared.errors import SnapshotDamaged, StoreFull, StoreUnavailable
from shared.snapshot.disk_cache import LOCK_SECONDS, drop_reserve, keep_reserve, translated_errors
from shared.snapshot.overlay import (
    ENTRY_BYTES,
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    READ_BYTES,
    Entry,
    seal,
    unseal,
)

FILE_NAME = "overlay.db"

_ROWS_PER_REMOVAL = 1000
_PAGES_PER_STEP = 512  # of one transaction that shrinks the file: 2 MB
_MAX_ROW_BYTES = MAX_RECORD_BYTES + 64 * 1024
_DAMAGED = "the overlay's file is damaged"

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
_FIND = "SELECT number, last, bytes FROM logs WHERE namespace = ? AND name = ?"
_BEGIN = "INSERT INTO logs (namespace, name, last, bytes) VALUES (?, ?, 0, 0)"
_KEEP = "UPDATE logs SET last = ?, bytes = ? WHERE number = ?"
_WRITE = """
    INSERT INTO records (log, key, place, record) VALUES (?, ?, ?, ?)
    ON CONFLICT (log, key) DO UPDATE SET place = excluded.place, record = excluded.record
"""
_READ = """
    SELECT place, CAST(key AS BLOB), record FROM records
    WHERE log = ? AND place > ? ORDER BY place LIMIT ?
"""
_LENGTH = "SELECT length(record) FROM records WHERE log = ? AND key = ?"
_REMOVE = "DELETE FROM records WHERE log = ? AND key = ?"
_NAMES = "SELECT name FROM logs WHERE namespace = ? AND name IS NOT NULL ORDER BY name"
_STRIKE_OFF = "UPDATE logs SET name = NULL WHERE namespace = ? AND name = ?"
_DROPPED = "SELECT number FROM logs WHERE name IS NULL"
_EMPTY = """
    DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE log = ? LIMIT ?)
"""
_FORGET = "DELETE FROM logs WHERE number = ?"

T = TypeVar("T")


class DiskOverlay:
    """Implements `OverlayWriter`. Opens the file at the first call; threads may share it."""

    def __init__(self, folder: Path, *, namespace: str) -> None:
        self._folder = folder
        self._namespace = namespace
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file_id: tuple[int, int] | None = None

    def read(self, log: str, *, after: int, limit: int) -> list[Entry]:
        with self._opened() as connection:
            found = connection.execute(_FIND, (self._namespace, log)).fetchone()
            if found is None:
                return []
            rows = connection.execute(_READ, (found[0], after, min(limit, MAX_RECORDS)))
            return list(_entries(rows))

    def append(self, log: str, records: Mapping[str, bytes]) -> int:
        assert 0 < len(records) <= MAX_RECORDS
        with self._transaction() as connection:
            number, last, size = self._find_or_begin(connection, log)
            place = max(last + 1, time.time_ns() // 1000) - 1
            for key, record in records.items():
                place += 1
                sealed = seal(key, record)
                size += _entry_bytes(key, sealed) - _stored_bytes(connection, number, key)
                connection.execute(_WRITE, (number, key, place, sealed))
            connection.execute(_KEEP, (place, max(size, 0), number))
            return place

    def logs(self) -> list[str]:
        with self._opened() as connection:
            return [str(name) for (name,) in connection.execute(_NAMES, (self._namespace,))]

    def size_bytes(self, log: str) -> int:
        with self._opened() as connection:
            found = connection.execute(_FIND, (self._namespace, log)).fetchone()
            return 0 if found is None else _number(found[2])

    def remove(self, log: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _ROWS_PER_REMOVAL):
            batch = keys[start : start + _ROWS_PER_REMOVAL]
            self._with_room(partial(self._remove, log, batch))

    def drop(self, log: str) -> None:
        self._with_room(partial(self._strike_off, log))
        # Also what an earlier drop left, that was killed on its way.
        while self._with_room(self._empty_dropped):
            pass
        self._give_back()
        keep_reserve(self._folder)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # --- logs ---

    def _find_or_begin(self, connection: sqlite3.Connection, log: str) -> tuple[int, int, int]:
        found = connection.execute(_FIND, (self._namespace, log)).fetchone()
        if found is None:
            number = connection.execute(_BEGIN, (self._namespace, log)).lastrowid
            assert number is not None
            return number, 0, 0
        return found[0], _number(found[1]), _number(found[2])

    def _remove(self, log: str, keys: Sequence[str]) -> None:
        with self._transaction() as connection:
            found = connection.execute(_FIND, (self._namespace, log)).fetchone()
            if found is None:
                return
            number, last, size = found[0], _number(found[1]), _number(found[2])
            for key in keys:
                size -= _stored_bytes(connection, number, key)
                connection.execute(_REMOVE, (number, key))
            connection.execute(_KEEP, (last, max(size, 0), number))

    def _strike_off(self, log: str) -> None:
        with self._transaction() as connection:
            connection.execute(_STRIKE_OFF, (self._namespace, log))

    def _empty_dropped(self) -> bool:
        """One step; False where nothing is left to do."""
        with self._transaction() as connection:
            dropped = connection.execute(_DROPPED).fetchone()
            if dropped is None:
                return False
            removed = connection.execute(_EMPTY, (dropped[0], _ROWS_PER_REMOVAL)).rowcount
            if removed < _ROWS_PER_REMOVAL:
                connection.execute(_FORGET, dropped)
            return True

    def _give_back(self) -> None:
        """Returns free room to the disk; where another process keeps the lock, later."""
        with suppress(StoreUnavailable, StoreFull), self._opened() as connection:
            while free := _pragma(connection, "freelist_count"):
                connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_PER_STEP})")
                if _pragma(connection, "freelist_count") >= free:
                    break
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # --- the file ---

    def _with_room(self, action: Callable[[], T]) -> T:
        """On a full disk even a removal needs a little room: that of the log, or the reserve."""
        with suppress(StoreFull):
            return action()
        with suppress(StoreFull), self._opened() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with suppress(StoreFull):
            return action()
        drop_reserve(self._folder)
        try:
            return action()
        except StoreFull as error:
            raise StoreUnavailable(error.message) from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """One thread at a time. An error closes the connection, and so ends its transaction."""
        with self._lock:
            try:
                connection = self._current()
                with translated_errors():
                    yield connection
            except BaseException:
                self.close()
                raise

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
        deadline, has_reserve = time.monotonic() + LOCK_SECONDS, True
        while True:
            try:
                with translated_errors():
                    return _connect(self._folder / FILE_NAME)
            except StoreFull:
                if not has_reserve:
                    raise
                drop_reserve(self._folder)
                has_reserve = False
            except StoreUnavailable as error:
                if "locked" not in error.message or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)

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


def _entries(rows: sqlite3.Cursor) -> Iterator[Entry]:
    room = READ_BYTES
    for count, (place, key, sealed) in enumerate(rows):
        if not isinstance(key, bytes) or not isinstance(sealed, bytes):
            raise SnapshotDamaged(_DAMAGED)
        room -= len(sealed)
        if count and room < 0:
            return
        name = key.decode("ascii", "replace")
        yield Entry(_number(place), name, unseal(name, sealed))


def _number(value: object) -> int:
    if type(value) is not int:
        raise SnapshotDamaged(_DAMAGED)
    return value


def _entry_bytes(key: str, sealed: bytes) -> int:
    return len(key) + len(sealed) + ENTRY_BYTES


def _stored_bytes(connection: sqlite3.Connection, log: int, key: str) -> int:
    found = connection.execute(_LENGTH, (log, key)).fetchone()
    return 0 if found is None else len(key) + _number(found[0]) + ENTRY_BYTES


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
