"""What changed since a snapshot was made, as the worker tells it to every replica of the API.

There is a log for each version, with the lists of users who ordered since, and one log for all
versions, EXCLUSIONS: what must not be shown whatever snapshot is served. A log holds the newest
record of each key, in the order in which they came; a reader asks for what came after what it
knows. Records are bytes of an explicit form, written and read here alone; `redis_overlay.py` and
`disk_overlay.py` keep them (docs/snapshot-format.md).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import orjson

from shared.errors import SnapshotDamaged
from shared.snapshot.format import UserLists, read_record, write_record

EXCLUSIONS = "exclusions"
MAX_RECORD_BYTES = 512 * 1024 - 64
MAX_RECORDS = 1_000
"""Of one append, and of one answer to a reader."""
READ_BYTES = 4 * 1024**2
"""Of one answer to a reader, unless a single record is larger."""
SEAL_BYTES = 4
ENTRY_BYTES = 200
"""What an entry takes in a store beside its key and record."""
MAX_HIDDEN = 1_000
"""Restaurants a user may hide."""
GONE = b""
"""The record of a key that no longer says anything."""

_LISTS = struct.Struct("<4sBBHQ")
_MAGIC = b"TMO1"
_MAX_ID = 2**63 - 1

Subject = Literal["user", "restaurant"]


class Entry(NamedTuple):
    """`place` grows with every record of a log, also after the store lost all it had."""

    place: int
    key: str
    record: bytes


class OverlayReader(Protocol):
    """What a replica follows. All calls are synchronous and bounded in time."""

    def read(self, log: str, *, after: int, limit: int) -> list[Entry]:
        """The newest record of each key that came after a place, in the order of their places.

        Empty where nothing came, or there is no such log; fewer than `limit` also where they are
        large or many, so a reader asks on until nothing comes. Raises StoreUnavailable;
        SnapshotDamaged, as long as the damaged record was not replaced or its log dropped.
        """

    def close(self) -> None: ...


class OverlayWriter(OverlayReader, Protocol):
    """What a worker writes; two roles of one store."""

    def append(self, log: str, records: Mapping[str, bytes]) -> int:
        """Writes all records or none, in their order; returns the last one's place.

        At least one and at most MAX_RECORDS, of at most MAX_RECORD_BYTES each. Raises
        StoreUnavailable, StoreFull; SnapshotDamaged where the whole store is.
        """

    def logs(self) -> list[str]:
        """The names of all logs. Raises StoreUnavailable."""

    def size_bytes(self, log: str) -> int:
        """What a log takes: keys, sealed records, and ENTRY_BYTES each. 0 where there is none.

        Raises StoreUnavailable.
        """

    def remove(self, log: str, keys: Sequence[str]) -> None:
        """Takes keys out of a log without a word to its readers. Raises StoreUnavailable."""

    def drop(self, log: str) -> None:
        """Removes a whole log; later places are still greater. Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class RefreshedUser:
    """One user's lists by the model of one version, in its ordinals, as of a revision."""

    revision: int
    source: int
    """A SOURCE constant of the format."""
    city: int
    """A city code of the version."""
    lists: UserLists


@dataclass(frozen=True, slots=True)
class UserExclusion:
    """What holds for a user in every version."""

    revision: int
    is_erased: bool
    hidden: frozenset[int]
    """Restaurant ids."""
    erased_at: int = 0
    """When an earlier user of this id was erased, in seconds since 1970; 0 where none was.

    What a snapshot holds of the id is void where it may lack writes of that second.
    """


@dataclass(frozen=True, slots=True)
class RestaurantExclusion:
    """A restaurant that is shown nowhere."""

    revision: int


def user_key(user_id: int) -> str:
    return f"u{user_id}"


def restaurant_key(restaurant_id: int) -> str:
    return f"r{restaurant_id}"


WHOLE = restaurant_key(_MAX_ID)
"""Written last into EXCLUSIONS, GONE: all of the log is there. For who does not look for it, a
restaurant like any other."""


