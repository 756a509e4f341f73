"""Bytes <-> the part `metadata_history`: which restaurants differ from which earlier metadata.

Versions of the metadata are numbered from 0, oldest first; the last is the snapshot's own. Each
restaurant has the number of the version since which it looks as it does now, each restaurant that
is gone the number of the first version without it: whoever holds version *i* needs what has a
greater number. Specified in docs/snapshot-format.md.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from shared.errors import SnapshotDamaged
from shared.snapshot.sections import HEADER, read_header, write_part

if TYPE_CHECKING:
    from typing_extensions import Buffer

PART = "metadata_history"
KIND = 10
MAX_VERSIONS = 200
"""Earlier versions and the snapshot's own. A number takes one byte."""
VERSION_BYTES = 16

_COUNTS = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class MetadataHistory:
    """`versions`: oldest first, each once. `current_until`: when each stopped being the newest,
    seconds since 1970, 0 for the last. `changed_at`: a byte for each ordinal. `removed_ids`:
    ascending; `removed_at`: a byte for each of them."""

    versions: Sequence[str]
    current_until: Sequence[int]
    changed_at: Buffer
    removed_ids: Sequence[int]
    removed_at: Buffer


def places_after(numbers: Buffer, number: int) -> Iterator[int]:
    """Where the numbers are greater than this one, ascending."""
    flags = bytes(numbers).translate(bytes(number + 1) + b"\x01" * (255 - number))
    place = flags.find(1)
    while place >= 0:
        yield place
        place = flags.find(1, place + 1)


def write_metadata_history(file: BinaryIO, history: MetadataHistory) -> None:
    versions = "".join(history.versions).encode("ascii")
    count = len(history.versions)
    assert 1 <= count <= MAX_VERSIONS
    assert len(versions) == count * VERSION_BYTES
    write_part(
        file,
        KIND,
        memoryview(history.changed_at).nbytes,
        0,
        _COUNTS.pack(count, len(history.removed_ids)),
        versions,
        array("q", history.current_until),
        array("q", history.removed_ids),
        history.removed_at,
        history.changed_at,
    )


def read_metadata_history(part: memoryview) -> MetadataHistory:
    """Keeps views into the part. Raises SnapshotDamaged."""
    restaurants = read_header(part, KIND).count
    if part.nbytes < HEADER.size + _COUNTS.size:
        raise SnapshotDamaged("the metadata history is shorter than its counts")
    versions, removed = _COUNTS.unpack_from(part, HEADER.size)
    sizes = [versions * VERSION_BYTES, versions * 8, removed * 8, removed, restaurants]
    begins = [*accumulate((size + -size % 8 for size in sizes), initial=40)]
    if not 1 <= versions <= MAX_VERSIONS or begins.pop() != part.nbytes:
        raise SnapshotDamaged("the metadata history has another length than it states")
    names, until, removed_ids, removed_at, changed_at = (
        part[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)
    )
    if any(max(numbers, default=0) >= versions for numbers in (removed_at, changed_at)):
        raise SnapshotDamaged("the metadata history names a version that it does not hold")
    return MetadataHistory(
        versions=_names(bytes(names)),
        current_until=until.cast("q"),
        changed_at=changed_at,
        removed_ids=removed_ids.cast("q"),
        removed_at=removed_at,
    )


def _names(data: bytes) -> list[str]:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise SnapshotDamaged("the metadata history names versions that are no text") from None
    return [text[at : at + VERSION_BYTES] for at in range(0, len(text), VERSION_BYTES)]
