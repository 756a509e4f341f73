"""Bytes <-> the binary parts of a snapshot: restaurants, users, lists, rankings, index.

Specified in docs/snapshot-format.md. All numbers are little-endian. A part is a header and
sections (`sections.py`). An ordinal is the position of a restaurant in the `restaurants` part; it
takes two bytes below 65,536 restaurants, else four.

Writers take buffers (bytes, array.array, memoryview, numpy arrays) and never copy them whole;
readers keep views into a mapped file. Checksums are verified by whoever fetched the part; readers
check the header, the total length and every offset they follow, so that damaged counts raise
SnapshotDamaged before anything is allocated. Nothing here knows numpy, stores or HTTP.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple

from shared.errors import SnapshotDamaged
from shared.snapshot.sections import HEADER, cut_sections, length_of, read_header, write_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

KIND_RESTAURANTS = 1
KIND_USERS = 2
KIND_LISTS = 3
KIND_POPULAR = 4
KIND_SIMILAR = 5
KIND_METADATA_INDEX = 6
KIND_TRENDING = 7
KIND_NEW = 8

SOURCE_NONE = 0
SOURCE_PERSONAL = 1
SOURCE_PREFERENCES = 2

NO_CITY = 0
EVERYWHERE = 0  # the row of `popular`, `trending` and `new` that knows no city

_WIDE_FROM = 65_536
_CODES: dict[int, Literal["H", "I"]] = {2: "H", 4: "I"}


class UserEntry(NamedTuple):
    """Where a user's record stands in the `lists` part (in ordinals), and what it rests on."""

    start: int
    stop: int
    city: int
    source: int


class UserLists(NamedTuple):
    """Ordinals, best first. `for_you` and `discover` are heads; `order_again` is whole."""

    for_you: Sequence[int]
    discover: Sequence[int]
    order_again: Sequence[int]


def ordinal_width(restaurants: int) -> int:
    """Bytes an ordinal takes among that many restaurants: 2 or 4."""
    return 2 if restaurants < _WIDE_FROM else 4


def write_restaurants(file: BinaryIO, *, ids: Buffer, cities: Buffer) -> None:
    """ids: int64, ascending, shape (n,). cities: uint16 codes, shape (n,), 0 = no city."""
    count = length_of(ids, 8)
    assert length_of(cities, 2) == count
    write_part(file, KIND_RESTAURANTS, count, ordinal_width(count), ids, cities)


def write_users(
    file: BinaryIO, *, ids: Buffer, offsets: Buffer, cities: Buffer, sources: Buffer
) -> None:
    """ids: int64, ascending, (n,). offsets: uint32, (n + 1,), in ordinals of the `lists` part.

    cities: uint16 codes, (n,). sources: uint8, (n,), one of the SOURCE constants.
    """
    count = length_of(ids, 8)
    assert length_of(offsets, 4) == count + 1
    assert length_of(cities, 2) == length_of(sources, 1) == count
    write_part(file, KIND_USERS, count, 0, ids, offsets, cities, sources)


