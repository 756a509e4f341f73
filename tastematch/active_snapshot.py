"""The snapshot that the store points to, for commands that need no API."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import SnapshotDamaged, SnapshotUnavailable, SnapshotUnsupported
from shared.settings import Settings

if TYPE_CHECKING:
    from api.local_snapshot import LocalSnapshot


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
