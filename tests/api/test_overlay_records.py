"""Files of records: what a crash, a full disk or another process leaves of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from api import overlay_records
from api.overlay_files import Record
from api.overlay_records import RecordFile, RecordsFull

LOG = "exclusions"


def users(*entries: tuple[int, bytes], place: int = 1) -> list[Record]:
    return [
        Record(place + number, "user", user_id, data)
        for number, (user_id, data) in enumerate(entries)
    ]


def content(file: RecordFile, ids: range) -> dict[int, bytes | None]:
    return {user_id: file.data(user_id) for user_id in ids}


def test_what_was_appended_is_there_for_the_next_process(tmp_path: Path) -> None:
    chance, expected = random.Random(3), dict[int, bytes]()
    for start in range(5):
        file = RecordFile(tmp_path, LOG)
        assert content(file, range(40)) == {each: expected.get(each) for each in range(40)}
        for step in range(20):
            user_id = chance.randrange(40)
            data = chance.randbytes(chance.randrange(0, 60))
            file.append(users((user_id, data), place=start * 100 + step))
            expected[user_id] = data
            if not data:
                del expected[user_id]
        assert file.last_place == start * 100 + 19
        assert len(list(tmp_path.iterdir())) == 1
        del file


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_file_is_good_up_to_its_first_damage(tmp_path: Path, is_cut: bool) -> None:
    file = RecordFile(tmp_path, LOG)
    file.append(users(*((number, b"%d" % number) for number in range(1, 101))))
    del file
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        damaged = whole[:at] if is_cut else bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]])
        path.write_bytes(damaged)
        file = RecordFile(tmp_path, LOG)
        found = content(file, range(1, 101))
        kept = [number for number in found if found[number] is not None]
        assert kept == [*range(1, len(kept) + 1)]
        assert all(found[number] == b"%d" % number for number in kept)
        assert (at + 200 > len(whole)) or len(kept) < 100
        # What is appended then is not lost behind the damage.
        file.append(users((500, b"new"), place=900))
        del file
        file = RecordFile(tmp_path, LOG)
        assert file.data(500) == b"new"
        assert file.last_place == 900
        file.remove()
        del file
        path.write_bytes(whole)


def test_a_second_process_begins_with_a_copy_and_goes_its_own_way(tmp_path: Path) -> None:
    one = RecordFile(tmp_path, LOG)
    one.append(users((1, b"a"), (2, b"b")))
    other = RecordFile(tmp_path, LOG)
    other.append(users((2, b"c"), place=5))
    one.append(users((3, b"d"), place=6))
    assert content(one, range(1, 4)) == {1: b"a", 2: b"b", 3: b"d"}
    assert content(other, range(1, 4)) == {1: b"a", 2: b"c", 3: None}
    del one, other
    again = RecordFile(tmp_path, LOG)
    assert content(again, range(1, 4)) == {1: b"a", 2: b"b", 3: b"d"}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_written_anew_when_most_of_it_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_records, "SPARE_BYTES", 1_000)
    file = RecordFile(tmp_path, LOG)
    file.append([Record(1, "restaurant", 7, b"closed")])
    for number in range(500):
        file.append(users((number % 5, b"%d" % number), place=number))
        (path,) = tmp_path.iterdir()
        assert path.stat().st_size < 2_500
    assert file.rewritten > 10
    expected = {number: b"%d" % (495 + number) for number in range(5)}
    assert content(file, range(5)) == expected
    del file
    again = RecordFile(tmp_path, LOG)
    assert (content(again, range(5)), again.restaurants()) == (expected, [7])
    assert again.last_place == 499


def test_a_disk_that_refuses_is_done_without_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_records, "MAX_HELD_BYTES", 10_000)
    folder = tmp_path / "overlay"
    folder.write_text("no folder")
    file = RecordFile(folder, LOG)
    file.append(users((1, b"a"), (2, b"b")))
    file.append(users((1, b"c"), (2, b""), place=3))
    assert content(file, range(1, 3)) == {1: b"c", 2: None}
    with pytest.raises(RecordsFull):
        file.append(users((3, bytes(20_000))))
    assert (file.data(1), file.data(3)) == (b"c", None)
    # When it takes records again, it gets those that were held.
    folder.unlink()
    file.append(users((4, b"d"), place=9))
    del file
    again = RecordFile(folder, LOG)
    assert content(again, range(1, 5)) == {1: b"c", 2: None, 3: None, 4: b"d"}


def test_a_file_of_another_release_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / f"{LOG}.00000000").write_bytes(b"tastematch-overlay 2 exclusions\n" + bytes(200))
    file = RecordFile(tmp_path, LOG)
    assert len(file) == 0
    file.append(users((1, b"a")))
    assert file.data(1) == b"a"
