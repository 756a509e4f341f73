"""The one way to open the diskcache folder: bytes only, nothing evicted, no wait without an end.

diskcache unpickles what it finds, evicts from 1 GB on, writes large values into files of their own
and waits a minute for a lock; every opener of a folder must therefore go through `open_cache`. The
class overrides two private properties of diskcache 5.6, whose last release is of 2023.
"""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import diskcache
from diskcache.core import MODE_RAW

from shared.errors import SnapshotDamaged, StoreFull, StoreUnavailable
from shared.snapshot.store import CHUNK_BYTES

LOCK_SECONDS = 2.0
RESERVE_BYTES = 4 * 1024**2

_MAX_ROW_BYTES = CHUNK_BYTES + 64 * 1024
_RESERVE_NAME = "reserve"
_LEFT_BYTES = 256 * 1024  # what a reserve leaves to others at least
_STEP_PAGES = 512  # of one transaction that shrinks the file: 2 MB
_FOREIGN_VALUE = b"?"
_DAMAGED = "the snapshot store's file is damaged"
_SETTINGS = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "statistics": 0,
    "tag_index": 0,
    "disk_min_file_size": 2**31 - 1,
    "sqlite_auto_vacuum": 2,  # free pages are reused, or given back in steps
    "sqlite_cache_size": -1024,  # KiB a thread
    "sqlite_journal_mode": "wal",
    "sqlite_journal_size_limit": 4 * 1024**2,
    "sqlite_mmap_size": 0,
    "sqlite_secure_delete": 0,  # else a removal writes every page that it frees
    "sqlite_synchronous": 1,
    "sqlite_wal_autocheckpoint": 1000,  # pages: 4 MB of log
}
# SQLite's codes for a write that the disk or a quota refuses; the last: no room for shared memory.
_FULL_CODES = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
)
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


T = TypeVar("T")


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Text keys and byte values, both inside the database; touches no file beside it.

    What no publish wrote (a pickle, the name of a file) reads as a value that fails every check.
    """

    def put(self, key: object) -> tuple[str, bool]:
        assert type(key) is str
        return key, True

    def get(self, key: object, raw: object) -> str:
        raise NotImplementedError("keys are listed by SnapshotCache.names")

    def store(
        self, value: object, read: object, key: object = None
    ) -> tuple[int, int, None, object]:
        assert type(value) is bytes
        assert not read
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:
        is_ours = mode == MODE_RAW and filename is None and isinstance(value, bytes)
        return value if is_ours and isinstance(value, bytes) else _FOREIGN_VALUE

    def remove(self, file_path: object) -> None:
        """A found row may name any file of the machine."""


class SnapshotCache(diskcache.Cache):  # type: ignore[misc]
    """A diskcache that waits `LOCK_SECONDS` for a lock and reads no value of unbounded length."""

    def __init__(self, folder: Path) -> None:
        try:
            super().__init__(str(folder), timeout=LOCK_SECONDS, disk=BytesDisk, **_SETTINGS)
        except BaseException:
            self.close()
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = super()._con
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_ROW_BYTES)
        return connection

    @property
    def _sql_retry(self) -> Callable[..., sqlite3.Cursor]:
        execute = self._con.execute

        def execute_with_patience(statement: str, *arguments: Any) -> sqlite3.Cursor:
            return patiently(lambda: execute(statement, *arguments))

        return execute_with_patience

    def names(self) -> list[str]:
        """All keys of ours. Those that a damaged file garbles match no name that we look for."""
        rows = self._con.execute("SELECT CAST(key AS BLOB) FROM Cache WHERE raw = 1").fetchall()
        return [bytes(name).decode("utf-8", "replace") for (name,) in rows]

    def free_bytes(self) -> int:
        """Room inside the database file that the next writes take first."""
        return pragma(self._con, "freelist_count") * pragma(self._con, "page_size")

    def give_back(self, *, keep_bytes: int) -> None:
        shrink(self._con, keep_bytes=keep_bytes)

    def empty_log(self) -> None:
        empty_log(self._con)


def open_cache(folder: Path) -> SnapshotCache:
    """Makes the folder, mode 0700, where it is missing. Raises StoreUnavailable, StoreFull.

    Opening writes a little: on a full disk it takes the room of the reserve.
    """
    with translated_errors():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(StoreFull):
        return _open(folder)
    drop_reserve(folder)
    cache = _open(folder)
    keep_reserve(folder)
    return cache


def keep_reserve(folder: Path) -> None:
    """Holds back some room, for the day when a full disk must be freed; not the last there is."""
    path = folder / _RESERVE_NAME
    with suppress(OSError):
        disk = os.statvfs(folder)
        is_scarce = disk.f_bavail * disk.f_frsize < RESERVE_BYTES + _LEFT_BYTES
        if is_scarce or (path.exists() and path.stat().st_size == RESERVE_BYTES):
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            path.unlink()


def drop_reserve(folder: Path) -> None:
    """Gives the room of the reserve to whoever writes next; nothing where there is none."""
    with suppress(OSError):
        (folder / _RESERVE_NAME).unlink()


def with_room(folder: Path, action: Callable[[], T], *, make_room: Callable[[], object]) -> T:
    """On a full disk even a removal needs a little room: that of the log, or the reserve."""
    with suppress(StoreFull):
        return action()
    with suppress(StoreFull):
        make_room()
    with suppress(StoreFull):
        return action()
    drop_reserve(folder)
    return action()


def shrink(connection: sqlite3.Connection, *, keep_bytes: int) -> None:
    """Shrinks the file in short transactions until `keep_bytes` of free room are left."""
    kept = keep_bytes // pragma(connection, "page_size")
    while (free := pragma(connection, "freelist_count")) > kept:
        pages = min(free - kept, _STEP_PAGES)
        # `execute` would stop after one page.
        connection.executescript(f"PRAGMA incremental_vacuum({pages})")
        if pragma(connection, "freelist_count") >= free:
            break
    empty_log(connection)


def empty_log(connection: sqlite3.Connection) -> None:
    """Moves all that SQLite logged into its file, and gives the log's room back."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def pragma(connection: sqlite3.Connection, name: str) -> int:
    ((value,),) = connection.execute(f"PRAGMA {name}").fetchall()
    return int(value)


