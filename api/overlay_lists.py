"""What the log of a version says, as far as it can be believed: lists that were made anew since.

As of exclusions (`overlay_logs.py`): what cannot be believed is passed over, and what was taken is
on the local disk.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from api.overlay_files import Record
from api.overlay_logs import Erased, Taken, Told
from api.overlay_records import RecordFile
from shared.errors import SnapshotDamaged
from shared.snapshot.format import SOURCE_NONE, SOURCE_PERSONAL, SOURCE_PREFERENCES
from shared.snapshot.overlay import GONE, Entry, RefreshedUser, decode_refreshed, parse_key

MAX_OLDER = 20_000  # lists that were replaced and can still be paged through

_SOURCES = frozenset({SOURCE_NONE, SOURCE_PERSONAL, SOURCE_PREFERENCES})


class Found(NamedTuple):
    """A user's lists. `mark` is their revision and a checksum, which tells two of one revision
    apart."""

    user: RefreshedUser
    mark: bytes


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

    def place(self, user_id: int) -> int:
        """Where in the log the user's lists are; of a user who is in `keys`."""
        return self._file.place(user_id)

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
                user = None if entry.record == GONE else self._checked(entry.record)
            except SnapshotDamaged:
                taken.refused += 1
                continue
            revision = None if user is None else user.revision
            record = self._file.data(user_id)
            known = None if record is None else _believed(record)
            newest = max(came.get(user_id, 0), known.user.revision if known else 0)
            if revision is not None and revision < newest:
                continue
            if revision is not None:
                came[user_id] = revision
                taken.told.append(Told("user", user_id, revision, entry.place, True))
            if (record or GONE) == entry.record:
                continue
            has_lists = user is not None and any(user.lists)
            if known is not None and any(known.user.lists) and not has_lists:
                self._file.is_unclean = True  # as of a user who was erased
            if known is not None and (span := self._file.span(user_id)) is not None:
                self._older[user_id, known.user.revision] = span
            records.append(Record(entry.place, "user", user_id, entry.record))
        if records:
            self._file.append(records)
        self._follow_file()
        return taken

    def erase(self, erased: Iterable[Erased]) -> None:
        """Raises RecordsFull."""
        records = []
        for user_id, revision, place in erased:
            found = self.find(user_id)
            if found is None or not any(found.user.lists):
                continue
            if found.user.revision <= revision or self._file.place(user_id) < place:
                records.append(Record(self.last_place, "user", user_id, GONE))
        if records:
            self._file.append(records)
            self._file.is_unclean = True
        self._follow_file()

    @property
    def is_unclean(self) -> bool:
        """The file has records of users who were erased since."""
        return self._file.is_unclean

    def clean(self) -> None:
        """Raises OSError."""
        self._file.clean()
        self._follow_file()

    def _follow_file(self) -> None:
        self.keys = self._file.keys
        if self._rewritten != self._file.rewritten:
            self._rewritten = self._file.rewritten
            self._older.clear()
        while len(self._older) > MAX_OLDER:
            self._older.popitem(last=False)

    def remove(self) -> None:
        """Takes them from the disk; whoever holds them may go on reading."""
        self._file.remove()

    def _checked(self, record: bytes) -> RefreshedUser:
        """Raises SnapshotDamaged for what is not of this version."""
        user = decode_refreshed(record)
        is_known = user.source in _SOURCES and user.city < self._cities and user.revision >= 1
        if not is_known or max(map(_largest, user.lists)) >= self._restaurants:
            raise SnapshotDamaged("a record of an overlay is not of its version")
        return user


def _largest(ordinals: Iterable[int]) -> int:
    return max(ordinals, default=-1)


def _believed(record: bytes) -> Found | None:
    try:
        user = decode_refreshed(record)
        return Found(user, b"%d-%08x" % (user.revision, zlib.crc32(record)))
    except SnapshotDamaged:
        return None
