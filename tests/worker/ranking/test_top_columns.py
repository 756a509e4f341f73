"""The best columns of a row against a full sort."""

import numpy as np
import pytest

from worker.ranking.top_columns import best_columns

LONG = 20_000


def by_sorting(choice: np.ndarray, k: int) -> list[int]:
    order = np.lexsort((np.arange(len(choice)), -choice))[:k]
    return sorted(order[choice[order] > 0].tolist())


@pytest.mark.parametrize("k", [1, 7, 500, LONG - 1, LONG, 2 * LONG])
@pytest.mark.parametrize("length", [1, 50, LONG])
def test_they_are_those_of_a_full_sort(k, length):
    choice = np.random.default_rng(3).standard_normal(length).astype(np.float32)
    assert best_columns(choice, k).tolist() == by_sorting(choice, k)


@pytest.mark.parametrize("length", [100, LONG])
def test_of_equal_ones_the_first_are_taken(length):
    choice = np.random.default_rng(4).integers(0, 4, length).astype(np.float32)
    assert best_columns(choice, 60).tolist() == by_sorting(choice, 60)


def test_what_a_sample_does_not_show_is_found():
    choice = np.zeros(LONG, np.float32)
    choice[1:LONG:16] = np.arange(1, LONG // 16 + 1)
    assert best_columns(choice, 500).tolist() == by_sorting(choice, 500)
    choice[::16] = 2e4
    assert best_columns(choice, 500).tolist() == by_sorting(choice, 500)
