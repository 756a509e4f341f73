"""What a precompute does about the overlay: nobody's lists go back in time with its version.

What is excluded in every version is told before there is one to show: a store that was emptied has
neither, and a replica that has seen nothing else would show what is hidden.

Users who changed while it ran get their lists into the new version's log before that becomes
visible. Nobody else writes there as long as it is not.
"""

import time
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Engine

from shared.db import changes
from shared.db.engine import database_errors
from shared.errors import SnapshotError
from shared.jobs.clock import database_time
from shared.logs import get_logger
from shared.snapshot.overlay import EXCLUSIONS, OverlayWriter
from shared.snapshot.store import SnapshotCatalog
from worker.refresh import Refresher
from worker.refresher_exclusions import Exclusions, tidy_exclusions
from worker.refresher_reading import changed, read_users
from worker.refresher_records import list_records

MAX_LOG_BYTES = 64 * 1024 * 1024
"""Of the refreshed lists of a version; beyond, a new snapshot is the better way."""
BATCH_USERS = 64
LAST_SECONDS = 5.0
"""The last round holds up the publication no longer."""

log = get_logger("worker.precompute")


class CatchUp:
    """One run's. Raises DatabaseUnavailable, StoreUnavailable."""

    def __init__(
        self,
        engine: Engine,
        store: SnapshotCatalog,
        overlay: OverlayWriter,
        *,
        version: str,
        since: datetime,
    ) -> None:
        """since: `Manifest.changes_since` of the version."""
        self._engine = engine
        self._overlay = overlay
        self._exclusions = Exclusions(engine, store, overlay)
        self._version = version
        self._since = since
        self._is_full = False

    def before_publish(self, model_folder: Path) -> None:
        """All users who changed since the run began to read. model_folder: a described model."""
        self._refresher = Refresher(model_folder)
        self._exclude()
        users = self._write()
        log.info("precompute.caught_up", users=users)

    def before_visible(self) -> None:
        """Those who changed while the parts were written."""
        self._exclude()
        self._write(seconds=LAST_SECONDS)

    def close(self) -> None:
        """Lets go of the model."""
        del self._refresher

    def _write(self, *, seconds: float = float("inf")) -> int:
        deadline = time.monotonic() + seconds
        users = 0
        with database_errors(), self._engine.connect() as connection:
            began = database_time(connection)
        read = partial(read_users, now=began, oldest=None)
        blocks = changed(self._engine, "user", read, limit=BATCH_USERS, since=self._since)
        while not self._is_full and time.monotonic() < deadline:
            block = next(blocks, None)
            if block is None:
                break
            revisions, states = block
            self._append(list_records(self._refresher, revisions, list(states.values())))
            users += len(revisions)
        self._since = changes.certain_since(began)
        return users

    def _exclude(self) -> None:
        """The log of exclusions is whole from here on."""
        try:
            self._exclusions.follow()
        except SnapshotError as error:  # full or damaged: the refresher tries again
            log.warning("overlay.not_written", version=EXCLUSIONS, reason=error.message)

    def _append(self, records: dict[str, bytes]) -> None:
        try:
            self._overlay.append(self._version, records)
            self._is_full = self._overlay.size_bytes(self._version) > MAX_LOG_BYTES
        except SnapshotError as error:  # full or damaged: lists follow after the switch
            log.warning("overlay.not_written", version=self._version, reason=error.message)
            self._is_full = True


def tidy_overlay(engine: Engine, store: SnapshotCatalog, overlay: OverlayWriter) -> None:
    """Removes what belongs to versions that were pruned.

    Raises DatabaseUnavailable, StoreUnavailable.
    """
    kept = {entry.manifest.version: entry.manifest.changes_since for entry in store.versions()}
    for name in overlay.logs():
        if name != EXCLUSIONS and name not in kept:
            overlay.drop(name)
    oldest = [since for since in kept.values() if since is not None]
    if not oldest or len(oldest) < len(kept):
        return  # a version of a release that kept no notes: all of them may be needed
    with database_errors(), engine.begin() as connection:
        connection.execute(changes.forget_changes(before=min(oldest)))
    tidy_exclusions(engine, overlay)
