"""The snapshot that the store points to, and what changed since, for commands that need no API."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import SnapshotDamaged, SnapshotUnavailable, SnapshotUnsupported
from shared.settings import Settings

if TYPE_CHECKING:
    from api.changes import UserChanges
    from api.local_snapshot import LocalSnapshot
    from shared.snapshot.overlay import Entry, OverlayReader


@contextlib.contextmanager
def active_snapshot(settings: Settings) -> Iterator[LocalSnapshot]:
    """The version the store points to: the API's copy of it, or one of our own for a moment.

    Raises StoreUnavailable, SnapshotUnavailable, SnapshotDamaged, SnapshotUnsupported.
    """
    from api.local_copies import fetch, open_verified
    from shared.snapshot.opening import open_store

    store = open_store(settings)
    try:
        version = store.pointer().version
        if version is None:
            raise SnapshotUnavailable("no snapshot has been published yet")
        try:
            snapshot = open_verified(settings.snapshots_dir / version, public_vary=b"")
        except (OSError, SnapshotDamaged, SnapshotUnsupported):
            with tempfile.TemporaryDirectory(prefix="tastematch-") as folder:
                fetched = fetch(store, store.manifest(version), Path(folder))
                yield open_verified(fetched, public_vary=b"")
        else:
            yield snapshot
    finally:
        store.close()


def changes_of(settings: Settings, snapshot: LocalSnapshot, user_id: int) -> UserChanges:
    """What the store tells of the user, and of restaurants, since the snapshot was made.

    Raises StoreUnavailable, SnapshotDamaged.
    """
    from api.overlay import Overlay
    from api.overlay_lists import RefreshedLists
    from shared.snapshot.opening import open_overlay
    from shared.snapshot.overlay import EXCLUSIONS, user_key

    own = user_key(user_id)
    with (
        contextlib.closing(open_overlay(settings)) as reader,
        tempfile.TemporaryDirectory(prefix="tastematch-") as name,
    ):
        overlay = Overlay(Path(name))
        exclusions = overlay.open()
        for entries in _entries(reader, EXCLUSIONS):
            exclusions.take(each for each in entries if each.key == own or each.key[0] == "r")
        overlay.combine()
        snapshot.refreshed = RefreshedLists(
            overlay.folder,
            snapshot.version,
            restaurants=snapshot.restaurants.count,
            cities=len(snapshot.cities),
        )
        for entries in _entries(reader, snapshot.version):
            snapshot.refreshed.take(each for each in entries if each.key == own)
        return overlay.of_user(snapshot, user_id)


def _entries(reader: OverlayReader, log: str) -> Iterator[list[Entry]]:
    from shared.snapshot.overlay import MAX_RECORDS

    place = 0
    while entries := reader.read(log, after=place, limit=MAX_RECORDS):
        yield entries
        place = entries[-1].place
