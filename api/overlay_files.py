"""The bytes of a file of overlay records, and as much of one as can be believed.

A file is a line that names its log, then entries: a head of 32 bytes and the record. The checksum
in the head covers all of it, so that what a write left unfinished ends the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from shared.snapshot.manifest import is_version
from shared.snapshot.overlay import MAX_RECORD_BYTES, Subject

MAX_SUBJECTS = 400_000
HEAD = struct.Struct("<IIQqB7x")
"""Checksum of the rest, bytes of the record, place in the log, id, 0 for a user."""
READ_BYTES = 1024**2

_FORM = "tastematch-overlay 1 {}\n"
_LENGTH_BITS = 20
_LENGTH = (1 << _LENGTH_BITS) - 1

assert MAX_RECORD_BYTES <= _LENGTH


def key_of(subject: Subject, subject_id: int) -> int:
    """Users and restaurants have ids of their own: those of restaurants are inverted."""
    return subject_id if subject == "user" else ~subject_id


def subject_of(key: int) -> tuple[Subject, int]:
    return ("user", key) if key >= 0 else ("restaurant", ~key)


class Record(NamedTuple):
    """One entry of a log. Empty data: the key no longer says anything."""

    place: int
    subject: Subject
    subject_id: int
    data: bytes

    @property
    def key(self) -> int:
        return key_of(self.subject, self.subject_id)


class LockedFile:
    """A descriptor, closed with the object: whoever reads it may go on after it was replaced."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)

    def lock(self) -> bool:
        """Whether it is this process's now, and nobody has taken it from the disk."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return os.fstat(self.descriptor).st_nlink > 0

    def write(self, data: bytes | bytearray, offset: int) -> None:
        """Raises OSError."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.descriptor, view, offset)
            view, offset = view[written:], offset + written

    def read(self, span: int) -> bytes | None:
        """The record that lies there; None where it cannot be read."""
        length = span & _LENGTH
        try:
            data = os.pread(self.descriptor, length, span >> _LENGTH_BITS)
        except OSError:
            return None
        return data if len(data) == length else None

    def place(self, span: int) -> int | None:
        """Of the record that lies there, in its log; None where it cannot be read."""
        try:
            head = os.pread(self.descriptor, HEAD.size, (span >> _LENGTH_BITS) - HEAD.size)
        except OSError:
            return None
        return int(HEAD.unpack(head)[2]) if len(head) == HEAD.size else None


class Scanned(NamedTuple):
    """`spans`: key -> where the record lies. `size` 0: it is no file of that log and release."""

    spans: dict[int, int]
    last_place: int
    size: int
    live_bytes: int
    has_replaced: bool = False
    """Users have records in it that hold no more."""


def first_line(log: str) -> bytes:
    return _FORM.format(log).encode()


def encoded(record: Record) -> bytes:
    kind = 0 if record.subject == "user" else 1
    head = HEAD.pack(0, len(record.data), record.place, record.subject_id, kind)[4:]
    return zlib.crc32(record.data, zlib.crc32(head)).to_bytes(4, "little") + head + record.data


def span_of(offset: int, record: Record) -> int:
    """Of the record of an entry that begins there."""
    return offset + HEAD.size << _LENGTH_BITS | len(record.data)


def entry_bytes(span: int) -> int:
    return HEAD.size + (span & _LENGTH)


def scanned(file: LockedFile, log: str) -> Scanned:
    """Up to the first entry that is not whole. Raises OSError."""
    spans: dict[int, int] = {}
    last_place = live_bytes = 0
    has_replaced = False
    form = first_line(log)
    with open(file.descriptor, "rb", buffering=READ_BYTES, closefd=False) as reader:
        reader.seek(0)
        if reader.read(len(form)) != form:
            return Scanned(spans, 0, 0, 0)
        size = len(form)
        while len(head := reader.read(HEAD.size)) == HEAD.size:
            checksum, length, place, subject_id, kind = HEAD.unpack(head)
            if length > MAX_RECORD_BYTES or kind > 1 or subject_id < 0:
                break
            data = reader.read(length)
            if len(data) < length or zlib.crc32(data, zlib.crc32(head[4:])) != checksum:
                break
            key = ~subject_id if kind else subject_id
            if (old := spans.pop(key, None)) is not None:
                live_bytes -= entry_bytes(old)
                has_replaced |= not kind
            if length and len(spans) < MAX_SUBJECTS:
                spans[key] = size + HEAD.size << _LENGTH_BITS | length
                live_bytes += HEAD.size + length
            last_place = max(last_place, place)
            size += HEAD.size + length
    return Scanned(spans, last_place, size, live_bytes, has_replaced)


def remove_abandoned(folder: Path, kept: Collection[str]) -> None:
    """Removes files of the logs of versions that are not kept and that no process holds."""
    for path in folder.glob("*.*"):
        log = path.name.rpartition(".")[0]
        if is_version(log) and log not in kept:
            with contextlib.suppress(OSError):
                file = LockedFile(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
                if file.lock():
                    path.unlink()
