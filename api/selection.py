"""What passes a filter in one snapshot: a byte a restaurant, and the popular ones that pass.

Both are made at the first request with the filter and kept, the latest used within a bound of
bytes; they end with the snapshot. A circle is checked restaurant by restaurant, as nearly every
caller has another: all that lie within are looked for only where a list has to be completed.
"""

from __future__ import annotations

import sys
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from api.circle import found_within, sift
from api.columns import Columns, Places
from api.filters import Filters
from shared.errors import SnapshotOutdated
from shared.snapshot.format import EVERYWHERE, NO_CITY, Ragged

MAX_KEPT_BYTES = 2 * 1024**2  # of masks, and as much of rows
ENTRY_BYTES = 300  # of an entry beside its content

Key = TypeVar("Key")
Value = TypeVar("Value")


class Selection(NamedTuple):
    """`city` is the one city that the filter names, or NO_CITY. No mask: any restaurant passes."""

    filters: Filters
    city: int
    mask: bytes | None
    sift: Callable[[Iterable[int]], Iterator[int]] | None
    """Lets those through that lie in the circle."""

    def passing(self, row: Sequence[int]) -> Iterable[int]:
        """Those of the row that pass, in its order; without a circle a list."""
        if (mask := self.mask) is not None:
            row = [ordinal for ordinal in row if mask[ordinal]]
        return row if self.sift is None else self.sift(row)


class Selector:
    """Makes selections in one snapshot, and keeps what they are made of."""

    def __init__(
        self,
        columns: Columns,
        *,
        cities: Sequence[int],
        popular: Ragged,
        city_code: Callable[[str], int | None],
    ) -> None:
        """cities: the city code of each restaurant. city_code: of a name, None for an unknown."""
        self._columns = columns
        self._cities = cities
        self._popular = popular
        self._city_code = city_code
        self._selections: _Kept[Filters, Selection] = _Kept()
        self._rows: _Kept[tuple[Filters, int], Sequence[int]] = _Kept()
        self._ranks: array[int] | None = None

    def select(self, filters: Filters) -> Selection:
        """Raises SnapshotOutdated where the snapshot knows no places and the filter asks one."""
        circle = filters.circle
        attributes = filters if circle is None else filters._replace(circle=None)
        selection = self._selections.find(attributes)
        if selection is None:
            mask = None if attributes.is_empty else self._mask(attributes)
            city = self._city_code(filters.cities[0]) if len(filters.cities) == 1 else None
            selection = Selection(attributes, city or NO_CITY, mask, None)
            self._selections.keep(attributes, selection, size=len(mask or b"") + _bytes(filters))
        if circle is None:
            return selection
        return selection._replace(filters=filters, sift=sift(self._places(), circle))

    def forget(self) -> None:
        """Lets go of what was kept; may be called from any thread."""
        self._selections, self._rows = _Kept(), _Kept()

    def popular(self, selection: Selection, city: int) -> Sequence[int]:
        """What passes in a city, or EVERYWHERE, the popular ones first."""
        if selection.mask is not None and 1 not in selection.mask:
            return ()
        key = (selection.filters, city)
        row = self._rows.find(key)
        if row is None:
            row = memoryview(array("I", self._passing(selection, city)))
            self._rows.keep(key, row, size=row.nbytes + _bytes(selection.filters))
        return row

    def _passing(self, selection: Selection, city: int) -> Iterable[int]:
        circle = selection.filters.circle
        if circle is None:
            return selection.passing(self._popular.row(city))
        if city != EVERYWHERE:
            cities = self._cities
            return (o for o in self.popular(selection, EVERYWHERE) if cities[o] == city)
        found: Iterable[int] = found_within(self._places(), circle)
        if (mask := selection.mask) is not None:
            found = (ordinal for ordinal in found if mask[ordinal])
        return sorted(found, key=self._popular_ranks().__getitem__)

    def _mask(self, filters: Filters) -> bytes:
        """A byte for each ordinal: 1 where all filters but the circle pass."""
        masks: list[bytes] = []
        columns = self._columns
        if filters.cuisines:
            index = columns.cuisines
            wanted = set().union(*map(index.codes_having, filters.cuisines))
            masks.append(_having(index.codes, wanted))
        if filters.cities:
            codes = {self._city_code(name) or NO_CITY for name in filters.cities} - {NO_CITY}
            masks.append(_having(self._cities, codes))
        if filters.price_ranges:
            passes = bytes(code in filters.price_ranges for code in range(256))
            masks.append(bytes(columns.price_ranges).translate(passes))
        whole = int.from_bytes(masks[0], "little")
        for mask in masks[1:]:
            whole &= int.from_bytes(mask, "little")
        return whole.to_bytes(len(masks[0]), "little")

    def _places(self) -> Places:
        if self._columns.places is None:
            raise SnapshotOutdated(
                "this snapshot was made by an older release and knows no places: `near` works "
                "from the next one on"
            )
        return self._columns.places

    def _popular_ranks(self) -> array[int]:
        """The place of each ordinal among the popular ones."""
        if self._ranks is None:
            row = self._popular.row(EVERYWHERE)
            ranks = array("I", bytes(4 * len(self._cities)))
            for rank, ordinal in enumerate(row):
                ranks[ordinal] = rank
            self._ranks = ranks
        return self._ranks


class _Kept(Generic[Key, Value]):
    """The latest used values, within MAX_KEPT_BYTES."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def find(self, key: Key) -> Value | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def keep(self, key: Key, value: Value, *, size: int) -> None:
        size += ENTRY_BYTES
        self._entries[key] = value, size
        self._bytes += size
        while self._bytes > MAX_KEPT_BYTES and len(self._entries) > 1:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed


def _bytes(filters: Filters) -> int:
    """What the names take, which clients choose."""
    return sum(map(sys.getsizeof, (*filters.cuisines, *filters.cities)))


def _having(codes: Sequence[int], wanted: set[int]) -> bytes:
    """A byte for each of the codes: 1 where it is wanted."""
    if not wanted:
        return bytes(len(codes))
    table = bytearray(max(max(codes, default=0), *wanted) + 1)
    for code in wanted:
        table[code] = 1
    return bytes(map(table.__getitem__, codes))
