"""What all binary parts of a snapshot are made of: a header, then sections at multiples of eight.

The header has 24 bytes: magic `TMS1`, kind (u16), schema (u16), count (u64), ordinal width in bytes
(u16), six bytes of zero. Specified in docs/snapshot-format.md. Checksums are verified by whoever
fetched the part; here the header and the total length are.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from shared.errors import SnapshotDamaged

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC = b"TMS1"
SCHEMA = 1
HEADER = struct.Struct("<4sHHQH6x")

assert sys.byteorder == "little", "mapped sections are read in the machine's own byte order"


@dataclass(frozen=True, slots=True)
class Header:
    kind: int
    count: int
    width: int


def write_part(file: BinaryIO, kind: int, count: int, width: int, *sections: Buffer) -> None:
    file.write(HEADER.pack(MAGIC, kind, SCHEMA, count, width))
    for section in sections:
        view = memoryview(section)
        file.write(view)
        file.write(bytes(_padding(view.nbytes)))


def read_header(part: Buffer, kind: int) -> Header:
    if memoryview(part).nbytes < HEADER.size:
        raise SnapshotDamaged("a part is shorter than its header")
    magic, found, schema, count, width = HEADER.unpack_from(part)
    if magic != MAGIC or found != kind or schema != SCHEMA:
        raise SnapshotDamaged("a part's header is not that of its kind")
    return Header(kind, count, width)


def cut_sections(
    part: memoryview, kind: int, *widths: tuple[int, int | None]
) -> tuple[Header, list[memoryview]]:
    """Cuts a part into sections of (item bytes, items beyond count); None takes the rest."""
    header = read_header(part, kind)
    sections: list[memoryview] = []
    at = HEADER.size
    for item_bytes, extra in widths:
        if extra is None:
            # The rest may end in padding; offsets tell how much of it is data.
            last = sections[-1].cast("I")[header.count]
            size = last * item_bytes
        else:
            size = (header.count + extra) * item_bytes
        if at + size > part.nbytes:
            raise SnapshotDamaged("a part is shorter than its header states")
        sections.append(part[at : at + size])
        at += size + _padding(size)
    if at != part.nbytes:
        raise SnapshotDamaged("a part is longer than its header states")
    return header, sections


def length_of(data: Buffer, item_bytes: int) -> int:
    size = memoryview(data).nbytes
    assert size % item_bytes == 0
    return size // item_bytes


def _padding(size: int) -> int:
    return -size % 8
