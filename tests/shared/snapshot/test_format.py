"""The binary parts: what is written reads back, and no damaged byte does worse than be refused."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SnapshotDamaged
from shared.snapshot import format as parts
from shared.snapshot.format import (
    HEADER,
    KIND_POPULAR,
    KIND_SIMILAR,
    SOURCE_PERSONAL,
    SOURCE_PREFERENCES,
    Lists,
    ListsWriter,
    MetadataIndex,
    Ragged,
    Restaurants,
    UserEntry,
    Users,
    ordinal_width,
)

ID = st.integers(-(2**63), 2**63 - 1)
CODE = {2: "H", 4: "I"}


def restaurants_part(ids: Sequence[int], cities: Sequence[int]) -> bytes:
    file = BytesIO()
    parts.write_restaurants(file, ids=array("q", ids), cities=array("H", cities))
    return file.getvalue()


def users_part(
    ids: Sequence[int], offsets: Sequence[int], cities: Sequence[int], sources: Sequence[int]
) -> bytes:
    file = BytesIO()
    parts.write_users(
        file,
        ids=array("q", ids),
        offsets=array("I", offsets),
        cities=array("H", cities),
        sources=array("B", sources),
    )
    return file.getvalue()


def lists_part(
    records: Sequence[tuple[list[int], list[int], list[int]]], *, width: int
) -> tuple[bytes, list[int]]:
    """Returns the part and the users' offsets in it."""
    file = BytesIO()
    writer = ListsWriter(file, users=len(records), width=width)
    offsets = [writer.offset]
    for record in records:
        offsets.append(writer.append(*(array(CODE[width], row).tobytes() for row in record)))
    return file.getvalue(), offsets


def ragged_part(rows: Sequence[Sequence[int]], *, width: int, kind: int = KIND_POPULAR) -> bytes:
    offsets, ordinals = array("I", [0]), array(CODE[width])
    for row in rows:
        ordinals.extend(row)
        offsets.append(len(ordinals))
    file = BytesIO()
    parts.write_ragged(file, kind=kind, offsets=offsets, ordinals=ordinals, width=width)
    return file.getvalue()


def index_part(offsets: Sequence[int]) -> bytes:
    file = BytesIO()
    parts.write_metadata_index(file, offsets=array("I", offsets))
    return file.getvalue()


# --- round trips ------------------------------------------------------------------------------


@given(st.dictionaries(ID, st.integers(0, 65_535), max_size=40))
def test_restaurants_read_back(cities: dict[int, int]) -> None:
    ids = sorted(cities)
    part = restaurants_part(ids, [cities[key] for key in ids])
    assert len(part) % 8 == 0
    found = Restaurants(memoryview(part))
    assert (found.count, found.width) == (len(ids), 2)
    assert list(found.ids) == ids
    assert list(found.cities) == [cities[key] for key in ids]
    assert [found.ordinal_of(key) for key in ids] == list(range(len(ids)))
    for stranger in {key + 1 for key in ids if key < 2**63 - 1} - set(ids):
        assert found.ordinal_of(stranger) is None


def test_ordinals_are_wide_from_65536_restaurants() -> None:
    assert (ordinal_width(65_535), ordinal_width(65_536)) == (2, 4)
    ids = range(65_536)
    found = Restaurants(memoryview(restaurants_part(ids, [0] * len(ids))))
    assert found.width == 4
    assert found.ordinal_of(65_535) == 65_535


USER = st.tuples(
    st.integers(0, 65_535), st.sampled_from([SOURCE_PERSONAL, SOURCE_PREFERENCES]), st.integers(2)
)


@given(st.dictionaries(ID, USER, max_size=30))
def test_users_read_back(users: dict[int, tuple[int, int, int]]) -> None:
    ids = sorted(users)
    offsets = [2 * place for place in range(len(ids) + 1)]
    part = users_part(ids, offsets, [users[key][0] for key in ids], [users[key][1] for key in ids])
    found = Users(memoryview(part))
    assert list(found.ids) == ids
    for place, key in enumerate(ids):
        city, source, _ = users[key]
        assert found.find(key) == UserEntry(2 * place, 2 * place + 2, city, source)
        if key + 1 not in users:
            assert found.find(key + 1) is None


@pytest.mark.parametrize("width", [2, 4])
@given(data=st.data())
def test_lists_read_back(
    tmp_path_factory: pytest.TempPathFactory, width: int, data: st.DataObject
) -> None:
    row = st.lists(st.integers(0, 2 ** (8 * width) - 1), max_size=12)
    records = data.draw(st.lists(st.tuples(row, row, row), max_size=8))
    part, offsets = lists_part(records, width=width)
    path = tmp_path_factory.mktemp("lists") / "lists"
    path.write_bytes(part)
    found = Lists(path)
    path.unlink()  # a reader keeps what it opened
    for place, record in enumerate(records):
        read = found.read(UserEntry(offsets[place], offsets[place + 1], 0, SOURCE_PERSONAL))
        assert tuple(map(list, read)) == record


@pytest.mark.parametrize("width", [2, 4])
@given(data=st.data())
def test_rows_read_back(width: int, data: st.DataObject) -> None:
    row = st.lists(st.integers(0, 2 ** (8 * width) - 1), max_size=12)
    rows = data.draw(st.lists(row, max_size=8))
    part = ragged_part(rows, width=width, kind=KIND_SIMILAR)
    found = Ragged(memoryview(part), kind=KIND_SIMILAR)
    assert [list(found.row(number)) for number in range(found.count)] == rows
    assert list(found.row(found.count)) == list(found.row(-1)) == []
    with pytest.raises(SnapshotDamaged):
        Ragged(memoryview(part), kind=KIND_POPULAR)


