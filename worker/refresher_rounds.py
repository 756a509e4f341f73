"""What the refresher does in a round: claim changes, read, tell, mark; and for which version.

Exclusions hold in every version and are always told. Lists need the model of the active version;
without it they are left to a worker that has it, or to the next precompute.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from shared.db import changes
from shared.db.engine import database_errors
from shared.errors import DependencyError, SnapshotError, StoreUnavailable
from shared.jobs.clock import database_time
from shared.logs import get_logger
from shared.settings import Settings
from shared.snapshot.overlay import EXCLUSIONS, GONE, OverlayWriter, user_key
from shared.snapshot.store import SnapshotCatalog
from worker.extract import reading
from worker.model import release_models
from worker.refresh import Refresher
from worker.refresher_catch_up import MAX_LOG_BYTES
from worker.refresher_exclusions import EVERYTHING, Exclusions, oldest_since
from worker.refresher_help import Help
from worker.refresher_reading import (
    UserState,
    exclusions_of,
    read_active,
    read_known,
    read_users,
)
from worker.refresher_records import list_records

BATCH_CHANGES = 64
CLAIM_SECONDS = 15.0
"""After which another worker takes up what this one claimed."""
SAFE_SECONDS = 12.0
"""After which this one no longer writes what it read under a claim."""
ROUND_SECONDS = 0.5
"""After which it looks again which version is active."""
CATCH_UP_SECONDS = 10.0
"""Between looks for users whose lists another worker told of another version."""

CREATED_SECONDS = 15.0
"""A user's row is at most so much older than the note that it was made."""

log = get_logger("worker.refresher")


@dataclass(frozen=True, slots=True)
class Done:
    """What a batch did, in numbers."""

    users: int
    restaurants: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Claimed:
    subject: str
    subject_id: int
    revision: int
    changed_at: datetime
    told_revision: int

    def is_uncertain(self, state: UserState) -> bool:
        """Whether a replica may believe of the user what no record says.

        Of several writes, one may have undone what another did; and an id that is new may be one
        that was erased, and forgotten everywhere but there.
        """
        if self.revision > self.told_revision + 1:
            return True
        began = self.changed_at - timedelta(seconds=CREATED_SECONDS)
        return not self.told_revision and state.created_at is not None and state.created_at >= began


