"""The overlay in a SQLite file beside the snapshots: bytes only, short transactions.

What a log is and how it is kept; `disk_overlay_file.py` opens the file.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from shared.errors import SnapshotDamaged
from shared.snapshot.disk_overlay_file import OverlayFile
from shared.snapshot.overlay import (
    ENTRY_BYTES,
    MAX_RECORDS,
    READ_BYTES,
    Entry,
    seal,
    unseal,
)

_ROWS_PER_REMOVAL = 1000
_DAMAGED = "the overlay's file is damaged"

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


class DiskOverlay:
    """Implements `OverlayWriter`. Opens the file at the first call; threads may share it."""

    def __init__(self, folder: Path, *, namespace: str) -> None:
        self._file = OverlayFile(folder)
        self._namespace = namespace

    def read(self, log: str, *, after: int, limit: int) -> list[Entry]:
        with self._file.opened() as connection:
            found = connection.execute(_FIND, (self._namespace, log)).fetchone()
            if found is None:
                return []
            rows = connection.execute(_READ, (found[0], after, min(limit, MAX_RECORDS)))
            return list(_entries(rows))

    def append(self, log: str, records: Mapping[str, bytes]) -> int:
        assert 0 < len(records) <= MAX_RECORDS
        with self._file.transaction() as connection:
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
        with self._file.opened() as connection:
            return [str(name) for (name,) in connection.execute(_NAMES, (self._namespace,))]

    def size_bytes(self, log: str) -> int:
        with self._file.opened() as connection:
            found = connection.execute(_FIND, (self._namespace, log)).fetchone()
            return 0 if found is None else _number(found[2])

    def remove(self, log: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _ROWS_PER_REMOVAL):
            batch = keys[start : start + _ROWS_PER_REMOVAL]
            self._file.with_room(partial(self._remove, log, batch))

    def drop(self, log: str) -> None:
        self._file.with_room(partial(self._strike_off, log))
        # Also what an earlier drop left, that was killed on its way.
        while self._file.with_room(self._empty_dropped):
            pass
        self._file.give_back()

    def close(self) -> None:
        self._file.close()

    # --- logs ---

    def _find_or_begin(self, connection: sqlite3.Connection, log: str) -> tuple[int, int, int]:
        found = connection.execute(_FIND, (self._namespace, log)).fetchone()
        if found is None:
            number = connection.execute(_BEGIN, (self._namespace, log)).lastrowid
            assert number is not None
            return number, 0, 0
        return found[0], _number(found[1]), _number(found[2])

    def _remove(self, log: str, keys: Sequence[str]) -> None:
        with self._file.transaction() as connection:
            found = connection.execute(_FIND, (self._namespace, log)).fetchone()
            if found is None:
                return
            number, last, size = found[0], _number(found[1]), _number(found[2])
            for key in keys:
                size -= _stored_bytes(connection, number, key)
                connection.execute(_REMOVE, (number, key))
            connection.execute(_KEEP, (last, max(size, 0), number))

    def _strike_off(self, log: str) -> None:
        with self._file.transaction() as connection:
            connection.execute(_STRIKE_OFF, (self._namespace, log))

    def _empty_dropped(self) -> bool:
        """One step; False where nothing is left to do."""
        with self._file.transaction() as connection:
            dropped = connection.execute(_DROPPED).fetchone()
            if dropped is None:
                return False
            removed = connection.execute(_EMPTY, (dropped[0], _ROWS_PER_REMOVAL)).rowcount
            if removed < _ROWS_PER_REMOVAL:
                connection.execute(_FORGET, dropped)
            return True


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