class ListsWriter:
    """Appends one record a user: two lengths, then for_you, discover and order_again."""

    def __init__(self, file: BinaryIO, *, users: int, width: int) -> None:
        self._file = file
        self._lengths = struct.Struct("<HH" if width == 2 else "<II")
        self._width = width
        self.offset = 0
        """Ordinals written so far: the next record's place."""
        write_part(file, KIND_LISTS, users, width)

    def append(self, for_you: bytes, discover: bytes, order_again: bytes) -> int:
        """Takes ordinals of the part's width as bytes; returns the offset after the record."""
        width = self._width
        head = self._lengths.pack(len(for_you) // width, len(discover) // width)
        record = b"".join((head, for_you, discover, order_again))
        return self.append_records(record)

    def append_records(self, records: Buffer) -> int:
        """Takes whole records, one after the other; returns the offset after the last."""
        written = memoryview(records).nbytes
        self._file.write(records)
        self.offset += written // self._width
        return self.offset


def write_record(lists: UserLists, *, width: int) -> bytes:
    """One user's record, as it stands in the `lists` part."""
    first, second = len(lists.for_you), len(lists.discover)
    return array(
        _CODES[width], (first, second, *lists.for_you, *lists.discover, *lists.order_again)
    ).tobytes()


def read_record(data: Buffer, *, width: int) -> UserLists:
    """Raises SnapshotDamaged where the record contradicts itself."""
    if width not in _CODES or memoryview(data).nbytes % width:
        raise SnapshotDamaged("a user's record has an unknown ordinal width")
    items = memoryview(data).cast(_CODES[width])
    if len(items) < 2:
        raise SnapshotDamaged("a user's record is cut off")
    discover_at = 2 + items[0]
    again_at = discover_at + items[1]
    if again_at > len(items):
        raise SnapshotDamaged("a user's record states lengths beyond its end")
    return UserLists(items[2:discover_at], items[discover_at:again_at], items[again_at:])


def write_ragged(
    file: BinaryIO, *, kind: int, offsets: Buffer, ordinals: Buffer, width: int
) -> None:
    """Rows of different lengths: the kinds of `Ragged`. offsets: uint32, shape (rows + 1,)."""
    write_part(file, kind, length_of(offsets, 4) - 1, width, offsets, ordinals)


def write_metadata_index(file: BinaryIO, *, offsets: Buffer) -> None:
    """offsets: uint32, shape (restaurants + 1,): where each object stands in `metadata`."""
    write_part(file, KIND_METADATA_INDEX, length_of(offsets, 4) - 1, 0, offsets)


class Restaurants:
    """ordinal <-> id, and each restaurant's city code."""

    def __init__(self, part: memoryview) -> None:
        header, (ids, cities) = cut_sections(part, KIND_RESTAURANTS, (8, 0), (2, 0))
        if header.width != ordinal_width(header.count):
            raise SnapshotDamaged("the restaurants part states a wrong ordinal width")
        self.count = header.count
        self.width = header.width
        self.ids = ids.cast("q")
        self.cities = cities.cast("H")

    def ordinal_of(self, restaurant_id: int) -> int | None:
        at = bisect_left(self.ids, restaurant_id)
        return at if at < self.count and self.ids[at] == restaurant_id else None


class Users:
    """The index of users: binary search over ascending ids."""

    def __init__(self, part: memoryview) -> None:
        header, sections = cut_sections(part, KIND_USERS, (8, 0), (4, 1), (2, 0), (1, 0))
        ids, offsets, cities, sources = sections
        self.count = header.count
        self.ids = ids.cast("q")
        self._offsets = offsets.cast("I")
        self._cities = cities.cast("H")
        self._sources = sources.cast("B")

    def find(self, user_id: int) -> UserEntry | None:
        at = bisect_left(self.ids, user_id)
        if at == self.count or self.ids[at] != user_id:
            return None
        return self.entry(at)

    def entry(self, at: int) -> UserEntry:
        """Of the user in that place, in the order of ids."""
        offsets = self._offsets
        return UserEntry(offsets[at], offsets[at + 1], self._cities[at], self._sources[at])


class Lists:
    """Reads records with `pread`: pages touched by one user do not stay in this process.

    The descriptor is closed with the object; the file it came from may be unlinked before.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self._descriptor).st_size
        header = read_header(os.pread(self._descriptor, HEADER.size, 0), KIND_LISTS)
        if header.width not in _CODES:
            raise SnapshotDamaged("the lists part states an unknown ordinal width")
        self.width = header.width
        self._stop = (size - HEADER.size) // header.width

    def read(self, entry: UserEntry) -> UserLists:
        """Raises SnapshotDamaged where the record leaves the part or contradicts itself."""
        start, stop, width = entry.start, entry.stop, self.width
        if not start + 2 <= stop <= self._stop:
            raise SnapshotDamaged("a user's record lies outside the lists part")
        data = os.pread(self._descriptor, (stop - start) * width, HEADER.size + start * width)
        return read_record(data, width=width)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


class Ragged:
    """Rows of ordinals: `popular`, `trending` and `new` (row 0 = everywhere, then a row a city),
    and `similar` (a row a restaurant)."""

    def __init__(self, part: memoryview, *, kind: int) -> None:
        header = read_header(part, kind)
        if header.width not in _CODES:
            raise SnapshotDamaged("a part states an unknown ordinal width")
        _, (offsets, ordinals) = cut_sections(part, kind, (4, 1), (header.width, None))
        self.count = header.count
        self._offsets = offsets.cast("I")
        self._ordinals = ordinals.cast(_CODES[header.width])
        if self._offsets[header.count] != len(self._ordinals):
            raise SnapshotDamaged("a part's offsets do not end where its ordinals end")

    def row(self, number: int) -> Sequence[int]:
        """Empty for a row that does not exist."""
        if not 0 <= number < self.count:
            return ()
        return self._ordinals[self._offsets[number] : self._offsets[number + 1]]


class MetadataIndex:
    """Where each restaurant's object stands in the uncompressed `metadata` part."""

    def __init__(self, part: memoryview) -> None:
        header, (offsets,) = cut_sections(part, KIND_METADATA_INDEX, (4, 1))
        self.count = header.count
        self._offsets = offsets.cast("I")

    def span(self, ordinal: int) -> tuple[int, int]:
        """(start, stop) in bytes; the separating comma is not part of it."""
        return self._offsets[ordinal], self._offsets[ordinal + 1] - 1