class Rounds:
    """One worker's. Every round raises DependencyError, StoreFull or SnapshotDamaged."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine,
        store: SnapshotCatalog,
        overlay: OverlayWriter,
        on_done: Callable[[Done], None],
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._overlay = overlay
        self._exclusions = Exclusions(engine, store, overlay)
        self._on_done = on_done
        self._version: str | None = None
        self._since = EVERYTHING
        self._refresher: Refresher | None = None
        self._unusable: str | None = None
        self._is_full = False
        self._caught_up_at = float("-inf")
        self._batch_size = BATCH_CHANGES
        self._help = Help(settings, engine)
        self.batches = 0
        """How many were done so far."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do that this worker could do."""
        return not self._can_refresh or self._caught_up_at > float("-inf")

    def round(self) -> bool:
        """Works for ROUND_SECONDS, or until nothing is left. Returns whether something may be."""
        deadline = time.monotonic() + ROUND_SECONDS
        self._follow_version()
        self._exclusions.follow()
        while claimed := self._claim():
            self._work(claimed)
            if time.monotonic() > deadline:
                return True
        if version := None if self._can_refresh else self._version:
            self._help.look(version, is_full=self._is_full)
        return False

    @property
    def _can_refresh(self) -> bool:
        return self._refresher is not None and not self._is_full

    def _follow_version(self) -> None:
        try:
            version = self._store.pointer().version
            if version != self._version and version is not None:
                self._since = self._store.manifest(version).changes_since or EVERYTHING
        except SnapshotError:  # damaged, or pruned just now: nothing to refresh
            version = None
        if version != self._version:
            log.info("refresher.follows", version=version)
            self._refresher = None
            release_models()
            self._version, self._is_full = version, False
            self._caught_up_at = float("-inf")
            self._help.forget()
        if version not in (None, self._unusable) and self._refresher is None:
            self._refresher = self._opened(str(version))

    def _opened(self, version: str) -> Refresher | None:
        """None where there is no model, or one that cannot be used."""
        try:
            return Refresher(self._settings.models_dir / version)
        except OSError:
            return None
        except Exception as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        """The model is cut off, or another's: as if there were none. The next snapshot has its
        own."""
        reason = f"{type(error).__name__}: {error}"[:200]
        log.error("model.unusable", version=self._version, reason=reason)
        self._unusable, self._refresher = self._version, None

    # --- one batch ---

    def _claim(self) -> list[_Claimed]:
        with database_errors(), self._engine.begin() as connection:
            now = database_time(connection)
            open_changes = changes.open_changes(
                now=now, limit=self._batch_size, is_untold=not self._can_refresh
            )
            claimed = self._claim_these(connection, open_changes, now)
            if claimed or not self._can_refresh or self._version is None:
                return claimed
            if time.monotonic() - self._caught_up_at < CATCH_UP_SECONDS:
                return []
            outdated = changes.outdated_changes(
                version=self._version, since=self._since, now=now, limit=self._batch_size
            )
            claimed = self._claim_these(connection, outdated, now)
            if not claimed:
                self._caught_up_at = time.monotonic()
            return claimed

    def _claim_these(self, connection: Connection, keys: Any, now: datetime) -> list[_Claimed]:
        if connection.execute(keys.limit(1)).first() is None:
            return []  # without taking the lock of a writer
        statement = changes.claim_changes(keys, until=now + timedelta(seconds=CLAIM_SECONDS))
        return [_Claimed(*row) for row in connection.execute(statement)]

    def _work(self, claimed: list[_Claimed]) -> None:
        began = time.monotonic()
        users = {each.subject_id: each for each in claimed if each.subject == "user"}
        restaurants = {each.subject_id: each for each in claimed if each.subject == "restaurant"}
        has_lists = self._can_refresh
        try:
            is_told = self._tell(users, restaurants, began)
        except (StoreUnavailable, SnapshotError):
            self._unclaim(claimed)
            raise
        if not is_told:
            # Slower than a claim lasts: what was read may be older than what others tell.
            log.warning("refresher.slow", changes=len(claimed))
            self._batch_size = max(1, self._batch_size // 2)
            self._unclaim(claimed)
            return
        self._mark(users, restaurants, has_lists=has_lists and self._refresher is not None)
        self.batches += 1
        self._on_done(Done(len(users), len(restaurants), time.monotonic() - began))

    def _tell(
        self, users: dict[int, _Claimed], restaurants: dict[int, _Claimed], began: float
    ) -> bool:
        """Reads, and tells exclusions before lists. False where it took too long to be told."""
        revisions = {each.subject_id: each.revision for each in users.values()}
        oldest = oldest_since(self._store) if users else EVERYTHING
        with database_errors(), reading(self._engine) as connection:
            active = read_active(connection, list(restaurants))
            if self._can_refresh:
                now = database_time(connection)
                states = read_users(connection, list(users), now=now, oldest=oldest)
            else:
                states = read_known(connection, users, oldest=oldest)
        exclusions = exclusions_of(states, revisions)
        lists = self._lists(users, states)
        self._exclusions.follow()
        if time.monotonic() - began > SAFE_SECONDS:
            return False
        uncertain = {each for each, claimed in users.items() if claimed.is_uncertain(states[each])}
        self._exclusions.tell_users(exclusions, uncertain)
        restaurant_revisions = {each.subject_id: each.revision for each in restaurants.values()}
        self._exclusions.tell_restaurants(restaurant_revisions, active)
        if lists and self._version is not None:
            self._overlay.append(self._version, lists)
            self._is_full = self._overlay.size_bytes(self._version) > MAX_LOG_BYTES
        self._forget_lists([user_id for user_id, each in exclusions.items() if each.is_erased])
        return True

    def _lists(self, users: dict[int, _Claimed], states: dict[int, UserState]) -> dict[str, bytes]:
        """Of users whose last change the snapshot may lack."""
        wanted = {
            user_id: state
            for user_id, state in states.items()
            if users[user_id].changed_at >= self._since
        }
        if self._refresher is None or not self._can_refresh or not wanted:
            return {}
        revisions = {user_id: users[user_id].revision for user_id in wanted}
        try:
            return list_records(self._refresher, revisions, list(wanted.values()))
        except MemoryError:
            raise
        except Exception as error:
            self._give_up(error)
            return {}

    def _forget_lists(self, erased: list[int]) -> None:
        """Lists of erased users in the logs of other versions; in this one's they are empty.

        Replicas hear of it, too: the id may come back, and the version may be gone back to.
        """
        if not erased:
            return
        for name in self._overlay.logs():
            if name not in (EXCLUSIONS, self._version):
                self._overlay.append(name, {user_key(user_id): GONE for user_id in erased})

    def _mark(
        self,
        users: dict[int, _Claimed],
        restaurants: dict[int, _Claimed],
        *,
        has_lists: bool,
    ) -> None:
        of_users = changes.tell_changes()
        if has_lists:
            of_users = changes.publish_changes(version=self._version)
        of_restaurants = changes.publish_changes(version=None)
        # One subject a transaction: two writers that lock the same rows do it in the same order.
        for statement, marked in ((of_users, users), (of_restaurants, restaurants)):
            if marked:
                rows = [
                    {"key_subject": each.subject, "key_id": key, "key_revision": each.revision}
                    for key, each in sorted(marked.items())
                ]
                with database_errors(), self._engine.begin() as connection:
                    connection.execute(statement, rows)

    def _unclaim(self, claimed: list[_Claimed]) -> None:
        rows = [{"key_subject": each.subject, "key_id": each.subject_id} for each in claimed]
        with suppress(DependencyError), database_errors(), self._engine.begin() as connection:
            connection.execute(changes.unclaim_changes(), rows)
