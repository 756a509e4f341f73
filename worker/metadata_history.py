"""The part `metadata_history`: what the metadata's earlier versions lack, carried on at each run.

The history goes on from that of the newest snapshot which was ever active. Where an operator has
activated another one since, its metadata come next, as if they had been published again: then
every version that was served is in the history, and what comes of it is the difference to what is
served now. A history that is missing or damaged is replaced by the next older one, in the end by
none: then clients get the full form once.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from shared.errors import SnapshotError
from shared.snapshot.manifest import Manifest
from shared.snapshot.metadata_history import (
    MAX_VERSIONS,
    PART,
    MetadataHistory,
    read_metadata_history,
    write_metadata_history,
)
from shared.snapshot.store import CatalogEntry, SnapshotCatalog
from worker.published_metadata import CONTENT_PARTS, ShownRestaurants, fetch_parts, mapped

KEPT = timedelta(days=30)
"""Counted from when a version stopped being the newest: until then clients fetched it."""
MAX_REMOVED = 200_000


def write_history(
    store: SnapshotCatalog, folder: Path, *, version: str, scratch: Path, now: datetime
) -> None:
    """Writes the part for the metadata in `folder`, whose content hash is `version`.

    `scratch` takes copies of earlier parts. Raises StoreUnavailable.
    """
    seconds = int(now.timestamp())
    entries = [entry for entry in store.versions() if entry.state != "held"]
    history, shown = _newest_history(store, entries, scratch / "history")
    for entry in entries:
        if entry.state == "active":
            with suppress(SnapshotError):
                active = _fetched(store, entry.manifest, scratch / "active")
                history = followed_by(
                    history, shown, active, version=entry.manifest.metadata_version, seconds=seconds
                )
                shown = active
    new = ShownRestaurants(folder)
    history = followed_by(history, shown, new, version=version, seconds=seconds)
    with (folder / PART).open("wb") as file:
        write_metadata_history(file, history)


def followed_by(
    history: MetadataHistory | None,
    old: ShownRestaurants | None,
    new: ShownRestaurants,
    *,
    version: str,
    seconds: int,
) -> MetadataHistory:
    """The history after `new`, whose content hash is `version`, came after `old`.

    seconds: when that is, since 1970. Without history or `old`, a history of `new` alone.
    """
    if history is None or old is None:
        return MetadataHistory([version], [0], bytes(len(new)), array("q"), b"")
    if history.versions[-1] == version:
        return _forgotten(history, new, seconds)
    number = len(history.versions)
    changed_at, gone = _compared(history, old, new, number)
    removed_ids, removed_at = array("q"), bytearray()
    before = zip(history.removed_ids, bytes(history.removed_at), strict=True)
    still = ((removed, at) for removed, at in before if removed not in new)
    for removed, at in heapq.merge(still, ((removed, number) for removed in gone)):
        removed_ids.append(removed)
        removed_at.append(at)
    extended = MetadataHistory(
        versions=[*history.versions, version],
        current_until=[*history.current_until[:-1], seconds, 0],
        changed_at=changed_at,
        removed_ids=removed_ids,
        removed_at=removed_at,
    )
    if version in history.versions:  # the same content as once before: only the later time counts
        extended = _without(extended, history.versions.index(version))
    return _forgotten(extended, new, seconds)


def _compared(
    history: MetadataHistory, old: ShownRestaurants, new: ShownRestaurants, number: int
) -> tuple[bytearray, array[int]]:
    """(changed_at of the new restaurants, ids that are gone); what differs gets `number`."""
    changed_at, gone = bytearray(), array("q")
    numbers = memoryview(history.changed_at)
    olds = enumerate(old)
    place, (known_id, known) = next(olds, _END)
    for restaurant_id, shown in new:
        while known_id is not None and known_id < restaurant_id:
            gone.append(known_id)
            place, (known_id, known) = next(olds, _END)
        is_same = known_id == restaurant_id and known == shown
        changed_at.append(numbers[place] if is_same else number)
        if known_id == restaurant_id:
            place, (known_id, known) = next(olds, _END)
    while known_id is not None:
        gone.append(known_id)
        place, (known_id, known) = next(olds, _END)
    return changed_at, gone


_END: tuple[int, tuple[int | None, bytes]] = (-1, (None, b""))


def _forgotten(history: MetadataHistory, new: ShownRestaurants, seconds: int) -> MetadataHistory:
    """Without the versions that are too old or too many, or whose delta could never be sent."""
    oldest = seconds - int(KEPT.total_seconds())
    for place in reversed(range(len(history.versions) - 1)):
        if history.current_until[place] < oldest:
            history = _without(history, place)
    surplus = max(len(history.versions) - MAX_VERSIONS, _unsendable(history, new.document_bytes))
    for _ in range(surplus):
        history = _without(history, 0)
    return history


def _unsendable(history: MetadataHistory, document_bytes: int) -> int:
    """How many of the oldest versions have too many removed ids to be kept.

    A delta is at most half as large as the document.
    """
    texts, counts = [0] * len(history.versions), [0] * len(history.versions)
    for removed, at in zip(history.removed_ids, bytes(history.removed_at), strict=True):
        texts[at] += len(str(removed)) + 1
        counts[at] += 1
    text = count = 0
    for number in range(len(history.versions) - 1, 0, -1):
        text += texts[number]
        count += counts[number]
        if text > document_bytes // 2 or count > MAX_REMOVED:
            return number
    return 0


def _without(history: MetadataHistory, place: int) -> MetadataHistory:
    """Forgets one version: greater numbers move down by one, and whoever held it is unknown."""
    moved = bytes(number - (number > place) for number in range(256))
    removed_at = bytes(history.removed_at).translate(moved)
    removed_ids: Sequence[int] = history.removed_ids
    if 0 in removed_at:  # gone before the oldest version: nobody needs to hear of it
        kept = [at for at, number in enumerate(removed_at) if number]
        removed_ids = array("q", [removed_ids[at] for at in kept])
        removed_at = bytes(removed_at[at] for at in kept)
    return replace(
        history,
        versions=[*history.versions[:place], *history.versions[place + 1 :]],
        current_until=[*history.current_until[:place], *history.current_until[place + 1 :]],
        changed_at=bytes(history.changed_at).translate(moved),
        removed_ids=removed_ids,
        removed_at=removed_at,
    )


def _newest_history(
    store: SnapshotCatalog, entries: Sequence[CatalogEntry], folder: Path
) -> tuple[MetadataHistory | None, ShownRestaurants | None]:
    """The newest history that can be read, and the restaurants as its last version shows them."""
    for entry in entries:
        manifest = entry.manifest
        with suppress(SnapshotError):
            shown = _fetched(store, manifest, folder, PART)
            history = read_metadata_history(mapped(folder / manifest.version / PART))
            is_its_own = history.versions[-1] == manifest.metadata_version
            if is_its_own and memoryview(history.changed_at).nbytes == len(shown):
                return history, shown
    return None, None


def _fetched(
    store: SnapshotCatalog, manifest: Manifest, folder: Path, *more: str
) -> ShownRestaurants:
    own = folder / manifest.version
    fetch_parts(store, manifest, (*more, *CONTENT_PARTS), own)
    return ShownRestaurants(own)
