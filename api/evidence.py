"""Why a restaurant stands in a list: machine-readable evidence from the snapshot alone.

`ordered-before` names the restaurant itself, `similar-to` up to three that the user ordered and
that stand in its similar ones, or have it in theirs. Where a personal choice leaves no such
trace that may be shown, what everyone's lists say of it stands: popular in the user's city,
popular, or new; each is said of what leads that list. Of a restaurant that leads none of them
the weakest is said: popularity is part of every personal choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple

from api.local_snapshot import LocalSnapshot
from api.serving import Served
from shared.snapshot.format import EVERYWHERE, NO_CITY

MAX_NAMED = 3
MAX_CONSULTED = 100  # ordered restaurants whose similar ones are looked through, the first ones
MAX_LEADING = 200  # of a list of everyone, never more than its first half


class Reason(NamedTuple):
    code: str
    ordinals: tuple[int, ...] = ()


POPULAR_IN_CITY = Reason("popular-in-city")
POPULAR = Reason("popular")
PREFERENCE = Reason("preference")
NEW = Reason("new")

_OF_SOURCE = {"popular-city": POPULAR_IN_CITY, "popular": POPULAR, "preferences": PREFERENCE}


def reasons_of(snapshot: LocalSnapshot, served: Served) -> dict[int, Reason]:
    """A reason for each ordinal of the list."""
    reasons: dict[int, Reason] = {}
    for segment in served.segments:
        if segment.source in _OF_SOURCE:
            reasons.update(dict.fromkeys(segment.ordinals, _OF_SOURCE[segment.source]))
        else:
            reasons.update(_personal(snapshot, served, segment.ordinals))
    return reasons


def _personal(
    snapshot: LocalSnapshot, served: Served, ordinals: Sequence[int]
) -> Iterator[tuple[int, Reason]]:
    ordered = {own: place for place, own in enumerate(served.lists.order_again)}
    all_ordered = set(ordered)
    similar_to = _similar_to(snapshot, served, set(ordinals) - ordered.keys())
    unseen = _unseen(snapshot, served)
    leading: list[tuple[Reason, set[int]]] | None = None
    for ordinal in ordinals:
        if ordinal in ordered:
            yield ordinal, Reason("ordered-before", (ordinal,))
            continue
        named = all_ordered.intersection(snapshot.similar.row(ordinal))
        named.update(similar_to.get(ordinal, ()))
        named -= unseen
        if named:
            first = sorted(named, key=ordered.__getitem__)[:MAX_NAMED]
            yield ordinal, Reason("similar-to", tuple(first))
            continue
        if leading is None:
            leading = _leading(snapshot, served.city)
        is_local = served.city != NO_CITY and snapshot.restaurants.cities[ordinal] == served.city
        weakest = POPULAR_IN_CITY if is_local else POPULAR
        yield ordinal, next((reason for reason, led in leading if ordinal in led), weakest)


def _unseen(snapshot: LocalSnapshot, served: Served) -> Set[int]:
    """What no reason may name: restaurants that closed since, or that the user hides."""
    changes = served.changes
    if not changes.hidden:
        return changes.gone
    ordinals = map(snapshot.restaurants.ordinal_of, changes.hidden)
    return changes.gone.union(ordinal for ordinal in ordinals if ordinal is not None)


def _similar_to(snapshot: LocalSnapshot, served: Served, wanted: set[int]) -> dict[int, list[int]]:
    """The ordered ones that have a wanted one among their similar ones."""
    found: dict[int, list[int]] = {}
    if wanted:
        for own in served.lists.order_again[:MAX_CONSULTED]:
            for ordinal in wanted.intersection(snapshot.similar.row(own)):
                found.setdefault(ordinal, []).append(own)
    return found


def _leading(snapshot: LocalSnapshot, city: int) -> list[tuple[Reason, set[int]]]:
    """What leads the lists of everyone, the strongest statement first."""
    rows = [(POPULAR, snapshot.popular.row(EVERYWHERE))]
    new = snapshot.rankings.get("new")
    if new is not None:
        rows.append((NEW, new.row(EVERYWHERE)))
    if city != NO_CITY:
        rows.insert(0, (POPULAR_IN_CITY, snapshot.popular.row(city)))
        if new is not None:
            rows.append((NEW, new.row(city)))
    return [(reason, set(row[: min(MAX_LEADING, (len(row) + 1) // 2)])) for reason, row in rows]
