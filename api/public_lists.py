"""The lists that are the same for everyone: what is popular, what grows and what is new.

Rankings stand in the snapshot, of everywhere and of each city. Where one ends, the popular ones
go on, never twice the same; so they do in place of a ranking that the snapshot does not hold,
since the release before published none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from itertools import chain, islice

from api.local_snapshot import LocalSnapshot

PUBLIC_LISTS = ("popular", "trending", "new")


def public_list(
    snapshot: LocalSnapshot,
    name: str,
    *,
    city: int,
    cuisine: str | None,
    limit: int,
    gone: Set[int] = frozenset(),
) -> list[int]:
    """The first `limit` ordinals of one of PUBLIC_LISTS, in a city code or EVERYWHERE.

    gone: ordinals that are left out.
    """
    rows: list[Sequence[int]] = [snapshot.popular.row(city)]
    if name in snapshot.rankings:
        rows.insert(0, snapshot.rankings[name].row(city))
    found: Iterator[int] = chain(*rows)
    if cuisine is not None:
        found = snapshot.cuisines.having(cuisine, *rows)
    if gone:
        found = (ordinal for ordinal in found if ordinal not in gone)
    # The ranking in front of the popular ones repeats nothing, nor do they.
    return list(islice(_each_once(found) if len(rows) > 1 else found, limit))


def _each_once(ordinals: Iterator[int]) -> Iterator[int]:
    seen: set[int] = set()
    for ordinal in ordinals:
        if ordinal not in seen:
            seen.add(ordinal)
            yield ordinal
