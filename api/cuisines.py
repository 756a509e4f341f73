"""Which restaurants have which cuisine.

`cuisine_type` may hold several, separated by `|`. A restaurant has a cuisine whose name is any of
them, in any case. Restaurants hold codes: most share what they hold with others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain


class CuisineIndex:
    """Ordinals -> whether they have a cuisine."""

    def __init__(self, codes: Sequence[int], names: Sequence[str | None]) -> None:
        """codes: places in `names`, one for each restaurant, in the order of the ordinals."""
        self.codes = codes
        having: dict[str, set[int]] = defaultdict(set)
        for code, held in enumerate(names):
            for cuisine in (held or "").split("|"):
                having[_key(cuisine)].add(code)
        having.pop("", None)
        self._having = dict(having)

    def codes_having(self, cuisine: str) -> set[int]:
        """The codes of all that have the cuisine; empty for a name that none has."""
        return self._having.get(_key(cuisine), set())

    def having(self, cuisine: str, *rows: Sequence[int]) -> Iterator[int]:
        """Those of the ordinals, row after row, that have the cuisine."""
        wanted = self.codes_having(cuisine)
        if not wanted:
            return iter(())
        codes = self.codes
        return (ordinal for ordinal in chain(*rows) if codes[ordinal] in wanted)


def _key(cuisine: str) -> str:
    return cuisine.strip().casefold()
