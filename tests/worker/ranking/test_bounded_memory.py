"""Extreme histories in a process of their own, whose peak the kernel counts."""

import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from shared.peak_memory import peak_rss_mb
from worker.ranking.history import order_again
from worker.ranking.item_model import fit_item_graph
from worker.ranking.matrix import MatrixBuilder
from worker.ranking.popularity import popularity
from worker.ranking.scoring import score_users

users, restaurants, orders = {users}, {restaurants}, {orders}
before = peak_rss_mb()
random = np.random.default_rng(1)
builder = MatrixBuilder(user_ids=np.arange(users), restaurant_ids=np.arange(restaurants))
for _ in range(orders // 10_000):
    builder.add(
        user_ids=random.integers(0, users, 10_000),
        restaurant_ids=random.integers(0, {used}, 10_000),
        epoch_seconds=random.integers(0, 10**9, 10_000),
    )
matrix = builder.build()
popularity(matrix)
graph = fit_item_graph(matrix, k=50)
discovered = sum(int(block.lengths.sum()) for block in score_users(matrix, graph, n=200))
again = order_again(matrix, first_user=0, users=users)
print(matrix.orders, len(again.rows), discovered, peak_rss_mb() - before)
"""


@pytest.mark.parametrize(
    ("users", "restaurants", "used", "most_mb"),
    [
        pytest.param(1, 2_000, 2_000, 55, id="one user with a million orders"),
        pytest.param(50_000, 10, 1, 60, id="a million orders at one restaurant"),
        pytest.param(1, 1, 1, 55, id="one user, one restaurant"),
    ],
)
def test_a_million_orders_stay_within_bounds(users, restaurants, used, most_mb):
    program = PROGRAM.format(users=users, restaurants=restaurants, used=used, orders=1_000_000)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    orders, interactions, discovered, grown_mb = done.stdout.split()
    assert (int(orders), int(interactions), int(discovered)) == (10**6, users * used, 0)
    assert float(grown_mb) < most_mb
