"""Records of the overlay: what is written is read, and what is not ours is refused."""

from __future__ import annotations

from array import array

import pytest

from shared.errors import SnapshotDamaged
from shared.snapshot import overlay
from shared.snapshot.format import SOURCE_PREFERENCES, UserLists

MAX_ID = 2**63 - 1


@pytest.mark.parametrize(("width", "code"), [(2, "H"), (4, "I")])
def test_the_widest_of_everything_comes_back(width: int, code: str) -> None:
    top = 256**width - 1
    lists = UserLists(array(code, [top, 0]), array(code, [1]), array(code, [top]))
    user = overlay.RefreshedUser(2**64 - 1, SOURCE_PREFERENCES, 65_535, lists)
    found = overlay.decode_refreshed(overlay.encode_refreshed(user, width=width))
    assert [list(row) for row in found.lists] == [[top, 0], [1], [top]]
    assert (found.revision, found.source, found.city) == (2**64 - 1, 2, 65_535)


@pytest.mark.parametrize("row_id", [0, 7, MAX_ID])
def test_keys_name_users_and_restaurants(row_id: int) -> None:
    assert overlay.parse_key(overlay.user_key(row_id)) == ("user", row_id)
    assert overlay.parse_key(overlay.restaurant_key(row_id)) == ("restaurant", row_id)


@pytest.mark.parametrize("key", ["", "u", "x7", "u-7", "u 7", "u7\n", "u٣", f"r{MAX_ID + 1}"])
def test_no_other_key_is_read(key: str) -> None:
    with pytest.raises(SnapshotDamaged):
        overlay.parse_key(key)


def test_lists_that_are_cut_or_altered_are_refused() -> None:
    lists = UserLists(array("H", [5, 6]), array("H", [7]), array("H"))
    whole = overlay.encode_refreshed(overlay.RefreshedUser(1, 1, 0, lists), width=2)
    for length in range(len(whole)):
        with pytest.raises(SnapshotDamaged):
            overlay.decode_refreshed(whole[:length])
    for changed in (b"TMO2" + whole[4:], whole[:5] + b"\x03" + whole[6:], whole + b"\0"):
        with pytest.raises(SnapshotDamaged):
            overlay.decode_refreshed(changed)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"no JSON",
        b"[]",
        b'{"form":2,"revision":1,"erased":false,"hidden":[]}',
        b'{"form":1,"revision":0,"erased":false,"hidden":[]}',
        b'{"form":1,"revision":"1","erased":false,"hidden":[]}',
        b'{"form":1,"revision":1,"erased":false,"hidden":[true]}',
        b'{"form":1,"revision":1,"erased":false}',
    ],
)
def test_an_exclusion_of_another_form_is_refused(record: bytes) -> None:
    with pytest.raises(SnapshotDamaged):
        overlay.decode_user_exclusion(record)
