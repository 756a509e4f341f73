"""Records of one log of the overlay on the local disk: read one at a time, kept over restarts.

A file is a head that names the log, then entries; a later one replaces what came before under the
same key. It is appended to, never changed, and written anew where most of it was replaced. In
memory stands where each record lies. A process has a file of its own, with a lock on it: one that
starts takes what a process that ended left behind, or copies what a living one has.

Where the disk refuses, records stay in memory, within a bound.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shared.snapshot.overlay import MAX_RECORD_BYTES, Subject

MAX_LIVE_BYTES = 128 * 1024**2
MAX_MEMORY_BYTES = 16 * 1024**2  # of records that the disk did not take
MAX_SUBJECTS = 400_000
SPARE_BYTES = 4 * 1024**2  # replaced records take at least as much before a file is written anew
WRITE_BYTES = 1024**2

_FORM = "tastematch-overlay 1 {}\n"
_ENTRY = struct.Struct("<IIQqB7x")  # checksum of the rest, length, place, id, kind
_SUBJECTS: tuple[Subject, ...] = ("user", "restaurant")
_LENGTH_BITS = 20
_LENGTH = (1 << _LENGTH_BITS) - 1
_HELD_BYTES = 100  # of memory beside a record that is kept there


class Record(NamedTuple):
    """One entry of a log. Empty data: the key no longer says anything."""

    place: int
    subject: Subject
    subject_id: int
    data: bytes


class RecordsFull(Exception):
    """The log has more than a replica takes; what came before is still there."""


class _File:
    """A descriptor with a lock on it; closed with the object, so that readers may go on."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class _State(NamedTuple):
    """`places`: key -> offset and length in the file, or minus a number of `held`."""

    file: _File | None
    places: dict[int, int]
    held: dict[int, bytes]


