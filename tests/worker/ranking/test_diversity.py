import numpy as np
import pytest

from worker.ranking.diversity import same_cuisine_pairs, spread_cuisines


def spread(cuisines: list[int], *, cap: int, missing: int = 0) -> list[int]:
    """One list over restaurants 0, 1, ... of these cuisines, `missing` places behind its end."""
    codes = np.array(cuisines, np.int32)
    rows = np.append(np.arange(len(codes)), [-1] * missing).astype(np.int32)
    found = spread_cuisines(rows[np.newaxis], codes, cap=cap)[0].tolist()
    assert found[len(codes) :] == [-1] * missing
    return found[: len(codes)]


def test_what_is_above_the_cap_makes_room_for_the_next_best():
    cuisines = [1, 1, 1, 1, 2, 1, 3, 4, 5, 6, 7, 8, 9]
    assert spread(cuisines, cap=3) == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11, 3, 5, 12]


def test_the_second_page_has_a_cap_of_its_own():
    found = spread([1] * 8 + list(range(2, 20)), cap=2)
    assert found[:10] == [0, 1, *range(8, 16)]
    assert found[10:20] == [2, 3, *range(16, 24)]
    assert found[20:] == [4, 5, 6, 7, 24, 25]


def test_lists_within_the_cap_stay_as_they_are():
    cuisines = [1, 2, 1, 2, 1, 2, 3, 3, 3, 4, 1, 1, 1]
    assert spread(cuisines, cap=3) == list(range(13))


def test_a_cap_of_ten_changes_nothing():
    assert spread([1] * 30, cap=10) == list(range(30))


def test_restaurants_without_a_cuisine_are_never_too_many():
    assert spread([0] * 25, cap=1) == list(range(25))


def test_when_there_is_nothing_else_the_page_is_filled_in_order():
    assert spread([1] * 12 + [2], cap=3, missing=7) == [0, 1, 2, 12, *range(3, 12)]
    assert spread([1, 1, 1], cap=1, missing=30) == [0, 1, 2]


@pytest.mark.parametrize("cap", [1, 3, 5, 9])
def test_every_list_keeps_its_restaurants_and_each_page_its_cap(cap):
    random = np.random.default_rng(cap)
    codes = random.integers(0, 12, 400).astype(np.int32)
    rows = np.stack([random.permutation(400)[:80] for _ in range(200)]).astype(np.int32)
    rows[:50, 40:] = -1
    found = spread_cuisines(rows, codes, cap=cap)
    assert np.array_equal(np.sort(found, axis=1), np.sort(rows, axis=1))
    assert np.array_equal(found[:, 60:], rows[:, 60:])
    if cap > 1:  # with one of each, 40 restaurants do not always have 20 fitting ones
        for page in (found[:, :10], found[:, 10:20]):
            for cuisine in range(1, 12):
                assert np.count_nonzero(codes[page] == cuisine, axis=1).max() <= cap
    alone = [spread_cuisines(row[np.newaxis], codes, cap=cap)[0] for row in rows]
    assert np.array_equal(found, np.stack(alone))


def test_the_given_lists_are_not_changed():
    rows = np.arange(20, dtype=np.int32)[np.newaxis]
    spread_cuisines(rows, np.array([1] * 10 + [2] * 10, np.int32), cap=2)
    assert rows[0].tolist() == list(range(20))


def test_pairs_of_one_cuisine():
    codes = np.array([1, 1, 1, 2, 0, 0], np.int32)
    rows = np.array([[0, 1, 2, 3], [0, 3, -1, -1], [4, 5, -1, -1], [3, -1, -1, -1]], np.int32)
    assert same_cuisine_pairs(rows, codes, top=10).tolist() == [0.5, 0, 0, 0]
    assert same_cuisine_pairs(rows, codes, top=2).tolist() == [1, 0, 0, 0]
