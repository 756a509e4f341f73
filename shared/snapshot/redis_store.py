"""Snapshots in Redis 6.2 or newer, or Valkey: one string a chunk, a hash of complete versions.

No command holds the server for long, and none is waited for without an end. A full server keeps
the version it has: a publish removes its own half and says what is missing. Keys and protocol are
in docs/snapshot-format.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

from shared.errors import PublishSuperseded, SnapshotNotFound, StoreFull, StoreUnavailable
from shared.snapshot.layout import (
    Keys,
    activated,
    catalog_entries,
    decode_pointer,
    join_chunks,
    may_activate,
    next_generation,
    read_parts,
    readable_pointer,
    superseded,
    surplus_versions,
    unpinned,
)
from shared.snapshot.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    decode_manifest,
    encode_manifest,
)
from shared.snapshot.redis_connection import RedisConnection
from shared.snapshot.redis_index import GONE, MOVED, RedisIndex
from shared.snapshot.store import CHUNK_BYTES, CatalogEntry, Pointer, Progress, State
from shared.snapshot.verification import verify_parts

# With Redis' own header a string of 512 KiB would take an allocation of 640 KiB.
WRITE_CHUNK_BYTES = CHUNK_BYTES - 64
SPARE_SHARE = 0.05  # of the memory limit: left to the queue, which lives on the same server

_CHUNKS_PER_WRITE = 4
_KEYS_PER_REMOVAL = 16  # one command frees at most 8 MB
_KEYS_PER_COUNT = 500
_BYTES_PER_KEY = 256  # name, dictionary entry, allocator's rounding
_MB = 1_000_000


class RedisStore:
    """Implements `SnapshotStore`."""

    def __init__(self, url: str, *, namespace: str) -> None:
        self._keys = Keys(namespace)
        self._connection = RedisConnection(url)
        self._index = RedisIndex(self._connection, self._keys)

    def pointer(self) -> Pointer:
        return decode_pointer(self._index.pointer_bytes())

    def manifest(self, version: str) -> Manifest:
        # In this order: a version is struck off before its manifest is removed.
        data, is_complete = self._connection.read(
            ("GETRANGE", self._keys.manifest(version), 0, MAX_MANIFEST_BYTES),
            ("HEXISTS", self._keys.versions, version),
        )
        if not is_complete:
            raise SnapshotNotFound(f"there is no snapshot {version}")
        return decode_manifest(data, version=version)

    def chunks(self, manifest: Manifest, part: str) -> Iterator[bytes]:
        def fetch(number: int) -> bytes | None:
            key = self._keys.chunk(manifest.version, part, number)
            (chunk,) = self._connection.read(("GETRANGE", key, 0, CHUNK_BYTES))
            if chunk:
                return bytes(chunk)
            (is_complete,) = self._connection.read(
                ("HEXISTS", self._keys.versions, manifest.version)
            )
            if not is_complete:
                raise SnapshotNotFound(f"there is no snapshot {manifest.version} any more")
            return None

        return join_chunks(manifest, part, fetch)

    def newest_version(self) -> str | None:
        return max(self._index.generations(), default=None)

    def hazards(self) -> list[str]:
        policy = self._connection.memory().policy
        if policy in ("", "noeviction"):
            return []
        lost = "queued jobs" if policy.startswith("volatile") else "parts of snapshots, queued jobs"
        return [
            f"when Redis is full it drops {lost} without a word (maxmemory-policy {policy}): "
            "set noeviction"
        ]

    def versions(self) -> list[CatalogEntry]:
        seen = readable_pointer(self._index.pointer_bytes())
        return catalog_entries(self, self._index.generations(), seen=seen)

    def activate(self, version: str, *, pin: bool) -> Pointer:
        verify_parts(self, self.manifest(version))
        return self._move(lambda seen: activated(seen, version, self._index.generations(), pin=pin))

    def unpin(self) -> Pointer:
        return self._move(unpinned)

    def _move(self, change: Callable[[Pointer | None], Pointer]) -> Pointer:
        """Repeats `change` until nobody else moves the pointer meanwhile."""
        while True:
            data = self._index.pointer_bytes()
            seen = readable_pointer(data)
            new = change(seen)
            if new == seen:
                return new
            outcome = self._index.move(new, seen=data)
            if outcome == GONE:
                raise SnapshotNotFound(f"there is no snapshot {new.version} any more")
            if outcome != MOVED:
                return new

    def publish(
        self,
        manifest: Manifest,
        parts: Mapping[str, Path],
        *,
        expected_generation: int | None,
        activate: bool,
        sweep_others: bool = True,
        on_progress: Progress | None = None,
        check: Callable[[], None] | None = None,
    ) -> State:
        version = manifest.version
        self.sweep(only=None if sweep_others else version)
        need = self._check_room(manifest)
        generations = self._index.generations()
        if version in generations:
            raise PublishSuperseded(f"snapshot {version} has been published before")
        generation = next_generation(generations, seen=expected_generation)
        try:
            if not self._index.begin(Pointer(version, generation, is_pinned=False)):
                raise PublishSuperseded(f"snapshot {version} is being published already")
            self._write_parts(manifest, parts, on_progress)
            self._connection.write(("SET", self._keys.manifest(version), encode_manifest(manifest)))
            self._check_presence(manifest)
            if check is not None:
                check()
            return self._complete(
                version, generation, expected_generation=expected_generation, activate=activate
            )
        except BaseException as error:
            with suppress(StoreUnavailable):  # then the next publish sweeps
                self._discard(manifest)
            if isinstance(error, StoreFull):
                raise StoreFull(self._fullness(need)) from None
            raise

    def sweep(self, *, only: str | None = None) -> None:
        """Removes what belongs to no complete version."""
        complete = self._index.generations()
        for version, names in self._index.keys_by_version().items():
            if only in (None, version) and version not in complete and self._index.stop(version):
                self._remove(names)

    def prune(self, keep: int) -> list[str]:
        active = self.pointer().version
        surplus = surplus_versions(self._index.generations(), keep=keep, active=active)
        forgotten = [version for version in surplus if self._index.forget(version)]
        if forgotten:
            for version, names in self._index.keys_by_version().items():
                if version in forgotten:
                    self._remove(names)
        return forgotten

    def close(self) -> None:
        self._connection.close()

    def _discard(self, manifest: Manifest) -> None:
        if self._index.stop(manifest.version):
            self._remove(self._names(manifest))

    def _write_parts(
        self, manifest: Manifest, parts: Mapping[str, Path], on_progress: Progress | None
    ) -> None:
        version, written = manifest.version, 0
        chunks = read_parts(manifest, parts, chunk_bytes=WRITE_CHUNK_BYTES)
        while batch := list(islice(chunks, _CHUNKS_PER_WRITE)):
            if not self._index.is_going_on(version):
                raise superseded(version)
            self._connection.write(
                *(("SET", self._keys.chunk(version, part, n), chunk) for part, n, chunk in batch)
            )
            written += sum(len(chunk) for _, _, chunk in batch)
            if on_progress is not None:
                on_progress(written)

    def _check_presence(self, manifest: Manifest) -> None:
        """A server that evicts may have dropped what was written a moment ago."""
        names = list(self._names(manifest))
        found = 0
        for start in range(0, len(names), _KEYS_PER_COUNT):
            batch = names[start : start + _KEYS_PER_COUNT]
            (count,) = self._connection.read(("EXISTS", *batch))
            found += count
        if found != len(names) and self._index.is_going_on(manifest.version):
            raise StoreUnavailable(
                f"Redis dropped {len(names) - found} of {len(names)} keys that were just written: "
                "its maxmemory-policy must be noeviction"
            )

    def _complete(
        self, version: str, generation: int, *, expected_generation: int | None, activate: bool
    ) -> State:
        while True:
            data = self._index.pointer_bytes()
            seen = readable_pointer(data)
            is_free = activate and may_activate(seen, expected_generation=expected_generation)
            outcome = self._index.complete(
                version, generation=generation if is_free else 0, seen=data
            )
            if outcome == GONE:
                raise superseded(version)
            if outcome != MOVED:
                return "active" if is_free else "held"

    def _check_room(self, manifest: Manifest) -> int:
        """Returns the bytes that a publish needs. Raises StoreFull before one is written."""
        keys = sum(1 for _ in self._names(manifest))
        need = sum(manifest.bytes.values()) + keys * _BYTES_PER_KEY + MAX_MANIFEST_BYTES
        memory = self._connection.memory()
        if memory.limit and memory.used + need > memory.limit * (1 - SPARE_SHARE):
            raise StoreFull(self._fullness(need))
        return need

    def _fullness(self, need: int) -> str:
        memory = self._connection.memory()
        free = max(0, int(memory.limit * (1 - SPARE_SHARE)) - memory.used)
        return (
            f"Redis is full: the snapshot needs {need / _MB:.1f} MB, and {free / _MB:.1f} MB of "
            f"its limit (maxmemory) of {memory.limit / _MB:.1f} MB are left for snapshots"
        )

    def _names(self, manifest: Manifest) -> Iterator[str]:
        yield self._keys.manifest(manifest.version)
        yield from self._keys.chunks(manifest, chunk_bytes=WRITE_CHUNK_BYTES)

    def _remove(self, names: Iterable[str]) -> None:
        remaining = iter(names)
        while batch := list(islice(remaining, _KEYS_PER_REMOVAL)):
            self._connection.write(("UNLINK", *batch))