def parse_key(key: str) -> tuple[Subject, int]:
    """Raises SnapshotDamaged for anything but what the two functions above make."""
    subject: Subject = "user" if key[:1] == "u" else "restaurant"
    number = key[1:]
    if key[:1] not in ("u", "r") or not number.isascii() or not number.isdigit():
        raise SnapshotDamaged("an overlay has a key of an unknown form")
    if len(number) > 19 or int(number) > _MAX_ID:
        raise SnapshotDamaged("an overlay has a key of an unknown form")
    return subject, int(number)


def encode_refreshed(user: RefreshedUser, *, width: int) -> bytes:
    """width: bytes of an ordinal in the version."""
    head = _LISTS.pack(_MAGIC, user.source, width, user.city, user.revision)
    return head + write_record(user.lists, width=width)


def decode_refreshed(record: bytes) -> RefreshedUser:
    """Raises SnapshotDamaged."""
    if len(record) < _LISTS.size:
        raise SnapshotDamaged("a record of an overlay is cut off")
    magic, source, width, city, revision = _LISTS.unpack_from(record)
    if magic != _MAGIC or width not in (2, 4):
        raise SnapshotDamaged("a record of an overlay has an unknown form")
    lists = read_record(record[_LISTS.size :], width=width)
    return RefreshedUser(revision, source, city, lists)


def encode_exclusion(exclusion: UserExclusion | RestaurantExclusion) -> bytes:
    """One of a user that excludes nothing any more says so with its revision: not GONE."""
    if isinstance(exclusion, RestaurantExclusion):
        return orjson.dumps({"form": 1, "revision": exclusion.revision})
    return orjson.dumps(
        {
            "form": 1,
            "revision": exclusion.revision,
            "erased": exclusion.is_erased,
            "hidden": sorted(exclusion.hidden),
            "erased_at": exclusion.erased_at,
        }
    )


def decode_user_exclusion(record: bytes) -> UserExclusion:
    """Raises SnapshotDamaged."""
    fields = _fields(record)
    hidden, erased_at = fields.get("hidden"), fields.get("erased_at", 0)
    if not isinstance(hidden, list) or not all(type(each) is int for each in hidden):
        raise SnapshotDamaged("a record of an overlay has an unknown form")
    if not isinstance(erased_at, int) or erased_at < 0:
        raise SnapshotDamaged("a record of an overlay has an unknown form")
    is_erased = fields.get("erased") is True
    return UserExclusion(_revision(fields), is_erased, frozenset(hidden), erased_at)


def decode_restaurant_exclusion(record: bytes) -> RestaurantExclusion:
    """Raises SnapshotDamaged."""
    return RestaurantExclusion(_revision(_fields(record)))


def seal(key: str, record: bytes) -> bytes:
    """What a store holds of a record: the CRC-32 of key and record before it."""
    assert len(record) <= MAX_RECORD_BYTES
    return zlib.crc32(record, zlib.crc32(key.encode())).to_bytes(SEAL_BYTES, "little") + record


def unseal(key: str, sealed: bytes) -> bytes:
    """Raises SnapshotDamaged where key or record are not those that were sealed."""
    record = sealed[SEAL_BYTES:]
    if sealed != seal(key, record[:MAX_RECORD_BYTES]):
        raise SnapshotDamaged("a record of an overlay differs from its checksum")
    return record


def _fields(record: bytes) -> dict[str, object]:
    try:
        fields = orjson.loads(record)
    except ValueError:
        raise SnapshotDamaged("a record of an overlay cannot be read") from None
    if not isinstance(fields, dict) or fields.get("form") != 1:
        raise SnapshotDamaged("a record of an overlay has an unknown form")
    return fields


def _revision(fields: dict[str, object]) -> int:
    revision = fields.get("revision")
    if type(revision) is not int or revision < 1:
        raise SnapshotDamaged("a record of an overlay has an unknown form")
    return revision
