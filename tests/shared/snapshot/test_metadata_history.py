"""The part `metadata_history`: what is written is read back; what is damaged is refused."""

from __future__ import annotations

import io
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SnapshotDamaged
from shared.snapshot.metadata_history import (
    MetadataHistory,
    read_metadata_history,
    write_metadata_history,
)


def encoded(history: MetadataHistory) -> bytes:
    file = io.BytesIO()
    write_metadata_history(file, history)
    return file.getvalue()


EXAMPLE = encoded(
    MetadataHistory(
        versions=["00000000000000aa", "00000000000000bb"],
        current_until=[1_764_000_000, 0],
        changed_at=bytes([0, 1, 0]),
        removed_ids=[7],
        removed_at=b"\x01",
    )
)


@given(st.data(), st.integers(1, 200), st.sets(st.integers(0, 2**63 - 1), max_size=20))
def test_what_is_written_is_read_back(data: st.DataObject, count: int, removed: set[int]) -> None:
    numbers = st.integers(0, count - 1)
    history = MetadataHistory(
        versions=[f"{number:016x}" for number in range(count)],
        current_until=[*range(1, count), 0],
        changed_at=bytes(data.draw(st.lists(numbers, max_size=40))),
        removed_ids=sorted(removed),
        removed_at=bytes(data.draw(numbers) for _ in removed),
    )
    found = read_metadata_history(memoryview(encoded(history)))
    assert found.versions == history.versions
    assert list(found.current_until) == history.current_until
    assert bytes(found.changed_at) == history.changed_at
    assert list(found.removed_ids) == history.removed_ids
    assert bytes(found.removed_at) == history.removed_at


def test_the_bytes_are_those_of_the_specification() -> None:
    assert (
        b"".join(
            (
                struct.pack("<4sHHQH6x", b"TMS1", 10, 1, 3, 0),
                struct.pack("<QQ", 2, 1),
                b"00000000000000aa00000000000000bb",
                array("q", [1_764_000_000, 0, 7]).tobytes(),
                b"\x01".ljust(8, b"\x00"),
                b"\x00\x01\x00".ljust(8, b"\x00"),
            )
        )
        == EXAMPLE
    )


@pytest.mark.parametrize("length", [0, 10, 24, 39, 40, len(EXAMPLE) - 8, len(EXAMPLE) + 8])
def test_another_length_is_damage(length: int) -> None:
    with pytest.raises(SnapshotDamaged):
        read_metadata_history(memoryview(EXAMPLE[:length].ljust(length, b"\x00")))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (4, b"\x09"),  # another kind
        (8, b"\xff" * 8),  # more restaurants than there are bytes
        (24, b"\x00"),  # no version
        (24, b"\xff" * 8),
        (32, b"\xff" * 8),
        (40, b"\xff"),  # a version that is no text
        (len(EXAMPLE) - 16, b"\x02"),  # numbers of versions that it does not hold
        (len(EXAMPLE) - 7, b"\x02"),
    ],
)
def test_what_contradicts_itself_is_damage(at: int, value: bytes) -> None:
    with pytest.raises(SnapshotDamaged):
        read_metadata_history(memoryview(EXAMPLE[:at] + value + EXAMPLE[at + len(value) :]))
