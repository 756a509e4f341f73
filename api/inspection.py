"""Versions that an operator looks into, whether or not they are served here.

Those that are open for requests are taken as they are. Any other that the store has, such as a
held one that was never active, is copied, verified and opened, until another one is asked for.
"""

from __future__ import annotations

import threading

from api.follower import SnapshotFollower
from api.local_copies import fetch, local_versions, remove_copy, sweep
from api.local_snapshot import LocalSnapshot
from shared.errors import (
    SnapshotNotFound,
    SnapshotUnavailable,
    StoreUnavailable,
    VersionGone,
)
from shared.settings import Settings
from shared.snapshot.manifest import is_version
from shared.snapshot.store import SnapshotReader

FOLDER = ".inspected"


class Inspection:
    """`fetched` is synchronous and slow: call it in a thread."""

    def __init__(
        self, settings: Settings, store: SnapshotReader, followed: SnapshotFollower
    ) -> None:
        # Not among the copies that are served: the follower would take it for one of them.
        self._folder = settings.snapshots_dir / FOLDER
        self._store = store
        self._followed = followed
        self._lock = threading.Lock()
        self._last: LocalSnapshot | None = None

    def served(self, version: str | None) -> LocalSnapshot | None:
        """The active version, or that version where it is open here; None where it is not.

        Raises SnapshotUnavailable where nothing is active, SnapshotNotFound for no version's name.
        """
        if version is None:
            return self._followed.require_active()
        if not is_version(version):
            raise SnapshotNotFound("there is no such snapshot")
        try:
            return self._followed.require_version(version)
        except (VersionGone, SnapshotUnavailable):
            return None

    def fetched(self, version: str) -> LocalSnapshot:
        """A version out of the store.

        Raises SnapshotNotFound, SnapshotDamaged, SnapshotUnsupported, StoreUnavailable.
        """
        with self._lock:  # one copy at a time
            manifest = self._store.manifest(version)
            if self._last is not None and self._last.version == version:
                return self._last
            self._last = None
            sweep(self._folder)
            for left in local_versions(self._folder):
                remove_copy(self._folder / left)
            try:
                folder = fetch(self._store, manifest, self._folder)
                self._last = LocalSnapshot(folder, manifest, public_vary=self._followed.public_vary)
            except OSError as error:
                reason = error.strerror or str(error)
                raise StoreUnavailable(f"no local copy could be made: {reason}") from None
            finally:
                remove_copy(self._folder / version)  # what is open needs no name
            return self._last
