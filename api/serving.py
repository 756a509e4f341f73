"""Which list a user gets: the ladder personal -> preferences -> popular-city -> popular.

A user's record holds the heads of `for_you` and `discover`; beyond them a list goes on with what
is popular in the user's city, then everywhere, never twice the same and `discover` never with
something ordered. `order_again` is what was ordered and nothing else. A filter lets through what
passes, in the same order; where it names one city, that one stands in the place of the user's.
Ordinals in, ordinals out; no I/O but the `pread` of one record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from api.filters import NO_FILTERS, Filters
from api.local_snapshot import LocalSnapshot
from api.selection import Selection
from shared.snapshot.format import (
    EVERYWHERE,
    NO_CITY,
    SOURCE_NONE,
    SOURCE_PERSONAL,
    UserEntry,
    UserLists,
)

LISTS = ("for_you", "discover", "order_again")
MAX_LIMIT = 50
DEFAULT_LIMIT = 20

NO_LISTS = UserLists((), (), ())
NOTHING: frozenset[int] = frozenset()

HEAD, LOCAL, ELSEWHERE = range(3)  # the stages of a list


class Position(NamedTuple):
    """Where a page begins: a stage of the list, and how far into its row."""

    stage: int
    offset: int


START = Position(HEAD, 0)


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
) -> Served:
    """The first `limit` restaurants from `start` of one of LISTS for any user, known or not.

    excluded: ids. Raises SnapshotDamaged where the user's record contradicts itself, and
    SnapshotOutdated where the snapshot lacks what a filter asks.
    """
    entry = snapshot.users.find(user_id)
    if entry is None:
        lists, city = NO_LISTS, NO_CITY
    else:
        lists = NO_LISTS if entry.source == SOURCE_NONE else snapshot.lists.read(entry)
        city = entry.city
    own = "personal" if entry is not None and entry.source == SOURCE_PERSONAL else "preferences"
    head = getattr(lists, list_name)
    if filters is NO_FILTERS and not excluded and start is START and len(head) > limit:
        segments = (Segment(own, head[:limit]),)
        return Served(own, segments, lists, city, Position(HEAD, limit))
    walk = _Walk(snapshot, limit, excluded, start)
    selection = None if filters is NO_FILTERS else snapshot.selector.select(filters)
    passing = head if selection is None else selection.passing(head)
    walk.take(HEAD, own, islice(passing, walk.offset(HEAD), None))
    if walk.next is None and list_name != "order_again":
        # What does not pass is in no row that follows.
        taken = set(passing if isinstance(passing, list) else head)
        if list_name == "discover":
            taken.update(lists.order_again)
        _fill(walk, snapshot, city, selection=selection, taken=taken)
    source = walk.segments[0].source if walk.segments else _rung(snapshot, entry)
    return Served(source, tuple(walk.segments), lists, city, walk.next)


class _Walk:
    """Takes the stages of a list one after the other, until a page is full."""

    def __init__(
        self, snapshot: LocalSnapshot, limit: int, excluded: frozenset[int], start: Position
    ) -> None:
        self._ids = snapshot.restaurants.ids
        self._cities = snapshot.restaurants.cities
        self._excluded = excluded
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
        ids, cities, excluded = self._ids, self._cities, self._excluded
        picked: list[int] = []
        missing = self._missing
        for offset, ordinal in enumerate(tail, self.offset(stage)):
            if (
                ordinal in taken
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


def _rung(snapshot: LocalSnapshot, entry: UserEntry | None) -> str:
    """The rung a user stands on, whether or not it holds anything."""
    if entry is not None and entry.source != SOURCE_NONE:
        return "personal" if entry.source == SOURCE_PERSONAL else "preferences"
    if entry is not None and entry.city != NO_CITY and len(snapshot.popular.row(entry.city)):
        return "popular-city"
    return "popular"
