"""Each kind of overlay, and what stands behind it: its stored bytes, emptied and altered."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

from redis import Redis

from shared.snapshot.disk_overlay import DiskOverlay
from shared.snapshot.disk_overlay_file import FILE_NAME
from shared.snapshot.overlay import OverlayWriter
from shared.snapshot.redis_overlay import OverlayKeys, RedisOverlay

NAMESPACE = "shop"


class OverlayEngine(Protocol):
    """One kind of overlay, empty, of the test's own."""

    def open(self, namespace: str = NAMESPACE) -> OverlayWriter: ...

    def clear(self) -> None:
        """As if the store had lost all it had."""

    def stored(self, log: str, key: str) -> bytes: ...

    def overwrite(self, log: str, key: str, value: bytes | str) -> None: ...


class RedisOverlayEngine:
    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = OverlayKeys(NAMESPACE)

    def open(self, namespace: str = NAMESPACE) -> OverlayWriter:
        return RedisOverlay(self.url, namespace=namespace)

    def clear(self) -> None:
        with Redis.from_url(self.url) as client:
            client.flushdb()

    def stored(self, log: str, key: str) -> bytes:
        with Redis.from_url(self.url) as client:
            value: bytes = client.hget(self.keys.records(log), key)
        return value

    def overwrite(self, log: str, key: str, value: bytes | str) -> None:
        with Redis.from_url(self.url) as client:
            client.hset(self.keys.records(log), key, value)


class DiskOverlayEngine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, namespace: str = NAMESPACE) -> OverlayWriter:
        return DiskOverlay(self.folder, namespace=namespace)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def stored(self, log: str, key: str) -> bytes:
        with closing(self.connection()) as connection:
            found = connection.execute(
                "SELECT record FROM records JOIN logs ON number = log WHERE name = ? AND key = ?",
                (log, key),
            )
            value: bytes = found.fetchone()[0]
        return value

    def overwrite(self, log: str, key: str, value: bytes | str) -> None:
        with closing(self.connection()) as connection, connection:
            connection.execute(
                "UPDATE records SET record = ? WHERE key = ? "
                "AND log = (SELECT number FROM logs WHERE name = ?)",
                (value, key, log),
            )

    def connection(self) -> sqlite3.Connection:
        return sqlite3.connect(self.folder / FILE_NAME, timeout=10)
