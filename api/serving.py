"""Which list a user gets: the ladder personal -> preferences -> popular-city -> popular.

A user's record holds the heads of `for_you` and `discover`; beyond them a list goes on with what
is popular in the user's city, then everywhere, never twice the same and `discover` never with
something ordered. `order_again` is what was ordered and nothing else. A filter lets through what
passes, in the same order; where it names one city, that one stands in the place of the user's.
What changed since the snapshot (`changes.py`) holds in all of it: lists that were made anew, new
orders, restaurants that are hidden or inactive.
Ordinals in, ordinals out; no I/O but the `pread` of one record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from api.changes import UNCHANGED, UserChanges
from api.filters import NO_FILTERS, Filters
from api.local_snapshot import LocalSnapshot
from api.selection import Selection
from shared.snapshot.format import (
    EVERYWHERE,
    NO_CITY,
    SOURCE_NONE,
    SOURCE_PERSONAL,
    UserLists,
)

LISTS = ("for_you", "discover", "order_again")
MAX_LIMIT = 50
DEFAULT_LIMIT = 20

NO_LISTS = UserLists((), (), ())
NOTHING: frozenset[int] = frozenset()

NEWEST, HEAD, LOCAL, ELSEWHERE = range(-1, 3)  # the stages of a list


class Position(NamedTuple):
    """Where a page begins: a stage of the list, and how far into its row."""

    stage: int
    offset: int


START = Position(NEWEST, 0)


class Segment(NamedTuple):
    """Ordinals that one rung of the ladder gave, best first."""

    source: str
    ordinals: Sequence[int]


class Served(NamedTuple):
    """The list in segments. `source` is the first id's, or the rung that would have answered.

    `next` is where the next page begins, None where there is none.
    """

    source: str
    segments: tuple[Segment, ...]
    lists: UserLists
    city: int
    next: Position | None
    changes: UserChanges

    @property
    def ordinals(self) -> Sequence[int]:
        if len(self.segments) == 1:
            return self.segments[0].ordinals
        return [ordinal for segment in self.segments for ordinal in segment.ordinals]


def serve(
    snapshot: LocalSnapshot,
    user_id: int,
    *,
    list_name: str,
    limit: int,
    filters: Filters = NO_FILTERS,
    excluded: frozenset[int] = NOTHING,
    start: Position = START,
    changes: UserChanges = UNCHANGED,
) -> Served:
    """The first `limit` restaurants from `start` of one of LISTS for any user, known or not.

    excluded: ids. changes: what holds beside the snapshot, for this user and in this snapshot.
    Raises SnapshotDamaged where the user's record contradicts itself, and SnapshotOutdated where
    the snapshot lacks what a filter asks.
    """
    source, city, lists = _record(snapshot, user_id, changes)
    own = "personal" if source == SOURCE_PERSONAL else "preferences"
    head = getattr(lists, list_name)
    new = changes.ordered if list_name != "for_you" else ()
    gone = changes.gone
    if changes.hidden:
        excluded |= changes.hidden
    is_plain = filters is NO_FILTERS and not excluded and not new and start is START
    if is_plain and len(head) > limit and (not gone or gone.isdisjoint(head[: limit + 1])):
        segments = (Segment(own, head[:limit]),)
        if changes.ordered:
            lists = _with(changes, lists)
        return Served(own, segments, lists, city, Position(HEAD, limit), changes)
    walk = _Walk(snapshot, limit, excluded=excluded, gone=gone, start=start)
    selection = None if filters is NO_FILTERS else snapshot.selector.select(filters)
    passing = head if selection is None else selection.passing(head)
    if new and list_name == "order_again":
        first = new if selection is None else selection.passing(new)
        walk.take(NEWEST, "personal", islice(first, walk.offset(NEWEST), None))
    walk.take(HEAD, own, islice(passing, walk.offset(HEAD), None), taken=new)
    lists = _with(changes, lists)
    if walk.next is None and list_name != "order_again":
        # What does not pass is in no row that follows.
        taken = set(passing if isinstance(passing, list) else head)
        if list_name == "discover":
            taken.update(lists.order_again)
        _fill(walk, snapshot, city, selection=selection, taken=taken)
    first_source = walk.segments[0].source if walk.segments else _rung(snapshot, source, city)
    return Served(first_source, tuple(walk.segments), lists, city, walk.next, changes)


def _record(
    snapshot: LocalSnapshot, user_id: int, changes: UserChanges
) -> tuple[int, int, UserLists]:
    """Source, city code and lists: made anew, or else the snapshot's own."""
    refreshed = changes.refreshed
    if refreshed is not None:
        lists = NO_LISTS if refreshed.source == SOURCE_NONE else refreshed.lists
        return refreshed.source, refreshed.city, lists
    entry = None if changes.is_erased else snapshot.users.find(user_id)
    if entry is None:
        return SOURCE_NONE, NO_CITY, NO_LISTS
    lists = NO_LISTS if entry.source == SOURCE_NONE else snapshot.lists.read(entry)
    return entry.source, entry.city, lists


