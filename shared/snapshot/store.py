"""The seam between the snapshot and where it is kept: one Protocol for each role.

The API holds a `SnapshotReader`, a precompute a `SnapshotPublisher`, an operator's commands and
routes a `SnapshotCatalog`. `redis_store.py` and `disk_store.py` implement all three;
`opening.py` chooses. All calls are synchronous and bounded in time; the API makes them in a
thread, never while a request waits.

What every store keeps to:
- A version is visible complete, or not at all; the active pointer moves in one atomic step.
- No single stored value is larger than `CHUNK_BYTES`.
- `generation` grows with every activation, of the active version too. A publish names the
  generation it saw when its run began; if an operator activated since, the new version is held.
- Bytes only: nothing that is read from a store is ever unpickled.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from shared.snapshot.manifest import Manifest

CHUNK_BYTES = 512 * 1024

State = Literal["active", "held", "kept"]
Progress = Callable[[int], None]  # told the bytes written so far


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where readers look. `version` is None before the first activation."""

    version: str | None
    generation: int
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    manifest: Manifest
    state: State


class SnapshotReader(Protocol):
    def pointer(self) -> Pointer:
        """Raises StoreUnavailable; SnapshotDamaged where the pointer cannot be read."""

    def manifest(self, version: str) -> Manifest:
        """Raises StoreUnavailable, SnapshotNotFound, SnapshotDamaged, SnapshotUnsupported."""

    def chunks(self, manifest: Manifest, part: str) -> Iterator[bytes]:
        """The part's bytes in order, each at most CHUNK_BYTES.

        The total length equals `manifest.bytes[part]`; the checksum is the reader's to verify.
        Raises StoreUnavailable; SnapshotNotFound once pruned; SnapshotDamaged where a chunk is
        missing or has another length.
        """

    def close(self) -> None: ...


class SnapshotPublisher(Protocol):
    def pointer(self) -> Pointer: ...

    def newest_version(self) -> str | None:
        """The highest version ever completed that is still kept, active or not."""

    def hazards(self) -> list[str]:
        """What may take from the store what was published, one line each.

        Empty also where the store does not tell. Raises StoreUnavailable.
        """

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
        """Writes all parts and the manifest, then makes the version visible and moves the pointer.

        Sweeps what unfinished publishes left behind before it writes; with `sweep_others` false,
        of this version alone, so that a run that publishes meanwhile is left in peace. The pointer
        stays where it is, and the new version is held, when `activate` is false, the pointer is
        pinned, or its generation is not `expected_generation`, which is None where the run found
        the pointer damaged: then the version is held only if somebody repaired it since. A pointer
        that is gone is set anew, unless `activate` is false. `check` is called right before the
        version becomes visible; what it raises aborts the publish.
        Raises StoreUnavailable, StoreFull, PublishSuperseded (a later publish swept this one),
        SnapshotDamaged (a file differs from the manifest). What was written is removed before,
        or, where the store no longer answers, by the next publish.
        """

    def sweep(self, *, only: str | None = None) -> None:
        """Removes what unfinished publishes left behind, and stops those that still go on.

        Of one version alone where `only` names it. A publish that was swept cannot complete,
        however late it wakes: it is told that it was superseded. Raises StoreUnavailable.
        """

    def prune(self, keep: int) -> list[str]:
        """Removes all but the `keep` newest versions; never the active one.

        Returns the removed, oldest first. Raises StoreUnavailable; SnapshotDamaged where the
        pointer cannot be read (then nothing is removed).
        """

    def close(self) -> None: ...


class SnapshotCatalog(SnapshotReader, Protocol):
    def versions(self) -> list[CatalogEntry]:
        """Newest first. A version whose manifest cannot be read is left out.

        `held` was never active; `kept` was, and is no longer.
        """

    def activate(self, version: str, *, pin: bool) -> Pointer:
        """Moves the pointer to a kept version, forwards or back, after verifying its bytes.

        `pin=True` pins; `pin=False` leaves a pin as it is. Sets a damaged pointer anew. Raises
        SnapshotNotFound, SnapshotDamaged, SnapshotUnsupported, StoreUnavailable.
        """

    def unpin(self) -> Pointer:
        """Leaves version and generation as they are. Raises as `pointer`."""


class SnapshotStore(SnapshotCatalog, SnapshotPublisher, Protocol):
    """All roles at once: what `open_store` returns."""
