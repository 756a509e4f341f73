import numpy as np
import pytest

from tests.worker.ranking.small import NOON, dense_graph, dense_history, matrix_of, random_orders
from worker.ranking.item_model import SEEN, ItemGraph, fit_item_graph, similar
from worker.ranking.matrix import InteractionMatrix


def rows_of(graph: ItemGraph) -> list[dict[int, float]]:
    """Neighbours of each restaurant; asserts that each row begins with its own mark."""
    rows = []
    for row, (start, stop) in enumerate(zip(graph.indptr[:-1], graph.indptr[1:], strict=True)):
        assert graph.indices[start] == row
        assert graph.values[start] == SEEN
        indices, values = graph.indices[start + 1 : stop], graph.values[start + 1 : stop]
        assert (np.diff(indices) > 0).all()
        rows.append(dict(zip(indices.tolist(), values.tolist(), strict=True)))
    return rows


@pytest.fixture(scope="module")
def matrix() -> InteractionMatrix:
    orders = random_orders(users=120, restaurants=60, orders=1500, seed=7)
    return matrix_of(orders, restaurants=range(2, 330, 5))


def test_the_graph_is_the_formula(matrix):
    expected = dense_graph(matrix)
    for row, neighbours in enumerate(rows_of(fit_item_graph(matrix, k=100))):
        assert sorted(neighbours) == np.flatnonzero(expected[row]).tolist()
        for neighbour, value in neighbours.items():
            assert value == pytest.approx(expected[row, neighbour], rel=1e-5)


def test_the_cut_keeps_the_best_by_score_and_a_nudge_of_popularity(matrix):
    whole = dense_graph(matrix)
    choice = whole * np.maximum(dense_history(matrix).sum(axis=0), 1) ** 0.2
    differs = 0
    for row, neighbours in enumerate(rows_of(fit_item_graph(matrix, k=5))):
        kept = sorted(neighbours)
        possible = np.flatnonzero(whole[row])
        assert len(kept) == min(5, len(possible))
        left = np.setdiff1d(possible, kept)
        if len(left):
            assert choice[row, kept].min() >= choice[row, left].max() * (1 - 1e-6)
            differs += whole[row, kept].min() < whole[row, left].max()
        for neighbour in kept:
            assert neighbours[neighbour] == pytest.approx(whole[row, neighbour], rel=1e-5)
    assert differs


@pytest.mark.parametrize("block_entries", [1, 70, 100_000])
@pytest.mark.parametrize("item_block", [1, 7, 1000])
def test_no_block_size_changes_a_bit(matrix, item_block, block_entries):
    one = fit_item_graph(matrix, k=12)
    other = fit_item_graph(matrix, k=12, item_block=item_block, block_entries=block_entries)
    assert one.indptr.tobytes() == other.indptr.tobytes()
    assert one.indices.tobytes() == other.indices.tobytes()
    assert one.values.tobytes() == other.values.tobytes()


def test_ids_of_users_change_not_a_bit():
    orders = random_orders(users=300, restaurants=50, orders=4000, seed=8)
    new_ids = np.random.default_rng(9).permutation(10_000)
    renamed = [(int(new_ids[user]), restaurant, at) for user, restaurant, at in orders]
    one, other = (fit_item_graph(matrix_of(found), k=10) for found in (orders, renamed))
    assert one.indices.tobytes() == other.indices.tobytes()
    assert one.values.tobytes() == other.values.tobytes()


def test_equal_neighbours_are_kept_by_row():
    # Restaurants 1 to 5 have the same guest, so all pairs are equal.
    matrix = matrix_of([(1, restaurant, NOON) for restaurant in range(1, 6)])
    rows = rows_of(fit_item_graph(matrix, k=2))
    assert [sorted(neighbours) for neighbours in rows] == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]


def test_only_candidates_are_neighbours(matrix):
    is_candidate = np.arange(len(matrix.restaurant_ids)) % 3 != 0
    rows = rows_of(fit_item_graph(matrix, k=8, is_candidate=is_candidate))
    assert all(is_candidate[neighbour] for neighbours in rows for neighbour in neighbours)
    assert rows[0]


def test_similar_is_best_first_with_ties_by_row(matrix):
    graph = fit_item_graph(matrix, k=20)
    found, lengths = similar(graph, k=6)
    for row, neighbours in enumerate(rows_of(graph)):
        expected = sorted(neighbours, key=lambda other: (-neighbours[other], other))[:6]
        assert lengths[row] == len(expected)
        assert found[row].tolist() == expected + [-1] * (6 - len(expected))


@pytest.mark.parametrize(
    ("orders", "restaurants"),
    [([], []), ([], [1, 2]), ([(1, 1, NOON)], [1]), ([(1, 2, NOON)], [2, 3])],
)
def test_restaurants_without_company_have_no_neighbours(orders, restaurants):
    graph = fit_item_graph(matrix_of(orders, users=[1], restaurants=restaurants), k=5)
    assert rows_of(graph) == [{}] * len(restaurants)
    rows, lengths = similar(graph, k=5)
    assert rows.shape == (len(restaurants), 5)
    assert not lengths.any()


def test_all_orders_at_one_restaurant_make_no_graph():
    matrix = matrix_of([(user, 5, NOON) for user in range(1000)], restaurants=[4, 5, 6])
    assert rows_of(fit_item_graph(matrix, k=5)) == [{}] * 3
