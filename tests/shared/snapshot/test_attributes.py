"""The parts that filters read: what is written is read, and no other length or order passes."""

from __future__ import annotations

import math
from array import array
from io import BytesIO

import pytest

from shared.errors import SnapshotDamaged
from shared.snapshot.attributes import (
    Attributes,
    decode_cuisines,
    encode_cuisines,
    write_attributes,
)


def written(*, width: int = 2) -> bytes:
    file = BytesIO()
    write_attributes(
        file,
        cuisines=array("I", [2, 0, 70_000]),
        price_ranges=bytes([4, 0, 1]),
        latitudes=array("f", [34.5, math.nan, -12.25]),
        longitudes=array("f", [135.5, math.nan, 180.0]),
        by_latitude=array("H" if width == 2 else "I", [2, 0, 1]),
        width=width,
    )
    return file.getvalue()


@pytest.mark.parametrize("width", [2, 4])
def test_columns_come_back_as_they_were(width: int) -> None:
    found = Attributes(memoryview(written(width=width)), width=width)
    assert found.count == 3
    assert list(found.cuisines) == [2, 0, 70_000]
    assert list(found.price_ranges) == [4, 0, 1]
    assert [found.latitudes[0], found.latitudes[2]] == [34.5, -12.25]
    assert [found.longitudes[0], found.longitudes[2]] == [135.5, 180.0]
    assert math.isnan(found.latitudes[1])
    assert math.isnan(found.longitudes[1])
    assert list(found.by_latitude) == [2, 0, 1]


def test_any_other_length_is_damage() -> None:
    part = written()
    for size in range(len(part)):
        with pytest.raises(SnapshotDamaged):
            Attributes(memoryview(part[:size]), width=2)
    with pytest.raises(SnapshotDamaged):
        Attributes(memoryview(part + bytes(8)), width=2)


def test_another_width_is_damage() -> None:
    with pytest.raises(SnapshotDamaged):
        Attributes(memoryview(written(width=4)), width=2)


def test_cuisines_come_back_as_they_were() -> None:
    names = [None, "Ramen", "Bar|Tapas", "Crêperie"]
    assert decode_cuisines(encode_cuisines(names)) == names


@pytest.mark.parametrize(
    "data", [b"", b"[", b"{}", b"[]", b'["Ramen"]', b"[null,1]", b"[null,null]"]
)
def test_what_is_no_list_of_names_is_damage(data: bytes) -> None:
    with pytest.raises(SnapshotDamaged):
        decode_cuisines(data)
