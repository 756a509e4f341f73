"""Snapshots for the conformance suite, and each engine seen from behind: its raw keys and bytes."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Protocol

from redis import Redis

from shared.snapshot.disk_store import DiskStore
from shared.snapshot.manifest import Manifest, new_version
from shared.snapshot.parts import describe_parts
from shared.snapshot.redis_store import RedisStore
from shared.snapshot.store import CHUNK_BYTES, Pointer, SnapshotStore, State

NAMESPACE = "shop"
SMALL = {"empty": 0, "one": 1, "users": 3_000, "lists": 2 * CHUNK_BYTES + 77}
TINY = {"users": 300, "lists": 900}


@dataclass(frozen=True, slots=True)
class Built:
    """A snapshot that is not published yet."""

    manifest: Manifest
    parts: Mapping[str, Path]

    @property
    def version(self) -> str:
        return self.manifest.version


@dataclass(slots=True)
class Builder:
    """Builds snapshots with ascending versions, each with bytes of its own."""

    folder: Path
    last: str | None = None
    seeds: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))

    def build(self, sizes: Mapping[str, int] = SMALL) -> Built:
        seed = next(self.seeds)
        folder = self.folder / str(seed)
        folder.mkdir(parents=True)
        chance = Random(seed)
        for name, size in sizes.items():
            (folder / name).write_bytes(chance.randbytes(size))
        return self.describe(folder)

    def describe(self, folder: Path) -> Built:
        counts, checksums = describe_parts(folder)
        now = datetime.now(UTC)
        self.last = new_version(now, after=self.last)
        manifest = Manifest(
            version=self.last,
            created_at=now,
            data_as_of=now,
            algorithm={"name": "popularity"},
            counts={"users": 3, "skipped": {"no-date": 1}},
            bytes=counts,
            checksums=checksums,
            metadata_version="0123456789abcdef",
            stages=[{"name": "lists", "seconds": 0.5}],
            peak_rss_mb=12.5,
        )
        return Built(manifest, {name: folder / name for name in counts})


class Engine(Protocol):
    """One kind of store, empty, of the test's own."""

    name: str

    def open(self, namespace: str = NAMESPACE) -> SnapshotStore: ...

    def raw(self) -> dict[str, bytes]:
        """Every stored key with its bytes; the entries of the version list count as keys."""

    def overwrite(self, key: str, value: bytes) -> None: ...

    def remove(self, key: str) -> None: ...


class RedisEngine:
    name = "redis"

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self, namespace: str = NAMESPACE) -> SnapshotStore:
        return RedisStore(self.url, namespace=namespace)

    def raw(self) -> dict[str, bytes]:
        found = {}
        with self._client() as client:
            for key in client.scan_iter(count=1000):
                name = key.decode()
                if client.type(key) == b"hash":
                    for entry, value in client.hgetall(key).items():
                        found[f"{name}:{entry.decode()}"] = value
                else:
                    found[name] = client.get(key)
        return found

    def overwrite(self, key: str, value: bytes) -> None:
        with self._client() as client:
            if ":versions:" in key:
                name, _, entry = key.rpartition(":")
                client.hset(name, entry, value)
            else:
                client.set(key, value)

    def remove(self, key: str) -> None:
        with self._client() as client:
            client.delete(key)

    @contextmanager
    def _client(self) -> Iterator[Redis]:
        with Redis.from_url(self.url, socket_timeout=10) as client:
            yield client


class DiskEngine:
    name = "disk"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, namespace: str = NAMESPACE) -> SnapshotStore:
        return DiskStore(self.folder, namespace=namespace)

    def raw(self) -> dict[str, bytes]:
        with self.connection() as connection:
            return dict(connection.execute("SELECT key, value FROM Cache").fetchall())

    def overwrite(self, key: str, value: bytes) -> None:
        with self.connection() as connection, connection:
            done = connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (value, key))
            if not done.rowcount:
                connection.execute(
                    "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 1, 1, ?)", (key, value)
                )

    def remove(self, key: str) -> None:
        with self.connection() as connection, connection:
            connection.execute("DELETE FROM Cache WHERE key = ?", (key,))

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.folder / "cache.db", timeout=10)) as connection:
            yield connection


def publish(store: SnapshotStore, built: Built, *, activate: bool = True) -> State:
    """Publishes as a run does that began just now."""
    return store.publish(
        built.manifest,
        built.parts,
        expected_generation=store.pointer().generation,
        activate=activate,
    )


def read_whole(store: SnapshotStore, version: str) -> None:
    """Asserts that a version is there, each part with its length and its checksum."""
    manifest = store.manifest(version)
    for part, size in manifest.bytes.items():
        digest, read = hashlib.sha256(), 0
        for chunk in store.chunks(manifest, part):
            assert 0 < len(chunk) <= CHUNK_BYTES
            digest.update(chunk)
            read += len(chunk)
        assert read == size
        assert digest.hexdigest() == manifest.checksums[part]


def states(store: SnapshotStore) -> dict[str, State]:
    return {entry.manifest.version: entry.state for entry in store.versions()}


def free_pointer(version: str, generation: int) -> Pointer:
    return Pointer(version, generation, is_pinned=False)
