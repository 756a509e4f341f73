"""Records of one log of the overlay on the local disk: read one at a time, kept over restarts.

A file is appended to, never changed, and written anew where most of it was replaced. In memory
stands where each record lies. A process has a file of its own, with a lock on it: one that starts
takes what a process that ended left behind, or copies what a living one has.

Where the disk refuses, records stay in memory, within a bound.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

from api.overlay_files import (
    HEAD,
    MAX_SUBJECTS,
    LockedFile,
    Record,
    Scanned,
    encoded,
    entry_bytes,
    first_line,
    scanned,
    span_of,
    subject_of,
)

MAX_LIVE_BYTES = 128 * 1024**2
MAX_HELD_BYTES = 16 * 1024**2  # of records that the disk did not take
SPARE_BYTES = 4 * 1024**2  # replaced records take at least as much before a file is written anew
WRITE_BYTES = 1024**2

_NOBODY = 2**63 - 1
_HELD_ENTRY_BYTES = 200  # of memory beside a record that is held there


class RecordsFull(Exception):
    """The log has more than a replica takes; what came before is still there."""


class _State(NamedTuple):
    """`spans`: key -> where the record lies in the file, or minus a number of `held`."""

    file: LockedFile | None
    spans: dict[int, int]
    held: dict[int, bytes]

    def read(self, span: int) -> bytes | None:
        if span < 0:
            return self.held.get(-span)
        assert self.file is not None
        return self.file.read(span)


class RecordFile:
    """Written by one thread at a time, read by any."""

    def __init__(self, folder: Path, log: str) -> None:
        """Opens what is there; raises nothing."""
        self._folder = folder
        self._log = log
        self._state = _State(None, {}, {})
        self._size = self._live_bytes = self._held_bytes = self._held_count = 0
        self.last_place = 0
        self.rewritten = 0
        """How often spans became void."""
        self.is_unclean = False
        """What was replaced is to be taken from the disk: see `clean`."""
        self._is_removed = False
        with contextlib.suppress(OSError):
            self._take_over()

    def __len__(self) -> int:
        return len(self._state.spans)

    @property
    def keys(self) -> Set[int]:
        """`Record.key` of all that says something: grows until `rewritten` changes."""
        return self._state.spans.keys()

    def data(self, key: int) -> bytes | None:
        """The record of a key as `Record.key` has it."""
        state = self._state
        span = state.spans.get(key)
        data = None if span is None else state.read(span)
        if data is None and span != state.spans.get(key):
            return self.data(key)  # replaced meanwhile
        return data

    def place(self, key: int) -> int:
        """Of its record; the last one where that is not known."""
        span, file = self._state.spans.get(key), self._state.file
        place = file.place(span) if file is not None and span is not None and span > 0 else None
        return self.last_place if place is None else place

    def span(self, user_id: int) -> int | None:
        """Where the user's record lies; good until `rewritten` changes."""
        return self._state.spans.get(user_id)

    def at(self, span: int) -> bytes | None:
        return self._state.read(span)

    def restaurants(self) -> list[int]:
        """The ids of those that have a record."""
        return [~key for key in self._state.spans if key < 0]

    def append(self, records: Sequence[Record]) -> None:
        """Raises RecordsFull, before anything is taken, where that would be too much."""
        self._check_room(records)
        try:
            offset = self._write(b"".join(map(encoded, records)))
        except OSError:
            self._hold(records)
        else:
            for record in records:
                self._enter(record, span_of(offset, record))
                offset += HEAD.size + len(record.data)
            if self._state.held or self._size > 2 * self._live_bytes + SPARE_BYTES:
                with contextlib.suppress(OSError):
                    self._rewrite(self._state)
        self.last_place = max(self.last_place, *(record.place for record in records))

    def clean(self) -> None:
        """Writes the file anew, without what was replaced. Raises OSError."""
        if self._state.file is not None and not self._is_removed:
            self._rewrite(self._state)
        self.is_unclean = False

    def remove(self) -> None:
        """Takes the file from the disk; what it holds can be read as long as this object is."""
        self._is_removed = True
        if (file := self._state.file) is not None:
            with contextlib.suppress(OSError):
                file.path.unlink()

    def _write(self, data: bytes) -> int:
        """Appends all or nothing; returns the offset. Raises OSError."""
        if self._state.file is None:
            self._state = self._state._replace(file=self._begun())
            self._size = len(first_line(self._log))
        file, begin = self._state.file, self._size
        assert file is not None
        try:
            file.write(data, begin)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file.descriptor, begin)
            raise
        self._size += len(data)
        return begin

    def _check_room(self, records: Sequence[Record]) -> None:
        """What takes the place of another record counts as much as it is longer."""
        sizes = {record.key: len(record.data) for record in records}
        subjects = bytes_ = 0
        for key, size in sizes.items():
            old = self._state.spans.get(key)
            subjects += bool(size) - (old is not None)
            bytes_ += HEAD.size + size if size else 0
            bytes_ -= entry_bytes(old) if old is not None and old > 0 else 0
        is_too_large = self._live_bytes + self._held_bytes + bytes_ > MAX_LIVE_BYTES
        is_too_many = len(self) + subjects > MAX_SUBJECTS
        if (is_too_large and bytes_ > 0) or (is_too_many and subjects > 0):
            raise RecordsFull

    def _hold(self, records: Sequence[Record]) -> None:
        held = self._state.held
        added = sum(_HELD_ENTRY_BYTES + len(record.data) for record in records if record.data)
        for key in {record.key for record in records}:
            if (old := held.get(-self._state.spans.get(key, 0))) is not None:
                added -= _HELD_ENTRY_BYTES + len(old)
        if self._held_bytes + added > MAX_HELD_BYTES and added > 0:
            raise RecordsFull
        for record in records:
            self._held_count += 1
            if record.data:
                held[self._held_count] = record.data
                self._held_bytes += _HELD_ENTRY_BYTES + len(record.data)
            self._enter(record, -self._held_count)

    def _enter(self, record: Record, span: int) -> None:
        spans = self._state.spans
        old = spans.get(record.key)
        if record.data:
            spans[record.key] = span  # in one step: a reader finds the old one or the new one
            self._live_bytes += entry_bytes(span) if span > 0 else 0
        elif old is not None:
            del spans[record.key]
        if old is not None and old > 0:
            self._live_bytes -= entry_bytes(old)
        elif old is not None and (data := self._state.held.pop(-old, None)) is not None:
            self._held_bytes -= _HELD_ENTRY_BYTES + len(data)

    def _rewrite(self, old: _State, *, is_ours: bool = True) -> None:
        """Only what still says something, in a new file. Raises OSError."""
        file = self._begun()
        offset, live_bytes = len(first_line(self._log)), 0
        spans: dict[int, int] = {}
        pieces = bytearray()
        try:
            for key, span in old.spans.items():
                data = old.read(span)
                if not data:
                    continue
                place = old.file.place(span) if old.file is not None and span > 0 else None
                if place is None:
                    place = self.last_place
                record = Record(place, *subject_of(key), data)
                spans[key] = span_of(offset + len(pieces), record)
                pieces += encoded(record)
                live_bytes += entry_bytes(spans[key])
                if len(pieces) > WRITE_BYTES:
                    file.write(pieces, offset)
                    offset += len(pieces)
                    pieces.clear()
            # Where the log was read to, whichever records are left.
            pieces += encoded(Record(self.last_place, "restaurant", _NOBODY, b""))
            file.write(pieces, offset)
        except OSError:
            file.path.unlink(missing_ok=True)
            raise
        self._state = _State(file, spans, {})
        self._size, self._live_bytes, self._held_bytes = offset + len(pieces), live_bytes, 0
        self.rewritten += 1
        self.is_unclean = False
        if is_ours and old.file is not None:
            old.file.path.unlink(missing_ok=True)

    def _begun(self) -> LockedFile:
        """A new file with the lock on it. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._log}.{secrets.token_hex(4)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        file = LockedFile(path, os.open(path, flags, 0o600))
        file.lock()
        try:
            file.write(first_line(self._log), 0)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return file

    def _take_over(self) -> None:
        """The file with the latest records; others that nobody holds are removed."""
        found: list[tuple[LockedFile, bool, Scanned]] = []
        for path in self._folder.glob(f"{self._log}.*"):
            with contextlib.suppress(OSError):
                file = LockedFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
                found.append((file, file.lock(), scanned(file, self._log)))
        found.sort(key=lambda each: (each[2].last_place, each[1]))
        if found and found[-1][2].size:
            file, is_ours, content = found.pop()
            self.last_place = content.last_place
            state = _State(file, content.spans, {})
            if is_ours:
                self._state, self._size = state, content.size
                self._live_bytes = content.live_bytes
                self.is_unclean = content.has_replaced
            else:
                try:
                    self._rewrite(state, is_ours=False)
                except OSError:
                    self.last_place = 0
        for file, is_ours, _ in found:
            if is_ours:
                file.path.unlink(missing_ok=True)
