"""Snapshots in a diskcache folder: one row a chunk, small transactions, one for what moves.

Nobody waits long for another process, and a full disk keeps the version that is there: a publish
removes its own half, and pruning works in the room of a reserve. Keys and protocol are in
docs/snapshot-format.md.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from shared.errors import (
    PublishSuperseded,
    SnapshotError,
    SnapshotNotFound,
    StoreFull,
    StoreUnavailable,
)
from shared.snapshot.disk_cache import keep_reserve
from shared.snapshot.disk_rows import DiskRows
from shared.snapshot.layout import (
    Keys,
    activated,
    catalog_entries,
    decode_pointer,
    encode_pointer,
    join_chunks,
    may_activate,
    next_generation,
    read_parts,
    readable_pointer,
    superseded,
    surplus_versions,
    unpinned,
)
from shared.snapshot.manifest import Manifest, decode_manifest, encode_manifest
from shared.snapshot.store import CHUNK_BYTES, CatalogEntry, Pointer, Progress, State
from shared.snapshot.verification import verify_parts

_SPARE_BYTES = 6 * 1024**2  # SQLite's log of what is not yet in its file
_BYTES_PER_CHUNK = 8 * 1024  # row, indexes, the last page's rest
_MB = 1_000_000


class DiskStore:
    """Implements `SnapshotStore`."""

    def __init__(self, folder: Path, *, namespace: str) -> None:
        self._folder = folder
        self._keys = Keys(namespace)
        self._rows = DiskRows(folder, self._keys)

    def pointer(self) -> Pointer:
        return decode_pointer(self._rows.get(self._keys.pointer) or b"")

    def manifest(self, version: str) -> Manifest:
        # In this order: a version is struck off before its manifest is removed.
        data = self._rows.get(self._keys.manifest(version))
        if self._rows.get(self._keys.record(version)) is None:
            raise SnapshotNotFound(f"there is no snapshot {version}")
        return decode_manifest(data or b"", version=version)

    def chunks(self, manifest: Manifest, part: str) -> Iterator[bytes]:
        def fetch(number: int) -> bytes | None:
            chunk = self._rows.get(self._keys.chunk(manifest.version, part, number))
            if chunk is None and self._rows.get(self._keys.record(manifest.version)) is None:
                raise SnapshotNotFound(f"there is no snapshot {manifest.version} any more")
            return chunk

        return join_chunks(manifest, part, fetch)

    def newest_version(self) -> str | None:
        return max(self._rows.generations(), default=None)

    def hazards(self) -> list[str]:
        return []

    def versions(self) -> list[CatalogEntry]:
        seen = readable_pointer(self._rows.get(self._keys.pointer) or b"")
        return catalog_entries(self, self._rows.generations(), seen=seen)

    def activate(self, version: str, *, pin: bool) -> Pointer:
        verify_parts(self, self.manifest(version))
        generations = self._rows.generations()
        return self._move(lambda seen: activated(seen, version, generations, pin=pin))

    def unpin(self) -> Pointer:
        return self._move(unpinned)

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
        keep_reserve(self._folder)
        need = self._check_room(manifest)
        generations = self._rows.generations()
        if version in generations:
            raise PublishSuperseded(f"snapshot {version} has been published before")
        generation = next_generation(generations, seen=expected_generation)
        candidate = Pointer(version, generation, is_pinned=False)
        try:
            with self._rows.transaction() as cache:
                cache.set(self._keys.candidate(version), encode_pointer(candidate))
            self._write_parts(manifest, parts, on_progress)
            with self._rows.transaction() as cache:
                cache.set(self._keys.manifest(version), encode_manifest(manifest))
            if check is not None:
                check()
            return self._complete(
                candidate, expected_generation=expected_generation, activate=activate
            )
        except BaseException as error:
            # What cannot be removed now, the next publish sweeps.
            with suppress(StoreUnavailable, SnapshotError):
                self._discard(version)
            if isinstance(error, StoreFull):
                raise StoreFull(self._fullness(need)) from None
            raise

    def sweep(self, *, only: str | None = None) -> None:
        """Removes what belongs to no complete version."""
        complete = self._rows.generations()
        for version, names in self._rows.names_by_version().items():
            if (
                only in (None, version)
                and version not in complete
                and self._rows.with_room(partial(self._stop, version))
            ):
                self._rows.remove(names)

    def prune(self, keep: int) -> list[str]:
        active = self.pointer().version
        surplus = surplus_versions(self._rows.generations(), keep=keep, active=active)
        forgotten = [v for v in surplus if self._rows.with_room(partial(self._forget, v))]
        for version, names in self._rows.names_by_version().items():
            if version in forgotten:
                self._rows.remove(names)
        if forgotten:
            self._give_back(active)
        keep_reserve(self._folder)
        return forgotten

    def close(self) -> None:
        self._rows.close()

    # --- publishing ---

    def _write_parts(
        self, manifest: Manifest, parts: Mapping[str, Path], on_progress: Progress | None
    ) -> None:
        version, written = manifest.version, 0
        for part, number, chunk in read_parts(manifest, parts, chunk_bytes=CHUNK_BYTES):
            with self._rows.transaction() as cache:
                if cache.get(self._keys.candidate(version)) is None:
                    raise superseded(version)
                cache.set(self._keys.chunk(version, part, number), chunk)
            written += len(chunk)
            if on_progress is not None:
                on_progress(written)

    def _complete(
        self, candidate: Pointer, *, expected_generation: int | None, activate: bool
    ) -> State:
        version = candidate.version
        assert version is not None
        with self._rows.transaction() as cache:
            if not cache.delete(self._keys.candidate(version)):
                raise superseded(version)
            seen = readable_pointer(cache.get(self._keys.pointer) or b"")
            is_free = activate and may_activate(seen, expected_generation=expected_generation)
            if is_free:
                cache.set(self._keys.pointer, encode_pointer(candidate))
            generation = candidate.generation if is_free else 0
            cache.set(self._keys.record(version), b"%d" % generation)
        return "active" if is_free else "held"

    def _move(self, change: Callable[[Pointer | None], Pointer]) -> Pointer:
        def move() -> Pointer:
            with self._rows.transaction() as cache:
                seen = readable_pointer(cache.get(self._keys.pointer) or b"")
                new = change(seen)
                if new == seen or new.version is None:
                    return new
                if cache.get(self._keys.record(new.version)) is None:
                    raise SnapshotNotFound(f"there is no snapshot {new.version} any more")
                cache.set(self._keys.pointer, encode_pointer(new))
                cache.set(self._keys.record(new.version), b"%d" % new.generation)
            return new

        return self._rows.with_room(move)

    # --- removing ---

    def _discard(self, version: str) -> None:
        if self._rows.with_room(partial(self._stop, version)):
            self._rows.remove(self._rows.names_by_version().get(version, ()))
            self._give_back(None)
            keep_reserve(self._folder)

    def _stop(self, version: str) -> bool:
        """Takes an unfinished publish its candidate; False where it completed before."""
        with self._rows.transaction() as cache:
            cache.delete(self._keys.candidate(version))
            return cache.get(self._keys.record(version)) is None

    def _forget(self, version: str) -> bool:
        """Strikes a version off, whose rows are then an orphan's; never the active one."""
        with self._rows.transaction() as cache:
            if decode_pointer(cache.get(self._keys.pointer) or b"").version == version:
                return False
            return bool(cache.delete(self._keys.record(version)))

    def _give_back(self, active: str | None) -> None:
        """Returns free room to the disk, but what the next publish will need again."""
        keep_bytes = 0
        if active is not None:
            with suppress(SnapshotError):
                keep_bytes = _need_bytes(self.manifest(active))

        def shrink() -> None:
            with self._rows.opened() as cache:
                cache.give_back(keep_bytes=keep_bytes)

        # Where another process keeps the lock, the room stays in the file for later.
        with suppress(StoreUnavailable, StoreFull):
            self._rows.with_room(shrink)

    # --- room ---

    def _check_room(self, manifest: Manifest) -> int:
        """Returns the bytes that a publish needs. Raises StoreFull before one is written."""
        need = _need_bytes(manifest)
        if self._rows.room() < need:
            raise StoreFull(self._fullness(need))
        return need

    def _fullness(self, need: int) -> str:
        return (
            f"the disk is full: the snapshot needs {need / _MB:.1f} MB; free in the folder of the "
            f"store: {self._rows.room() / _MB:.1f} MB"
        )


def _need_bytes(manifest: Manifest) -> int:
    chunks = sum(1 for _ in Keys("").chunks(manifest, chunk_bytes=CHUNK_BYTES))
    return sum(manifest.bytes.values()) + chunks * _BYTES_PER_CHUNK + _SPARE_BYTES
