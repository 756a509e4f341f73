"""The index that is read block by block finds what the mapped one finds."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import pytest

from api.user_index import BLOCK, MAX_REMEMBERED, UserIndex
from shared.errors import SnapshotDamaged
from shared.snapshot.format import Users, write_users


def write(path: Path, ids: list[int]) -> bytes:
    with path.open("wb") as file:
        write_users(
            file,
            ids=array("q", ids),
            offsets=array("I", [7 * place for place in range(len(ids) + 1)]),
            cities=array("H", [place % 60_000 for place in range(len(ids))]),
            sources=bytes(place % 3 for place in range(len(ids))),
        )
    return path.read_bytes()


@pytest.mark.parametrize(
    "count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 2 * MAX_REMEMBERED]
)
def test_both_find_the_same(tmp_path: Path, count: int) -> None:
    chance = random.Random(count)
    ids = sorted(chance.sample(range(3 * count + 2), count))
    ids[-1:] = [2**63 - 1] if count > 1 else ids
    path = tmp_path / "users"
    mapped = Users(memoryview(write(path, ids)))
    read = UserIndex(path)
    path.unlink()
    assert read.count == count
    for _ in range(2):  # the second time from memory, as far as that goes
        for user_id in (*range(3 * count + 3), 2**63 - 2, 2**63 - 1):
            assert read.find(user_id) == mapped.find(user_id), user_id


def test_another_length_than_stated_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "users"
    whole = write(path, list(range(300)))
    for data in (whole[:-8], whole + bytes(8), whole[:100], whole[:10], b"", b"X" + whole[1:]):
        path.write_bytes(data)
        with pytest.raises(SnapshotDamaged):
            UserIndex(path)
