"""Why a restaurant stands in a list: machine-readable evidence from the snapshot alone.

`ordered-before` names the restaurant itself, `similar-to` up to three that the user ordered and
whose similar ones include it. Where a personal choice leaves no such trace in the snapshot, the
weaker statement that is true of it stands: popular in the user's city, or popular.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from api.local_snapshot import LocalSnapshot
from api.serving import Served

MAX_NAMED = 3
MAX_CONSULTED = 100  # ordered restaurants whose similar ones are looked through, the first ones


class Reason(NamedTuple):
    code: str
    ordinals: tuple[int, ...] = ()


def reasons_of(snapshot: LocalSnapshot, served: Served) -> dict[int, Reason]:
    """A reason for each ordinal of the list."""
    ordered = set(served.lists.order_again)
    similar_to = _similar_to(snapshot, served, set(served.ordinals) - ordered)
    reasons: dict[int, Reason] = {}
    for segment in served.segments:
        for ordinal in segment.ordinals:
            if segment.source == "popular-city":
                reason = Reason("popular-in-city")
            elif segment.source == "popular":
                reason = Reason("popular")
            elif segment.source == "preferences":
                reason = Reason("preference")
            elif ordinal in ordered:
                reason = Reason("ordered-before", (ordinal,))
            elif ordinal in similar_to:
                reason = Reason("similar-to", tuple(similar_to[ordinal]))
            else:
                is_local = served.city and snapshot.restaurants.cities[ordinal] == served.city
                reason = Reason("popular-in-city" if is_local else "popular")
            reasons[ordinal] = reason
    return reasons


def _similar_to(
    snapshot: LocalSnapshot, served: Served, wanted: Collection[int]
) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for own in served.lists.order_again[:MAX_CONSULTED]:
        for ordinal in snapshot.similar.row(own):
            if ordinal in wanted:
                named = found.setdefault(ordinal, [])
                if len(named) < MAX_NAMED:
                    named.append(own)
    return found