@given(st.lists(st.integers(1, 400), max_size=20))
def test_metadata_index_reads_back(lengths: list[int]) -> None:
    offsets = [7]
    for length in lengths:
        offsets.append(offsets[-1] + length + 1)
    found = MetadataIndex(memoryview(index_part(offsets)))
    assert found.count == len(lengths)
    spans = [found.span(ordinal) for ordinal in range(found.count)]
    assert [stop - start for start, stop in spans] == lengths


# --- damage -----------------------------------------------------------------------------------


class Sample:
    """A small whole snapshot, and for each part a function that reads all that it can."""

    ids = (11, 25, 40)
    users = (-3, 7, 2**40)

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lists"
        records = [([0, 2], [1], [2, 0]), ([], [], []), ([1], [], [1])]
        lists, offsets = lists_part(records, width=2)
        self.lists = lists
        self.parts = {
            "restaurants": restaurants_part(self.ids, [1, 0, 2]),
            "users": users_part(self.users, offsets, [1, 0, 2], [1, 0, 2]),
            "lists": lists,
            "popular": ragged_part([[0, 1, 2], [0], [2]], width=2),
            "similar": ragged_part([[1], [], [0, 1]], width=4, kind=KIND_SIMILAR),
            "metadata_index": index_part([60, 90, 130, 170]),
        }

    def read(self, part: str, data: bytes) -> None:
        """Raises SnapshotDamaged, or nothing."""
        read: dict[str, Callable[[memoryview], object]] = {
            "restaurants": self._read_restaurants,
            "users": self._read_users,
            "lists": self._read_lists,
            "popular": lambda view: self._read_rows(view, KIND_POPULAR),
            "similar": lambda view: self._read_rows(view, KIND_SIMILAR),
            "metadata_index": self._read_index,
        }
        read[part](memoryview(data))

    def _read_restaurants(self, view: memoryview) -> None:
        found = Restaurants(view)
        for key in (*self.ids, 0, -(2**63), 2**63 - 1):
            found.ordinal_of(key)
        list(found.cities)

    def _read_users(self, view: memoryview) -> None:
        found = Users(view)
        self.path.write_bytes(self.lists)
        lists = Lists(self.path)
        for key in (*self.users, 0):
            if (entry := found.find(key)) is not None:
                lists.read(entry)

    def _read_lists(self, view: memoryview) -> None:
        users = Users(memoryview(self.parts["users"]))
        self.path.write_bytes(view)
        lists = Lists(self.path)
        for key in self.users:
            entry = users.find(key)
            assert entry is not None
            lists.read(entry)

    def _read_rows(self, view: memoryview, kind: int) -> None:
        found = Ragged(view, kind=kind)
        for number in range(min(found.count, 10)):
            list(found.row(number))

    def _read_index(self, view: memoryview) -> None:
        found = MetadataIndex(view)
        for ordinal in range(min(found.count, 10)):
            found.span(ordinal)


PARTS = ["restaurants", "users", "lists", "popular", "similar", "metadata_index"]


@pytest.mark.parametrize("part", PARTS)
def test_every_flipped_bit_is_read_or_refused(part: str, tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    whole = sample.parts[part]
    sample.read(part, whole)
    refused = 0
    for place in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            refused += is_refused(sample, part, bytes(data))
    assert refused >= 64, "magic, kind and schema allow no other bit"


@pytest.mark.parametrize("part", PARTS)
def test_every_truncation_and_addition_is_refused(part: str, tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    whole = sample.parts[part]
    for size in range(len(whole)):
        assert is_refused(sample, part, whole[:size]), f"{size} of {len(whole)} bytes"
    if part != "lists":
        for extra in (1, 8, 4096):
            assert is_refused(sample, part, whole + bytes(extra))


@pytest.mark.parametrize("part", PARTS)
@given(data=st.data())
def test_random_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, part: str, data: st.DataObject
) -> None:
    sample = Sample(tmp_path_factory.mktemp("random"))
    header = sample.parts[part][: HEADER.size]
    body = data.draw(st.binary(max_size=200))
    is_refused(sample, part, header + body)
    is_refused(sample, part, body)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("count", [2**31, 2**32, 2**61, 2**63, 2**64 - 1])
def test_a_count_that_lies_is_refused_before_anything_is_made(
    part: str, count: int, tmp_path: Path
) -> None:
    sample = Sample(tmp_path)
    data = bytearray(sample.parts[part])
    struct.pack_into("<Q", data, 8, count)
    if part == "lists":
        sample.read(part, bytes(data))  # nothing rests on it
    else:
        assert is_refused(sample, part, bytes(data))


@pytest.mark.parametrize(
    "entry",
    [(0, 1), (0, 10_000), (8, 2), (2**32 - 1, 2**32 - 1)],
    ids=["too short", "beyond the end", "backwards", "far away"],
)
def test_a_user_entry_that_lies_is_refused(entry: tuple[int, int], tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    sample.path.write_bytes(sample.lists)
    with pytest.raises(SnapshotDamaged):
        Lists(sample.path).read(UserEntry(*entry, 0, SOURCE_PERSONAL))


def is_refused(sample: Sample, part: str, data: bytes) -> bool:
    try:
        sample.read(part, data)
    except SnapshotDamaged:
        return True
    return False
