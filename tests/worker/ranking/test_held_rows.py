"""Rows of a graph copied out of its files, against the same rows where they are mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.worker.ranking.small import matrix_of, random_orders
from worker.ranking.held_rows import ENTRY_BYTES, HeldRows
from worker.ranking.item_model import ItemGraph, fit_item_graph, save_graph
from worker.ranking.matrix import InteractionMatrix
from worker.ranking.scoring import filter_rows, score_histories

K = 12


@pytest.fixture(scope="module")
def matrix() -> InteractionMatrix:
    return matrix_of(random_orders(users=120, restaurants=50, orders=1500, seed=5))


@pytest.fixture
def graph(matrix: InteractionMatrix, tmp_path: Path) -> ItemGraph:
    return save_graph(fit_item_graph(matrix, k=K), tmp_path)


NONE = np.empty(0, np.int64)


@pytest.mark.parametrize("often", [0, 20, 50])
@pytest.mark.parametrize("rows", [30, 50, 1000])
def test_histories_point_to_the_same_bits_whatever_is_held(matrix, graph, tmp_path, rows, often):
    most_used = np.arange(50)[::-1][:often]
    held = HeldRows(tmp_path, graph, often=most_used, max_bytes=rows * (K + 1) * ENTRY_BYTES)
    mapped = filter_rows(graph, has_seen=False)
    users = len(matrix.user_ids)
    for start in [*range(users), *range(users)]:
        stop = min(start + 1 + start % 2, users)
        restaurants = matrix.restaurants[matrix.indptr[start] : matrix.indptr[stop]]
        places = held.places_of(restaurants)
        if places is None:  # more rows than the half that is left
            assert rows // 2 < len(set(restaurants.tolist())) <= 30
            continue
        expected = score_histories(matrix, start, stop, mapped)
        found = score_histories(matrix, start, stop, held.rows, places=places)
        assert found.indptr.tolist() == expected.indptr.tolist()
        assert found.indices.tobytes() == expected.indices.tobytes()
        assert found.data.tobytes() == expected.data.tobytes()


def test_more_rows_than_fit_are_nowhere_and_fewer_are_found_again(graph, tmp_path):
    held = HeldRows(tmp_path, graph, often=NONE, max_bytes=3 * (K + 1) * ENTRY_BYTES)
    assert held.places_of(np.arange(50, dtype=np.int32)) is None
    places = held.places_of(np.array([7, 3, 7], np.int32))
    assert places is not None
    assert places[0] == places[2] != places[1]
    for restaurant, place in zip((7, 3), places[:2].tolist(), strict=True):
        own = slice(graph.indptr[restaurant], graph.indptr[restaurant + 1])
        there = slice(held.rows.indptr[place], held.rows.indptr[place + 1])
        assert held.rows.indices[there].tolist() == graph.indices[own].tolist()
        assert held.rows.values[there].tolist() == graph.values[own].tolist()


def test_what_is_used_most_stays_held(graph, tmp_path):
    most_used = np.array([9, 8])
    held = HeldRows(tmp_path, graph, often=most_used, max_bytes=5 * (K + 1) * ENTRY_BYTES)
    before = held.rows.indices.tobytes()
    for restaurant in range(10, 40):
        places = held.places_of(np.array([9, restaurant, 8], np.int32))
        assert places is not None
        assert places.tolist()[::2] == [1, 0], "in the order of their ids"
    width = 4 * int(held.rows.indptr[2])
    assert held.rows.indices.tobytes()[:width] == before[:width]


def test_nobody_needs_no_rows(graph, tmp_path):
    held = HeldRows(tmp_path, graph, often=NONE, max_bytes=0)
    places = held.places_of(np.empty(0, np.int32))
    assert places is not None
    assert len(places) == 0
