"""Which list a user gets: the ladder personal -> preferences -> popular-city -> popular.

A user's record holds the heads of `for_you` and `discover`; beyond them a list goes on with what
is popular in the user's city, then everywhere, never twice the same and `discover` never with
something ordered. `order_again` is what was ordered and nothing else. Ordinals in, ordinals out;
no I/O but the `pread` of one record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from api.local_snapshot import LocalSnapshot
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


class Segment(NamedTuple):
    """Ordinals that one rung of the ladder gave, best first."""

    source: str
    ordinals: Sequence[int]


class Served(NamedTuple):
    """The list in segments. `source` is the first id's, or the rung that would have answered."""

    source: str
    segments: tuple[Segment, ...]
    lists: UserLists
    city: int

    @property
    def ordinals(self) -> Sequence[int]:
        if len(self.segments) == 1:
            return self.segments[0].ordinals
        return [ordinal for segment in self.segments for ordinal in segment.ordinals]


def serve(snapshot: LocalSnapshot, user_id: int, *, list_name: str, limit: int) -> Served:
    """The first `limit` restaurants of one of LISTS for any user, known or not.

    Raises SnapshotDamaged where the user's record contradicts itself.
    """
    entry = snapshot.users.find(user_id)
    if entry is None:
        lists, city = NO_LISTS, NO_CITY
    else:
        lists = NO_LISTS if entry.source == SOURCE_NONE else snapshot.lists.read(entry)
        city = entry.city
    if list_name == "order_again":
        ordered = lists.order_again[:limit]
        source = _rung(snapshot, entry)
        return Served(source, (Segment(source, ordered),) if ordered else (), lists, city)
    is_discover = list_name == "discover"
    head = (lists.discover if is_discover else lists.for_you)[:limit]
    own = "personal" if entry is not None and entry.source == SOURCE_PERSONAL else "preferences"
    if len(head) == limit:
        return Served(own, (Segment(own, head),), lists, city)
    segments = [Segment(own, head)] if head else []
    taken = {*head, *lists.order_again} if is_discover else set(head)
    segments += _fill(snapshot, city, taken=taken, missing=limit - len(head))
    source = segments[0].source if segments else _rung(snapshot, entry)
    return Served(source, tuple(segments), lists, city)


def _fill(
    snapshot: LocalSnapshot, city: int, *, taken: Collection[int], missing: int
) -> Iterator[Segment]:
    seen = set(taken)
    rungs = [("popular", EVERYWHERE)]
    if city != NO_CITY:
        rungs.insert(0, ("popular-city", city))
    for source, row in rungs:
        fresh = (ordinal for ordinal in snapshot.popular.row(row) if ordinal not in seen)
        picked = list(islice(fresh, missing))
        if picked:
            yield Segment(source, picked)
            seen.update(picked)
            missing -= len(picked)
        if missing == 0:
            return


def _rung(snapshot: LocalSnapshot, entry: UserEntry | None) -> str:
    """The rung a user stands on, whether or not it holds anything."""
    if entry is not None and entry.source != SOURCE_NONE:
        return "personal" if entry.source == SOURCE_PERSONAL else "preferences"
    if entry is not None and entry.city != NO_CITY and len(snapshot.popular.row(entry.city)):
        return "popular-city"
    return "popular"
