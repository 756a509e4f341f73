"""Where each user's record stands, most of it read from the file by `pread`.

Users that are asked for lie all over the index. Mapped, its pages would soon all count as this
process's memory, 15 MB with a million users; read, they stay in the kernel's cache alone. The ids
at the beginning of each block are kept, so that a search reads one block. City and source are
mapped, as they take a fifth of the index and each reading would cost as much as the search. Users
found lately are remembered: who asks for one list asks for others.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from bisect import bisect_left, bisect_right
from pathlib import Path

from shared.errors import SnapshotDamaged
from shared.snapshot.format import KIND_USERS, UserEntry
from shared.snapshot.sections import HEADER, cut_sections

BLOCK = 128  # ids
MAX_REMEMBERED = 2048  # users, of 300 bytes
ID_BYTES, OFFSET_BYTES, CITY_BYTES, SOURCE_BYTES = 8, 4, 2, 1

_OFFSETS = struct.Struct("<II")
_FIRST = struct.Struct("<q")


class UserIndex:
    """The `users` part of a snapshot. Raises SnapshotDamaged where it is not as it states.

    The descriptor is closed with the object; the file may be unlinked before.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self._file).st_size
        if not size:
            raise SnapshotDamaged("a part is shorter than its header")
        whole = memoryview(mmap.mmap(self._file, size, prot=mmap.PROT_READ))
        header, (_, _, cities, sources) = cut_sections(
            whole, KIND_USERS, (ID_BYTES, 0), (OFFSET_BYTES, 1), (CITY_BYTES, 0), (SOURCE_BYTES, 0)
        )
        count = self.count = header.count
        self._offsets_at = HEADER.size + ID_BYTES * count
        self._cities, self._sources = cities.cast("H"), sources
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_WILLNEED)
        self._remembered: dict[int, UserEntry] = {}
        self._firsts = array("q", map(self._id_at, range(0, count, BLOCK)))

    def find(self, user_id: int) -> UserEntry | None:
        found = self._remembered.get(user_id)
        if found is None and (found := self._search(user_id)) is not None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[user_id] = found
        return found

    def _search(self, user_id: int) -> UserEntry | None:
        block = bisect_right(self._firsts, user_id) - 1
        if block < 0:
            return None
        file, first = self._file, block * BLOCK
        length = min(BLOCK, self.count - first)
        read = os.pread(file, ID_BYTES * length, HEADER.size + ID_BYTES * first)
        ids = memoryview(read).cast("q")
        place = bisect_left(ids, user_id)
        if place == length or ids[place] != user_id:
            return None
        at = first + place
        start, stop = _OFFSETS.unpack(os.pread(file, 8, self._offsets_at + OFFSET_BYTES * at))
        return UserEntry(start, stop, self._cities[at], self._sources[at])

    def _id_at(self, place: int) -> int:
        read = os.pread(self._file, ID_BYTES, HEADER.size + ID_BYTES * place)
        user_id: int = _FIRST.unpack(read)[0]
        return user_id

    def __del__(self) -> None:
        if (descriptor := getattr(self, "_file", None)) is not None:
            os.close(descriptor)