def _with(changes: UserChanges, lists: UserLists) -> UserLists:
    """The lists as far as they tell what was ordered, with new orders in front."""
    new = changes.ordered
    if not new:
        return lists
    return lists._replace(order_again=[*new, *(o for o in lists.order_again if o not in new)])


class _Walk:
    """Takes the stages of a list one after the other, until a page is full."""

    def __init__(
        self,
        snapshot: LocalSnapshot,
        limit: int,
        *,
        excluded: frozenset[int],
        gone: frozenset[int],
        start: Position,
    ) -> None:
        self._ids = snapshot.restaurants.ids
        self._cities = snapshot.restaurants.cities
        self._excluded = excluded
        self._gone = gone
        self._start = start
        self._missing = limit
        self.segments: list[Segment] = []
        self.next: Position | None = None

    def offset(self, stage: int) -> int:
        """Where the page begins in the row of that stage."""
        return self._start.offset if stage == self._start.stage else 0

    def take(
        self,
        stage: int,
        source: str,
        tail: Iterable[int],
        *,
        taken: Collection[int] = (),
        but_of: int = NO_CITY,
    ) -> None:
        """Goes on with a row of that stage, from `offset` on, without the restaurants of a city."""
        if stage < self._start.stage or self.next is not None:
            return
        ids, cities = self._ids, self._cities
        excluded, gone = self._excluded, self._gone
        picked: list[int] = []
        missing = self._missing
        for offset, ordinal in enumerate(tail, self.offset(stage)):
            if (
                ordinal in taken
                or ordinal in gone
                or (but_of and cities[ordinal] == but_of)
                or (excluded and ids[ordinal] in excluded)
            ):
                continue
            if not missing:
                self.next = Position(stage, offset)
                break
            picked.append(ordinal)
            missing -= 1
        self._missing = missing
        if picked:
            self.segments.append(Segment(source, picked))


def _fill(
    walk: _Walk,
    snapshot: LocalSnapshot,
    city: int,
    *,
    selection: Selection | None,
    taken: Collection[int],
) -> None:
    def row(of: int) -> Sequence[int]:
        if selection is None:
            return snapshot.popular.row(of)
        return snapshot.selector.popular(selection, of)

    if selection is not None and selection.city != NO_CITY:
        city = selection.city
    if city != NO_CITY:
        walk.take(LOCAL, "popular-city", row(city)[walk.offset(LOCAL) :], taken=taken)
    if walk.next is None and (selection is None or selection.city == NO_CITY):
        rest = row(EVERYWHERE)[walk.offset(ELSEWHERE) :]
        walk.take(ELSEWHERE, "popular", rest, taken=taken, but_of=city)


def _rung(snapshot: LocalSnapshot, source: int, city: int) -> str:
    """The rung a user stands on, whether or not it holds anything."""
    if source != SOURCE_NONE:
        return "personal" if source == SOURCE_PERSONAL else "preferences"
    if city != NO_CITY and len(snapshot.popular.row(city)):
        return "popular-city"
    return "popular"
