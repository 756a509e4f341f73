"""What the log of exclusions says, as far as it can be believed.

Records come from a store that others write: one that is damaged or of an unknown form
is passed over, and what was known before still holds. What was taken is
on the local disk (`overlay_records.py`) and is taken apart when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from api.overlay_files import Record, key_of, subject_of
from api.overlay_records import RecordFile, RecordsFull
from shared.errors import SnapshotDamaged
from shared.snapshot.overlay import (
    EXCLUSIONS,
    GONE,
    Entry,
    Subject,
    UserExclusion,
    decode_restaurant_exclusion,
    decode_user_exclusion,
    parse_key,
)

MAX_INACTIVE = 200_000


class Told(NamedTuple):
    """What a record said, for the notes it makes needless. `revision`: None for nothing."""

    subject: Subject
    subject_id: int
    revision: int | None
    place: int
    is_new: bool
    """It was not read before."""


class Erased(NamedTuple):
    """A user of whom nothing may be left of a revision or from before a place in a log."""

    user_id: int
    revision: int
    place: int


@dataclass(slots=True)
class Taken:
    """`refused` records were passed over, `left` ones have no room."""

    told: list[Told]
    refused: int = 0
    left: int = 0
    erased: list[Erased] = field(default_factory=list)
    """Of whom that came just now."""


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

    def take(self, entries: Iterable[Entry], known: int = 0) -> Taken:
        """Takes what there is room for. known: the last place that was read before."""
        taken, records = Taken([]), dict[int, Record]()
        closed, opened = set[int](), set[int]()
        for entry in entries:
            try:
                subject, subject_id = parse_key(entry.key)
                revision = _revision(subject, entry.record)
            except SnapshotDamaged:
                taken.refused += 1
                continue
            record = Record(entry.place, subject, subject_id, entry.record)
            is_changed = (self._file.data(record.key) or GONE) != entry.record
            if subject == "restaurant":
                if entry.record == GONE:
                    opened.add(subject_id)
                elif subject_id not in self.inactive:
                    if len(self.inactive) + len(closed) >= MAX_INACTIVE:
                        taken.left += 1
                        continue
                    closed.add(subject_id)
            is_new = is_changed or entry.place > known
            if is_new:
                records[record.key] = record
            taken.told.append(Told(subject, subject_id, revision, entry.place, is_new))
        without_room = self._append(list(records.values()))
        if without_room:
            taken.left += len(without_room)
            closed -= {~key for key in without_room}
            taken.told = [
                each
                for each in taken.told
                if key_of(each.subject, each.subject_id) not in without_room
            ]
        for each in taken.told:
            if each.is_new and each.subject == "user" and (erased := self.erased(each.subject_id)):
                taken.erased.append(erased)
        self._file.is_unclean |= bool(taken.erased)
        if closed or not opened.isdisjoint(self.inactive):
            self.inactive = self.inactive - opened | closed
        return taken

    def erased(self, user_id: int) -> Erased | None:
        """None where neither the user is nor an earlier one of that id was."""
        exclusion = self.of_user(user_id)
        if exclusion is None or not (exclusion.is_erased or exclusion.erased_at):
            return None
        revision = exclusion.revision if exclusion.is_erased else 0
        return Erased(user_id, revision, exclusion.erased_at * 10**6)

    def drop(self, keys: Iterable[int], *, before: int) -> None:
        """Keys, as of `Record`, that the log has no longer; before: a place."""
        gone = [
            Record(self.last_place, *subject_of(key), GONE)
            for key in keys
            if key in self.keys and self._file.place(key) < before
        ]
        self._append(gone)
        self.inactive -= {each.subject_id for each in gone if each.subject == "restaurant"}

    def _append(self, records: list[Record]) -> set[int]:
        """The keys of those for which there is no room."""
        if not records:
            return set()
        without_room = set()
        try:
            self._file.append(records)
        except RecordsFull:
            for record in records:
                try:
                    self._file.append([record])
                except RecordsFull:
                    without_room.add(record.key)
        self.keys = self._file.keys
        return without_room

    @property
    def is_unclean(self) -> bool:
        """The file has records of users who were erased since."""
        return self._file.is_unclean

    def clean(self) -> None:
        """Raises OSError."""
        self._file.clean()
        self.keys = self._file.keys


def _revision(subject: Subject, record: bytes) -> int | None:
    if record == GONE:
        return None
    if subject == "restaurant":
        return decode_restaurant_exclusion(record).revision
    return decode_user_exclusion(record).revision
