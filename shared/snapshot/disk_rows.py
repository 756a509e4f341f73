"""Rows of a diskcache folder: read, listed, removed, in transactions that end whole or not at all.

A folder that was replaced under a running process is opened anew. Every error leaves as one of
ours.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from shared.errors import SnapshotDamaged, StoreFull, StoreUnavailable
from shared.snapshot.disk_cache import (
    SnapshotCache,
    open_cache,
    translated_errors,
    with_room,
)
from shared.snapshot.layout import Keys, parse_generation
from shared.snapshot.manifest import is_version

_ROWS_PER_REMOVAL = 16

T = TypeVar("T")


class DiskRows:
    """Opens the folder at the first call. Threads share it, each with a connection of its own."""

    def __init__(self, folder: Path, keys: Keys) -> None:
        self._folder = folder
        self._keys = keys
        self._lock = threading.Lock()
        self._cache: SnapshotCache | None = None
        self._file_id: tuple[int, int] | None = None

    def get(self, name: str) -> bytes | None:
        with self.opened() as cache:
            value: bytes | None = cache.get(name)
            return value

    def generations(self) -> dict[str, int]:
        """Each complete version with the generation at which it was last activated, or 0."""
        start = f"{self._keys.versions}:"
        with self.opened() as cache:
            versions = [n.removeprefix(start) for n in cache.names() if n.startswith(start)]
        records = {v: self.get(self._keys.record(v)) for v in versions if is_version(v)}
        return {v: parse_generation(r) for v, r in records.items() if r is not None}

    def names_by_version(self) -> dict[str, list[str]]:
        """All rows that a publish wrote, complete or not."""
        found: dict[str, list[str]] = {}
        with self.opened() as cache:
            for name in cache.names():
                if version := self._keys.version_of(name):
                    found.setdefault(version, []).append(name)
        return found

    def remove(self, names: Iterable[str]) -> None:
        """In transactions of a few rows."""
        remaining = iter(names)
        while batch := list(islice(remaining, _ROWS_PER_REMOVAL)):
            self.with_room(partial(self._remove, batch))

    def room(self) -> int:
        """Bytes that can still be written: free on the disk, and inside the file."""
        with self.opened() as cache:
            disk = os.statvfs(self._folder)
            return disk.f_bavail * disk.f_frsize + cache.free_bytes()

    def with_room(self, action: Callable[[], T]) -> T:
        """On a full disk, too, where `action` removes something."""

        def empty_log() -> None:
            with self.opened() as cache:
                cache.empty_log()

        return with_room(self._folder, action, make_room=empty_log)

    @contextmanager
    def transaction(self) -> Iterator[SnapshotCache]:
        with self.opened() as cache, cache.transact():
            yield cache

    @contextmanager
    def opened(self) -> Iterator[SnapshotCache]:
        """Not to be nested: an error closes the thread's connection."""
        cache = self._current()
        try:
            with translated_errors():
                yield cache
        except (StoreFull, StoreUnavailable, SnapshotDamaged):
            # A commit that failed leaves its transaction open; the next call connects anew.
            cache.close()
            raise

    def close(self) -> None:
        with self._lock:
            if self._cache is not None:
                self._cache.close()
                self._cache = None

    def _remove(self, names: Iterable[str]) -> None:
        with self.transaction() as cache:
            for name in names:
                cache.delete(name)

    def _current(self) -> SnapshotCache:
        with self._lock:
            if self._cache is None or self._file_id != self._found_id():
                self._cache = open_cache(self._folder)
                self._file_id = self._found_id()
            return self._cache

    def _found_id(self) -> tuple[int, int] | None:
        with suppress(OSError):
            found = os.stat(self._folder / "cache.db")
            return found.st_dev, found.st_ino
        return None