def patiently(action: Callable[[], T]) -> T:
    """Does it again for LOCK_SECONDS while another process keeps it from the file."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            is_locked = _primary_code(error) == sqlite3.SQLITE_BUSY
            if not is_locked or time.monotonic() > deadline:
                raise
        time.sleep(0.005)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises StoreFull, StoreUnavailable or SnapshotDamaged in the place of what SQLite raises."""
    try:
        yield
    except (diskcache.Timeout, sqlite3.Error, OSError) as error:
        raise _translation(_origin(error)) from None
    except UnicodeDecodeError:
        raise SnapshotDamaged(_DAMAGED) from None


def _open(folder: Path) -> SnapshotCache:
    with translated_errors():
        try:
            return SnapshotCache(folder)
        except (AttributeError, TypeError, ValueError):
            # diskcache takes the settings that it finds in the file without a look.
            raise SnapshotDamaged(_DAMAGED) from None


def _origin(error: BaseException) -> BaseException:
    """What went wrong first.

    diskcache calls each failure to begin a transaction a time-out, and tries to roll back what
    SQLite has rolled back already.
    """
    while isinstance(error.__context__, sqlite3.Error):
        error = error.__context__
    return error


def _translation(error: BaseException) -> Exception:
    code = getattr(error, "sqlite_errorcode", 0)
    if code in _FULL_CODES or (isinstance(error, OSError) and error.errno in _FULL_ERRNOS):
        return StoreFull("the disk is full")
    if isinstance(error, OSError):
        return StoreUnavailable(f"the snapshot store cannot be opened ({error.strerror})")
    primary = _primary_code(error)
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG):
        return SnapshotDamaged(_DAMAGED)
    reason = {
        sqlite3.SQLITE_BUSY: "locked by another process",
        sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
        sqlite3.SQLITE_READONLY: "its file or folder is read-only",
    }.get(primary, "its file cannot be read or written")
    return StoreUnavailable(f"the snapshot store does not work: {reason}")


def _primary_code(error: BaseException) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
