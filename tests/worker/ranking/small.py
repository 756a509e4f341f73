"""Small sets of orders, and the same arithmetic on dense matrices to compare with."""

from collections.abc import Sequence

import numpy as np

from worker.ranking.matrix import InteractionMatrix, MatrixBuilder

DAY = 86_400
NOON = 19_000 * DAY + DAY // 2
"""Noon of a day in 2022."""

Order = tuple[int, int, int]


def matrix_of(
    orders: Sequence[Order],
    *,
    users: Sequence[int] | None = None,
    restaurants: Sequence[int] | None = None,
    **build: float | int,
) -> InteractionMatrix:
    """orders: (user id, restaurant id, epoch seconds). Without ids given, those in the orders."""
    columns = np.array(orders, np.int64).reshape(-1, 3)
    builder = MatrixBuilder(
        user_ids=np.unique(columns[:, 0] if users is None else np.array(users, np.int64)),
        restaurant_ids=np.unique(
            columns[:, 1] if restaurants is None else np.array(restaurants, np.int64)
        ),
    )
    builder.add(user_ids=columns[:, 0], restaurant_ids=columns[:, 1], epoch_seconds=columns[:, 2])
    return builder.build(**build)  # type: ignore[arg-type]


def random_orders(
    *, users: int, restaurants: int, orders: int, seed: int, days: int = 400
) -> list[Order]:
    """Skewed towards low restaurant numbers, so that some pairs repeat and some rows are full."""
    random = np.random.default_rng(seed)
    return list(
        zip(
            (random.integers(0, users, orders) * 7 + 3).tolist(),
            (np.floor(restaurants * random.random(orders) ** 2) * 5 + 2).astype(int).tolist(),
            (NOON - random.integers(0, days * DAY, orders)).tolist(),
            strict=True,
        )
    )


def dense_history(matrix: InteractionMatrix) -> np.ndarray:
    """1 where a user ordered, shape (users, restaurants)."""
    dense = np.zeros((len(matrix.user_ids), len(matrix.restaurant_ids)))
    for user in range(len(dense)):
        dense[user, matrix.restaurants[matrix.indptr[user] : matrix.indptr[user + 1]]] = 1
    return dense


def dense_graph(matrix: InteractionMatrix) -> np.ndarray:
    """The whole item graph by its formula, shape (restaurants, restaurants)."""
    history = dense_history(matrix)
    weights = np.maximum(history.sum(axis=1), 1) ** -0.7
    degrees = np.maximum(history.sum(axis=0), 1)
    graph = (history * weights[:, np.newaxis]).T @ history / np.sqrt(np.outer(degrees, degrees))
    np.fill_diagonal(graph, 0)
    return graph
