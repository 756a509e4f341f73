"""What the two logs of the overlay say, as far as it can be believed: exclusions, refreshed lists.

Records come from a store that others write: one that is damaged, of an unknown form or not of the
version it stands under is passed over, and what was known before still holds. What was taken is
on the local disk (`overlay_records.py`) and is taken apart when somebody asks.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from api.overlay_files import Record
from api.overlay_records import RecordFile
from shared.errors import SnapshotDamaged
from shared.snapshot.format import SOURCE_NONE, SOURCE_PERSONAL, SOURCE_PREFERENCES
from shared.snapshot.overlay import (
    EXCLUSIONS,
    GONE,
    Entry,
    RefreshedUser,
    Subject,
    UserExclusion,
    decode_refreshed,
    decode_restaurant_exclusion,
    decode_user_exclusion,
    parse_key,
)

MAX_INACTIVE = 200_000
MAX_OLDER = 20_000  # lists that were replaced and can still be paged through

_SOURCES = frozenset({SOURCE_NONE, SOURCE_PERSONAL, SOURCE_PREFERENCES})


class Told(NamedTuple):
    """What a record said, for the notes it makes needless. `revision`: None for nothing."""

    subject: Subject
    subject_id: int
    revision: int | None


class Found(NamedTuple):
    """A user's lists. `mark` is their revision and a checksum, which tells two of one revision
    apart."""

    user: RefreshedUser
    mark: bytes


@dataclass(slots=True)
class Taken:
    """`refused` records were passed over."""

    told: list[Told]
    refused: int = 0


class Exclusions:
    """The log EXCLUSIONS: who is erased, who hides what, which restaurants are inactive."""

    def __init__(self, folder: Path) -> None:
        self._file = RecordFile(folder, EXCLUSIONS)
        self.keys = self._file.keys
        """Of users by their ids, and others: who is not among them need not be looked for."""
        self.inactive = frozenset(self._file.restaurants())
        """Replaced, never changed."""

    @property
    def last_place(self) -> int:
        return self._file.last_place

    def __len__(self) -> int:
        return len(self._file)

    def of_user(self, user_id: int) -> UserExclusion | None:
        record = self._file.data(user_id)
        if record is None:
            return None
        try:
            return decode_user_exclusion(record)
        except SnapshotDamaged:
            return None

    def take(self, entries: Iterable[Entry]) -> Taken:
        """Raises RecordsFull."""
        taken, records = Taken([]), []
        inactive = set(self.inactive)
        for entry in entries:
            try:
                subject, subject_id = parse_key(entry.key)
                revision = _revision(subject, entry.record)
            except SnapshotDamaged:
                taken.refused += 1
                continue
            if subject == "restaurant":
                if entry.record == GONE:
                    inactive.discard(subject_id)
                elif len(inactive) < MAX_INACTIVE:
                    inactive.add(subject_id)
                else:
                    taken.refused += 1
                    continue
            record = Record(entry.place, subject, subject_id, entry.record)
            if self._file.data(record.key) != entry.record:
                records.append(record)
            taken.told.append(Told(subject, subject_id, revision))
        if records:
            self._file.append(records)
            self.keys = self._file.keys
        if inactive != self.inactive:
            self.inactive = frozenset(inactive)
        return taken


class RefreshedLists:
    """The log of one version: lists that the worker made anew since."""

    def __init__(self, folder: Path, version: str, *, restaurants: int, cities: int) -> None:
        """restaurants, cities: how many the version has."""
        self._file = RecordFile(folder, version)
        self._restaurants = restaurants
        self._cities = cities
        self.keys = self._file.keys
        """As for `Exclusions`."""
        self._older: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._rewritten = self._file.rewritten

    @property
    def last_place(self) -> int:
        return self._file.last_place

    def __len__(self) -> int:
        return len(self._file)

    def find(self, user_id: int) -> Found | None:
        record = self._file.data(user_id)
        return None if record is None else _believed(record)

    def find_older(self, user_id: int, revision: int) -> Found | None:
        """Lists of that revision that were replaced since, for pages that began in them."""
        span = self._older.get((user_id, revision))
        record = None if span is None else self._file.at(span)
        found = None if record is None else _believed(record)
        return found if found is not None and found.user.revision == revision else None

    def take(self, entries: Iterable[Entry]) -> Taken:
        """A record of an older revision than is known changes nothing. Raises RecordsFull."""
        taken, records = Taken([]), []
        came: dict[int, int] = {}
        for entry in entries:
            try:
                subject, user_id = parse_key(entry.key)
                if subject != "user":
                    raise SnapshotDamaged("a log of lists speaks of a restaurant")
                revision = None if entry.record == GONE else self._checked(entry.record)
            except SnapshotDamaged:
                taken.refused += 1
                continue
            known = self.find(user_id)
            newest = max(came.get(user_id, 0), known.user.revision if known else 0)
            if revision is not None and revision < newest:
                continue
            if revision is not None:
                came[user_id] = revision
                taken.told.append(Told("user", user_id, revision))
            if self._file.data(user_id) == entry.record:
                continue
            if known is not None and (span := self._file.span(user_id)) is not None:
                self._older[user_id, known.user.revision] = span
            records.append(Record(entry.place, "user", user_id, entry.record))
        if records:
            self._file.append(records)
            self.keys = self._file.keys
        if self._rewritten != self._file.rewritten:
            self._rewritten = self._file.rewritten
            self._older.clear()
        while len(self._older) > MAX_OLDER:
            self._older.popitem(last=False)
        return taken

    def remove(self) -> None:
        """Takes them from the disk; whoever holds them may go on reading."""
        self._file.remove()

    def _checked(self, record: bytes) -> int:
        """The revision. Raises SnapshotDamaged for what is not of this version."""
        user = decode_refreshed(record)
        is_known = user.source in _SOURCES and user.city < self._cities and user.revision >= 1
        if not is_known or max(map(_largest, user.lists)) >= self._restaurants:
            raise SnapshotDamaged("a record of an overlay is not of its version")
        return user.revision


def _largest(ordinals: Iterable[int]) -> int:
    return max(ordinals, default=-1)


def _believed(record: bytes) -> Found | None:
    try:
        user = decode_refreshed(record)
        return Found(user, b"%d-%08x" % (user.revision, zlib.crc32(record)))
    except SnapshotDamaged:
        return None


def _revision(subject: Subject, record: bytes) -> int | None:
    if record == GONE:
        return None
    if subject == "restaurant":
        return decode_restaurant_exclusion(record).revision
    return decode_user_exclusion(record).revision
