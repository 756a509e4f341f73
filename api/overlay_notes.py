"""What a write told this process, until the worker's record of it arrives.

A write is confirmed to whoever made it before the worker has heard of it. What it changes in this
process's answers is noted here, after the commit and under the revision the write was given, and
is dropped when a record of that revision or a later one has come. Notes are bounded: beyond the
bound the oldest go, and the replica is as fresh as the worker is. A process that ends in order
leaves them to the next.

Written under a lock, by the event loop and by the overlay's thread; read without one, as what is
read is never changed, only replaced.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import orjson

MAX_NOTES = 10_000  # users, and as many restaurants
MAX_HIDDEN_BYTES = 4 * 1024**2  # of all hidden sets that are noted
MAX_ORDERS = 50  # of one user
MIN_SECONDS = 120.0  # a snapshot that is made meanwhile may not contain the write
DOUBT_SECONDS = 3.0  # records that say nothing have no revision: an older one may come late
LATER_SECONDS = 120.0  # a record so much younger than a note knows of its write
RECENT_SECONDS = 10.0  # so long a note may come after the record of its own write


class UserNotes(NamedTuple):
    """What holds for a user beside the records; `orders` are restaurant ids, the newest first."""

    orders: tuple[int, ...] = ()
    order_revision: int = 0
    hidden: bytes | None = None
    """Sorted ids of eight bytes; None: as the records say."""
    hidden_revision: int = 0
    erased_revision: int = 0
    """0: as the records say."""
    noted_at: float = 0.0
    doubted_at: float | None = None

    @property
    def hidden_ids(self) -> frozenset[int]:
        return frozenset(array("q", self.hidden or b""))


class RestaurantNote(NamedTuple):
    is_inactive: bool
    revision: int
    noted_at: float
    doubted_at: float | None = None


NO_NOTES = UserNotes()
_Note = TypeVar("_Note", UserNotes, RestaurantNote)


class Notes:
    """`users` and `restaurants` are read by requests; everything else is behind the methods."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.users: dict[int, UserNotes] = {}
        self.restaurants: dict[int, RestaurantNote] = {}
        self._clock = clock
        self._lock = threading.Lock()
        self._hidden_bytes = 0
        self._recent: dict[tuple[str, int], tuple[int, float]] = {}

    @property
    def count(self) -> int:
        return len(self.users) + len(self.restaurants)

    def dump(self) -> bytes:
        """All notes, for the process that comes after this one."""
        users = [
            [
                user_id,
                *notes[:2],
                None if notes.hidden is None else sorted(notes.hidden_ids),
                *notes[3:5],
                self._instant(notes.noted_at),
            ]
            for user_id, notes in self.users.copy().items()
        ]
        restaurants = [
            [each, *note[:2], self._instant(note.noted_at)]
            for each, note in self.restaurants.copy().items()
        ]
        return orjson.dumps({"form": 2, "users": users, "restaurants": restaurants})

    def restore(self, data: bytes) -> None:
        """Takes what another process dumped. Raises ValueError where it is anything else."""
        try:
            found = orjson.loads(data)
            if found["form"] != 2:
                raise ValueError("notes of another release")
            for user_id, orders, order_revision, *rest in found["users"]:
                hidden, hidden_revision, erased_revision, noted = rest
                if erased_revision:
                    self.erase(int(user_id), int(erased_revision))
                for restaurant_id in reversed(orders):
                    self.order(int(user_id), int(restaurant_id), int(order_revision))
                if hidden is not None:
                    self.hide(int(user_id), map(int, hidden), int(hidden_revision))
                self._put_back(self.users, int(user_id), float(noted))
            for restaurant_id, is_inactive, revision, noted in found["restaurants"]:
                self.set_inactive(int(restaurant_id), bool(is_inactive), int(revision))
                self._put_back(self.restaurants, int(restaurant_id), float(noted))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError("notes of an unknown form") from error

    def order(self, user_id: int, restaurant_id: int, revision: int) -> None:
        with self._lock:
            if self._is_late("lists", user_id, revision):
                return
            old = self.users.get(user_id, NO_NOTES)
            orders = (restaurant_id, *(each for each in old.orders if each != restaurant_id))
            newest = max(revision, old.order_revision)
            self._put(user_id, old._replace(orders=orders[:MAX_ORDERS], order_revision=newest))

    def hide(self, user_id: int, hidden: Iterable[int], revision: int) -> None:
        """hidden: all restaurants that the user hides now."""
        with self._lock:
            old = self.users.get(user_id, NO_NOTES)
            if revision < old.hidden_revision or self._is_late("user", user_id, revision):
                return
            packed = array("q", sorted(hidden)).tobytes()
            self._put(
                user_id, old._replace(hidden=packed, hidden_revision=revision, doubted_at=None)
            )

    def erase(self, user_id: int, revision: int) -> None:
        with self._lock:
            if not self._is_late("user", user_id, revision):
                self._put(user_id, UserNotes(erased_revision=revision))

    def set_inactive(self, restaurant_id: int, is_inactive: bool, revision: int) -> bool:
        """Returns whether it was noted."""
        with self._lock:
            old = self.restaurants.get(restaurant_id)
            is_old = old is not None and revision < old.revision
            if is_old or self._is_late("restaurant", restaurant_id, revision):
                return False
            self.restaurants.pop(restaurant_id, None)
            self.restaurants[restaurant_id] = RestaurantNote(is_inactive, revision, self._clock())
            while len(self.restaurants) > MAX_NOTES:
                del self.restaurants[next(iter(self.restaurants))]
            return True

    def lists_came(self, user_id: int, revision: int) -> None:
        """The active version's overlay has the user's lists as of that revision."""
        with self._lock:
            self._recent["lists", user_id] = revision, self._clock()
            old = self.users.get(user_id)
            if old is not None and old.orders and old.order_revision <= revision:
                self._put(user_id, old._replace(orders=(), order_revision=0), is_new=False)

    def exclusion_came(
        self, user_id: int, revision: int | None, place: int = 0, is_new: bool = True
    ) -> None:
        """What is hidden and erased is recorded as of a revision; None: a record of nothing.

        place: of the record; a log forgets revisions, and counts them anew, but never places.
        is_new: it was not read before.
        """
        with self._lock:
            if revision is not None and is_new:
                self._recent["user", user_id] = revision, self._clock()
            old = self.users.get(user_id)
            if old is None or (revision is None and not is_new):
                return
            if revision is None:
                says_so = not old.hidden and not old.erased_revision
                doubted = old.doubted_at if old.doubted_at is not None else self._clock()
                changed = old._replace(doubted_at=doubted)
                if says_so:
                    changed = old._replace(hidden=None, hidden_revision=0)
            else:
                changed, is_later = old, self._is_later(place, old.noted_at)
                if is_later or old.hidden_revision <= revision:
                    changed = changed._replace(hidden=None, hidden_revision=0, doubted_at=None)
                if is_later or old.erased_revision <= revision:
                    changed = changed._replace(erased_revision=0)
            self._put(user_id, changed, is_new=False)

    def restaurant_came(
        self, restaurant_id: int, revision: int | None, place: int = 0, is_new: bool = True
    ) -> None:
        """It is recorded as inactive as of a revision; otherwise as for a user."""
        with self._lock:
            if revision is not None and is_new:
                self._recent["restaurant", restaurant_id] = revision, self._clock()
            note = self.restaurants.get(restaurant_id)
            if note is None or (revision is None and not is_new):
                return
            if revision is None and note.is_inactive:
                doubted = note.doubted_at if note.doubted_at is not None else self._clock()
                self.restaurants[restaurant_id] = note._replace(doubted_at=doubted)
            elif (
                revision is None
                or note.revision <= revision
                or self._is_later(place, note.noted_at)
            ):
                del self.restaurants[restaurant_id]

    def forget(self, keys: Collection[int], contained_before: datetime) -> None:
        """keys: of users, and of restaurants inverted, of whom no record is kept any more: what
        is hidden, erased and inactive by a write before an instant is over."""
        with self._lock:
            end = min(contained_before.timestamp(), time.time() - MIN_SECONDS)
            for key in keys:
                notes, note = self.users.get(key), self.restaurants.get(~key)
                if notes is not None and self._instant(notes.noted_at) < end:
                    kept = UserNotes(notes.orders, notes.order_revision, noted_at=notes.noted_at)
                    self._put(key, kept, is_new=False)
                if note is not None and self._instant(note.noted_at) < end:
                    del self.restaurants[~key]

    def snapshot_came(self, contained_before: datetime | None) -> None:
        """A snapshot is active that contains the writes before an instant."""
        if contained_before is None:
            return
        age = (datetime.now(UTC) - contained_before).total_seconds()
        with self._lock:
            oldest = self._clock() - max(age, MIN_SECONDS)
            for user_id, notes in list(self.users.items()):
                if notes.orders and notes.noted_at < oldest:
                    self._put(user_id, notes._replace(orders=(), order_revision=0), is_new=False)

    def expire(self) -> bool:
        """Drops what a record of nothing contradicted for long enough.

        Returns whether that was said of a restaurant.
        """
        now = self._clock()
        changed = False
        with self._lock:
            for key in [k for k, (_, at) in self._recent.items() if now - at > RECENT_SECONDS]:
                del self._recent[key]
            for user_id, notes in list(self.users.items()):
                if notes.doubted_at is not None and now - notes.doubted_at > DOUBT_SECONDS:
                    kept = UserNotes(notes.orders, notes.order_revision, noted_at=notes.noted_at)
                    self._put(user_id, kept, is_new=False)
            for restaurant_id, note in list(self.restaurants.items()):
                if note.doubted_at is not None and now - note.doubted_at > DOUBT_SECONDS:
                    del self.restaurants[restaurant_id]
                    changed = True
        return changed

    def _is_late(self, kind: str, subject_id: int, revision: int) -> bool:
        """Whether the record of that write came before the note of it."""
        seen = self._recent.get((kind, subject_id))
        return seen is not None and seen[0] >= revision

    def _is_later(self, place: int, noted_at: float) -> bool:
        """Whether a record, which has the instant of its append for a place, knows of a write."""
        return place / 1e6 > self._instant(noted_at) + LATER_SECONDS

    def _instant(self, noted_at: float) -> float:
        """In seconds since 1970."""
        return time.time() - (self._clock() - noted_at)

    def _put_back(self, notes: dict[int, _Note], key: int, instant: float) -> None:
        """Makes a note as old as it was in another process."""
        with self._lock:
            if key in notes:
                age = max(0.0, time.time() - instant)
                notes[key] = notes[key]._replace(noted_at=self._clock() - age)

    def _put(self, user_id: int, notes: UserNotes, *, is_new: bool = True) -> None:
        old = self.users.get(user_id, NO_NOTES)
        self._hidden_bytes += len(notes.hidden or b"") - len(old.hidden or b"")
        if is_new:
            self.users.pop(user_id, None)  # the newest stand last
            notes = notes._replace(noted_at=self._clock())
        if not notes.orders and notes.hidden is None and not notes.erased_revision:
            self.users.pop(user_id, None)
            return
        self.users[user_id] = notes
        while len(self.users) > MAX_NOTES or self._hidden_bytes > MAX_HIDDEN_BYTES:
            oldest = next(iter(self.users))
            self._hidden_bytes -= len(self.users.pop(oldest).hidden or b"")
