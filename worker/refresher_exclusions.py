"""The log of exclusions, whole: followed, made anew where the store lost it, tidied.

A key that is written last says that all of the log is there: a store that was emptied lacks it,
or has it no longer where it was. Everything in the log follows from the database.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from sqlalchemy import Engine, select

from shared.db import changes
from shared.db.engine import database_errors
from shared.db.models import HiddenRestaurant
from shared.errors import SnapshotDamaged
from shared.jobs.clock import database_time
from shared.logs import get_logger
from shared.snapshot.overlay import (
    EXCLUSIONS,
    GONE,
    MAX_RECORDS,
    WHOLE,
    OverlayWriter,
    Subject,
    UserExclusion,
    decode_user_exclusion,
    parse_key,
    user_key,
)
from shared.snapshot.store import SnapshotCatalog
from worker.extract import reading
from worker.refresher_reading import changed, exclusions_of, read_active, read_known
from worker.refresher_records import restaurant_records, user_records

ROWS_AT_A_TIME = 500
MAX_SPENT = 20_000
"""Keys kept that exclude nothing any more: a replica that was away still has to hear of it."""

EVERYTHING = datetime(1970, 1, 1, tzinfo=UTC)
"""Where a version of a release that kept no notes counts changes from."""

log = get_logger("worker.refresher")


def oldest_since(store: SnapshotCatalog) -> datetime:
    """Since when any kept snapshot may lack writes. Raises StoreUnavailable."""
    kept = [entry.manifest.changes_since or EVERYTHING for entry in store.versions()]
    return min(kept, default=EVERYTHING)


class Exclusions:
    """What the log says, by its keys alone: some 100 bytes each."""

    def __init__(self, engine: Engine, store: SnapshotCatalog, overlay: OverlayWriter) -> None:
        self._engine = engine
        self._store = store
        self._overlay = overlay
        self._place = 0
        self._whole_at = 0
        self._keys: set[str] = set()

    def follow(self) -> None:
        """Takes in what other workers told, and makes the log anew where it was lost.

        Raises StoreUnavailable, StoreFull, DatabaseUnavailable.
        """
        try:
            self._read()
            is_whole = self._is_whole()
        except SnapshotDamaged as error:
            log.error("exclusions.damaged", reason=error.message)
            self._overlay.drop(EXCLUSIONS)
            is_whole = False
        if not is_whole:
            self._make_anew()

    def tell_users(
        self, exclusions: Mapping[int, UserExclusion], uncertain: Collection[int]
    ) -> None:
        """Tells what is excluded, and where something was excluded before, what no longer is.

        uncertain: users of whom a replica may believe what the log does not say.
        """
        told = {
            user_id: each
            for user_id, each in exclusions.items()
            if _says_something(each) or user_key(user_id) in self._keys or user_id in uncertain
        }
        self._append(user_records(told))

    def tell_restaurants(self, revisions: Mapping[int, int], active: Mapping[int, bool]) -> None:
        """Both by restaurant id."""
        self._append(restaurant_records(revisions, active))

    def _read(self) -> None:
        while entries := self._overlay.read(EXCLUSIONS, after=self._place, limit=MAX_RECORDS):
            for entry in entries:
                self._keys.add(entry.key)
                if entry.key == WHOLE:
                    self._whole_at = entry.place
            self._place = entries[-1].place

    def _is_whole(self) -> bool:
        """Whether the key of a whole log stands where it was seen."""
        if not self._whole_at:
            return False
        entries = self._overlay.read(EXCLUSIONS, after=self._whole_at - 1, limit=1)
        return bool(entries) and entries[0].key == WHOLE

    def _make_anew(self) -> None:
        known, self._keys, self._place, self._whole_at = self._keys, set(), 0, 0
        with database_errors(), self._engine.connect() as connection:
            began = database_time(connection)
        oldest = oldest_since(self._store)
        self._tell_hiding_users(oldest)
        self._tell_changed_users(known, oldest)
        self._tell_changed_restaurants()
        if WHOLE not in self._keys:
            self._append({WHOLE: GONE})
        # Of what changed meanwhile, another worker may have told more than was read here.
        with database_errors(), self._engine.begin() as connection:
            connection.execute(changes.reopen_changes(since=changes.certain_since(began)))
        self._read()
        log.info("exclusions.made_anew", keys=len(self._keys) - 1)

    def _tell_hiding_users(self, oldest: datetime) -> None:
        last = -1
        users = select(HiddenRestaurant.user_id).distinct().order_by(HiddenRestaurant.user_id)
        while True:
            block = users.where(HiddenRestaurant.user_id > last).limit(ROWS_AT_A_TIME)
            with database_errors(), reading(self._engine) as connection:
                user_ids = list(connection.scalars(block))
                if not user_ids:
                    return
                # A row that was forgotten is older than every snapshot.
                revisions = dict.fromkeys(user_ids, 1)
                noted = connection.execute(changes.revisions("user", user_ids))
                revisions.update((row.subject_id, row.revision) for row in noted)
                states = read_known(connection, user_ids, oldest=oldest)
            self._append(user_records(exclusions_of(states, revisions)))
            last = user_ids[-1]

    def _tell_changed_users(self, known: set[str], oldest: datetime) -> None:
        for revisions, states in changed(
            self._engine, "user", partial(read_known, oldest=oldest), limit=ROWS_AT_A_TIME
        ):
            said = {
                user_id: each
                for user_id, each in exclusions_of(states, revisions).items()
                if user_key(user_id) not in self._keys
                and (_says_something(each) or user_key(user_id) in known)
            }
            self._append(user_records(said))

    def _tell_changed_restaurants(self) -> None:
        for revisions, active in changed(
            self._engine, "restaurant", read_active, limit=ROWS_AT_A_TIME
        ):
            self._append(restaurant_records(revisions, active))

    def _append(self, records: dict[str, bytes]) -> None:
        if records:
            self._overlay.append(EXCLUSIONS, records)
            self._keys.update(records)


def tidy_exclusions(engine: Engine, overlay: OverlayWriter) -> None:
    """Takes out of the log what no kept snapshot needs any more: what no change speaks of.

    Restaurants that a user hides stay, and for long what says that nothing is excluded. Raises
    StoreUnavailable, DatabaseUnavailable.
    """
    place = 0
    spent: list[str] = []
    try:
        while entries := overlay.read(EXCLUSIONS, after=place, limit=ROWS_AT_A_TIME):
            place = entries[-1].place
            records = {entry.key: entry.record for entry in entries if entry.key != WHOLE}
            kinds = {key: _kind(key, record) for key, record in records.items()}
            needed = {key for key, kind in kinds.items() if kind in ("hides", "nothing")}
            by_subject: dict[Subject, dict[int, str]] = {"user": {}, "restaurant": {}}
            for key in records.keys() - needed:
                subject, subject_id = parse_key(key)
                by_subject[subject][subject_id] = key
            with database_errors(), engine.connect() as connection:
                for subject, keys in by_subject.items():
                    noted = changes.revisions(subject, list(keys))
                    needed.update(keys[row.subject_id] for row in connection.execute(noted))
            unneeded = records.keys() - needed
            spent += [
                key
                for key, kind in kinds.items()
                if kind == "nothing" or (kind == "void" and key in unneeded)
            ]
            if superfluous := sorted(key for key in unneeded if kinds[key] == "gone"):
                overlay.remove(EXCLUSIONS, superfluous)
        if len(spent) > MAX_SPENT:
            overlay.remove(EXCLUSIONS, spent[:-MAX_SPENT])
    except SnapshotDamaged:
        return  # the refresher drops it and makes it anew


def _says_something(exclusion: UserExclusion) -> bool:
    return exclusion.is_erased or bool(exclusion.hidden) or exclusion.erased_at > 0


def _kind(key: str, record: bytes) -> Literal["gone", "hides", "nothing", "void"]:
    """gone: an inactive restaurant or an erased user. void: of one who came after an erasure."""
    subject, _ = parse_key(key)
    if record == GONE:
        return "nothing"
    if subject == "restaurant":
        return "gone"
    exclusion = decode_user_exclusion(record)
    if exclusion.hidden:
        return "hides"
    if exclusion.is_erased:
        return "gone"
    return "void" if exclusion.erased_at else "nothing"
