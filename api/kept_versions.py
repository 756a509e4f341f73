"""Versions before the active one, open for the pages that began in them.

As many as the store keeps, the active one counted, and each only as long as the store has it.
All but `find` is called by the follower's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from api.local_copies import local_versions, remove_copy
from api.local_snapshot import LocalSnapshot
from shared.errors import SnapshotNotFound, TasteMatchError
from shared.snapshot.store import SnapshotReader


class KeptVersions:
    """`open_copy` opens the local copy of a version, or returns None where it cannot be used."""

    def __init__(
        self,
        folder: Path,
        store: SnapshotReader,
        *,
        most: int,
        open_copy: Callable[[str], LocalSnapshot | None],
    ) -> None:
        self._folder = folder
        self._store = store
        self._most = most
        self._open_copy = open_copy
        self._open: dict[str, LocalSnapshot] = {}  # replaced, never changed: requests read it
        self._unusable: set[str] = set()

    def find(self, version: str) -> LocalSnapshot | None:
        return self._open.get(version)

    def opened(self) -> Collection[LocalSnapshot]:
        return self._open.values()

    def copies(self, active: str) -> list[str]:
        """The local versions to be kept beside the active one, newest first."""
        others = [version for version in local_versions(self._folder) if version != active]
        return others[: self._most]

    def add(self, previous: LocalSnapshot, *, active: str) -> None:
        """Keeps what was active until now, beside the version that is about to be."""
        previous.selector.forget()  # few ask for it from now on
        opened = {**self._open, previous.version: previous}
        self._open = {other: opened[other] for other in self.copies(active) if other in opened}

    def look_after(self, active: str, *, may_ask: bool) -> None:
        """One step: opens a copy that a start found, or asks whether the store still has one.

        may_ask: false while the store does not answer, and would only be waited for.
        """
        for version in self.copies(active):
            if version not in self._open and version not in self._unusable:
                snapshot = self._open_copy(version)
                if snapshot is None:
                    self._unusable.add(version)
                else:
                    self._open = {**self._open, version: snapshot}
                return
        if not self._open or not may_ask:
            return
        version, *later = self._open  # the one that was asked for longest ago
        kept = {other: self._open[other] for other in later}
        try:
            self._store.manifest(version)
        except SnapshotNotFound:
            self._open = kept
            remove_copy(self._folder / version)
        except TasteMatchError:
            pass  # the pointer tells how the store is
        else:
            self._open = {**kept, version: self._open[version]}