class RecordFile:
    """Written by one thread at a time, read by any."""

    def __init__(self, folder: Path, log: str) -> None:
        """Opens what is there; raises nothing."""
        self._folder = folder
        self._log = log
        self._form = _FORM.format(log).encode()
        self._state = _State(None, {}, {})
        self._held_bytes = self._size = self._live_bytes = self._numbered = 0
        self.last_place = 0
        self.rewritten = 0
        """How often the places of records became void."""
        with contextlib.suppress(OSError):
            self._take_over()

    def __len__(self) -> int:
        return len(self._state.places)

    def of_user(self, user_id: int) -> bytes | None:
        state = self._state
        location = state.places.get(user_id)
        return None if location is None else _read(state, location)

    def location(self, user_id: int) -> int | None:
        """Where the user's record lies; good until `rewritten` changes."""
        return self._state.places.get(user_id)

    def at(self, location: int) -> bytes | None:
        return _read(self._state, location)

    def restaurants(self) -> list[int]:
        """The ids of those that have a record."""
        return [~key for key in self._state.places if key < 0]

    def append(self, records: Sequence[Record]) -> None:
        """Raises RecordsFull, before anything is taken, where that would be too much."""
        added = sum(len(record.data) + _ENTRY.size for record in records)
        too_large = self._live_bytes + self._held_bytes + added > MAX_LIVE_BYTES
        if too_large or len(self) + len(records) > MAX_SUBJECTS:
            raise RecordsFull
        try:
            offset = self._write(b"".join(map(_entry, records)))
        except OSError:
            self._hold(records, added)
        else:
            for record in records:
                self._enter(record, (offset + _ENTRY.size) << _LENGTH_BITS | len(record.data))
                offset += _ENTRY.size + len(record.data)
            if self._state.held or self._size > 2 * self._live_bytes + SPARE_BYTES:
                with contextlib.suppress(OSError):
                    self._rewrite(self._state)
        self.last_place = max(self.last_place, *(record.place for record in records))

    def remove(self) -> None:
        """Takes the file from the disk; what it holds can be read as long as this object is."""
        if (file := self._state.file) is not None:
            with contextlib.suppress(OSError):
                file.path.unlink()

    # --- writing ---

    def _write(self, data: bytes) -> int:
        """Appends all or nothing; returns the offset. Raises OSError."""
        if self._state.file is None:
            self._state = self._state._replace(file=self._begun())
            self._size = len(self._form)
        assert self._state.file is not None
        descriptor, begin = self._state.file.descriptor, self._size
        try:
            _write_all(descriptor, data, begin)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, begin)
            raise
        self._size += len(data)
        return begin

    def _hold(self, records: Sequence[Record], added: int) -> None:
        self._held_bytes += added + _HELD_BYTES * len(records)
        if self._held_bytes > MAX_MEMORY_BYTES:
            self._held_bytes -= added + _HELD_BYTES * len(records)
            raise RecordsFull
        for record in records:
            self._numbered += 1
            self._state.held[self._numbered] = record.data
            self._enter(record, -self._numbered)

    def _enter(self, record: Record, location: int) -> None:
        index = self._state.places
        key = record.subject_id if record.subject == "user" else ~record.subject_id
        old = index.get(key)
        if record.data:
            index[key] = location  # in one step: a reader finds the old one or the new one
            self._live_bytes += len(record.data) + _ENTRY.size if location > 0 else 0
        elif old is not None:
            del index[key]
        if old is not None and old > 0:
            self._live_bytes -= (old & _LENGTH) + _ENTRY.size

    def _rewrite(self, old: _State, *, is_ours: bool = True) -> None:
        """Only what still says something, in a new file. Raises OSError."""
        file, offset, index = self._begun(), len(self._form), {}
        live_bytes, pieces = 0, bytearray()
        try:
            for key, location in old.places.items():
                data = _read(old, location) or b""
                subject: Subject = "user" if key >= 0 else "restaurant"
                subject_id = key if key >= 0 else ~key
                pieces += _entry(Record(self.last_place, subject, subject_id, data))
                at = offset + len(pieces) - len(data)
                index[key] = at << _LENGTH_BITS | len(data)
                live_bytes += len(data) + _ENTRY.size
                if len(pieces) > WRITE_BYTES:
                    _write_all(file.descriptor, pieces, offset)
                    offset += len(pieces)
                    pieces = bytearray()
            _write_all(file.descriptor, pieces, offset)
        except OSError:
            file.path.unlink(missing_ok=True)
            raise
        self._state = _State(file, index, {})
        self._size, self._live_bytes, self._held_bytes = offset + len(pieces), live_bytes, 0
        self.rewritten += 1
        if is_ours and old.file is not None:
            old.file.path.unlink(missing_ok=True)

    def _begun(self) -> _File:
        """A new file with the lock on it. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._log}.{secrets.token_hex(4)}"
        file = _File(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_all(file.descriptor, self._form, 0)
        return file

    # --- what is found at the start ---

    def _take_over(self) -> None:
        """The file with the latest records. Raises OSError."""
        found: list[tuple[int, bool, _State, int, int]] = []
        for path in self._folder.glob(f"{self._log}.*"):
            with contextlib.suppress(OSError):
                file = _File(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
                is_ours = _is_lockable(file)
                index, last_place, size, live_bytes = _scanned(file.descriptor, self._form)
                if size or not is_ours:
                    state = _State(file, index, {})
                    found.append((last_place, is_ours, state, size, live_bytes))
                else:
                    path.unlink(missing_ok=True)
        found.sort(key=lambda each: each[:2])
        if not found:
            return
        self.last_place, is_ours, self._state, self._size, self._live_bytes = found.pop()
        if not is_ours:
            self._copy(self._state)
        for _, is_left, state, _, _ in found:
            if is_left and state.file is not None:
                state.file.path.unlink(missing_ok=True)

    def _copy(self, theirs: _State) -> None:
        """Makes what a living process has our own, or begins with nothing."""
        try:
            self._rewrite(theirs, is_ours=False)
        except OSError:
            self._state = _State(None, {}, {})
            self.last_place = self._size = self._live_bytes = 0


def _entry(record: Record) -> bytes:
    kind = _SUBJECTS.index(record.subject)
    head = _ENTRY.pack(0, len(record.data), record.place, record.subject_id, kind)[4:]
    return zlib.crc32(record.data, zlib.crc32(head)).to_bytes(4, "little") + head + record.data


def _write_all(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _read(state: _State, location: int) -> bytes | None:
    """None where the record cannot be read."""
    if location < 0:
        return state.held.get(-location)
    assert state.file is not None
    length = location & _LENGTH
    try:
        data = os.pread(state.file.descriptor, length, location >> _LENGTH_BITS)
    except OSError:
        return None
    return data if len(data) == length else None


def _is_lockable(file: _File) -> bool:
    """Whether its process has ended, and nobody else takes it. The lock is kept."""
    try:
        fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return os.fstat(file.descriptor).st_nlink > 0


def _scanned(descriptor: int, form: bytes) -> tuple[dict[int, int], int, int, int]:
    """(index, last place, bytes, live bytes) up to the first entry that is not whole.

    No bytes: it is no file of this log and release.
    """
    index: dict[int, int] = {}
    last_place = live_bytes = 0
    with open(descriptor, "rb", buffering=WRITE_BYTES, closefd=False) as file:
        file.seek(0)
        if file.read(len(form)) != form:
            return index, 0, 0, 0
        size = len(form)
        while len(head := file.read(_ENTRY.size)) == _ENTRY.size:
            checksum, length, place, subject_id, kind = _ENTRY.unpack(head)
            if length > MAX_RECORD_BYTES or kind >= len(_SUBJECTS) or subject_id < 0:
                break
            data = file.read(length)
            if len(data) < length or zlib.crc32(data, zlib.crc32(head[4:])) != checksum:
                break
            key = subject_id if kind == 0 else ~subject_id
            old = index.pop(key, None)
            if old is not None:
                live_bytes -= (old & _LENGTH) + _ENTRY.size
            if length and len(index) < MAX_SUBJECTS:
                index[key] = (size + _ENTRY.size) << _LENGTH_BITS | length
                live_bytes += length + _ENTRY.size
            last_place = max(last_place, place)
            size += _ENTRY.size + length
    return index, last_place, size, live_bytes
