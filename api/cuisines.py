"""Which restaurants have which cuisine, as their projections tell it.

`cuisine_type` may hold several, separated by `|`. A restaurant has a cuisine whose name is any of
them, in any case. Two or four bytes a restaurant: most share what they hold with others.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

_FEW = 1 << 16


class CuisineIndex:
    """Ordinals -> whether they have a cuisine."""

    def __init__(self, cuisine_types: Iterable[str | None]) -> None:
        """One for each restaurant, in the order of the ordinals."""
        seen: dict[str | None, int] = {}
        codes = array("I", (seen.setdefault(held, len(seen)) for held in cuisine_types))
        self._codes = array("H", codes) if len(seen) <= _FEW else codes
        having: dict[str, set[int]] = defaultdict(set)
        for held, code in seen.items():
            for cuisine in (held or "").split("|"):
                having[_key(cuisine)].add(code)
        having.pop("", None)
        self._having = dict(having)

    def having(self, cuisine: str, *rows: Sequence[int]) -> Iterator[int]:
        """Those of the ordinals, row after row, that have the cuisine."""
        wanted = self._having.get(_key(cuisine))
        if wanted is None:
            return iter(())
        codes = self._codes
        return (ordinal for ordinal in chain(*rows) if codes[ordinal] in wanted)


def _key(cuisine: str) -> str:
    return cuisine.strip().casefold()
