"""What one version would show to each of its users: the first of each list, as a client gets it.

Read from the store in one pass, users ascending: the part `lists` is never in memory or on a disk
of ours. The head of a list is completed by popular restaurants, as docs/snapshot-format.md says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from shared.errors import SnapshotDamaged
from shared.snapshot.format import (
    EVERYWHERE,
    KIND_LISTS,
    KIND_POPULAR,
    NO_CITY,
    Ragged,
    Restaurants,
    UserEntry,
    UserLists,
    Users,
    read_record,
)
from shared.snapshot.manifest import Manifest
from shared.snapshot.sections import HEADER, read_header
from shared.snapshot.store import SnapshotReader
from shared.snapshot.verification import verified_chunks

TOP = 20

_NO_LISTS = UserLists((), (), ())

Tops = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Restaurant ids of for_you, discover and order_again, best first."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a version holds of one user."""

    city: int
    data: bytes


class UserTops:
    """One version, its users in ascending order."""

    def __init__(self, store: SnapshotReader, manifest: Manifest) -> None:
        def whole(part: str) -> memoryview:
            return memoryview(b"".join(verified_chunks(store, manifest, part)))

        self.users = Users(whole("users"))
        self.ids = Restaurants(whole("restaurants")).ids
        self.known = frozenset(self.ids)
        self._popular = Ragged(whole("popular"), kind=KIND_POPULAR)
        self._lists = _Stream(verified_chunks(store, manifest, "lists"))
        self._width = read_header(self._lists.take(HEADER.size), KIND_LISTS).width
        self._popular_tops: dict[int, Tops] = {}
        self._place = 0

    def record(self, entry: UserEntry) -> Record:
        """To be called once for each user, in their order."""
        if entry.start != self._place or entry.stop < entry.start:
            raise SnapshotDamaged("the records of a snapshot do not follow each other")
        self._place = entry.stop
        return Record(entry.city, self._lists.take((entry.stop - entry.start) * self._width))

    def end(self) -> None:
        """Raises SnapshotDamaged where the part `lists` goes on, or differs from its checksum."""
        self._lists.end()

    def top(self, record: Record | None) -> Tops:
        if record is None:
            return self._popular_top(NO_CITY)
        lists = read_record(record.data, width=self._width)
        if not any(map(len, lists)):
            return self._popular_top(record.city)
        return self._completed(lists, record.city)

    def _popular_top(self, city: int) -> Tops:
        if city not in self._popular_tops:
            self._popular_tops[city] = self._completed(_NO_LISTS, city)
        return self._popular_tops[city]

    def _completed(self, lists: UserLists, city: int) -> Tops:
        try:
            return (
                self._named(self._complete(lists.for_you, city, without=())),
                self._named(self._complete(lists.discover, city, without=lists.order_again)),
                self._named(lists.order_again[:TOP]),
            )
        except IndexError:
            raise SnapshotDamaged("a list names a restaurant that its snapshot lacks") from None

    def _complete(self, head: Sequence[int], city: int, *, without: Sequence[int]) -> Sequence[int]:
        if len(head) >= TOP:
            return head[:TOP]
        taken = {*head, *without}
        rows = [self._popular.row(EVERYWHERE)]
        if city != NO_CITY:
            rows.insert(0, self._popular.row(city))
        picked = list(head)
        for row in rows:
            more = list(islice((o for o in row if o not in taken), TOP - len(picked)))
            picked += more
            taken.update(more)
        return picked

    def _named(self, ordinals: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.ids[ordinal] for ordinal in ordinals)


class _Stream:
    """Bytes of a part, taken from its beginning to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        while len(self._buffer) - self._at < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise SnapshotDamaged("the records of a snapshot go on beyond its lists")
            self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        self._at += size
        return self._buffer[self._at - size : self._at]

    def end(self) -> None:
        if self._at != len(self._buffer) or any(self._chunks):
            raise SnapshotDamaged("the lists of a snapshot go on beyond its users")
