import subprocess
import sys

import pytest

from shared.errors import BudgetError
from worker.memory import Plan, make_plan

SMALL = {"users": 3_000, "restaurants": 3_300, "orders": 25_000}
LARGE = {"users": 1_000_000, "restaurants": 50_000, "orders": 20_000_000}


def plan(**changes) -> Plan:
    return make_plan(
        **{
            **SMALL,
            "budget_mb": 512,
            "store_budget_mb": 192,
            "head_length": 200,
            **changes,
        }
    )


def test_small_data_get_whole_heads_and_the_largest_graph():
    chosen = plan()
    assert (chosen.k, chosen.head_length) == (500, 200)
    assert chosen.peak_mb < 210
    assert chosen.store_bytes < 8 << 20


def test_a_million_users_fit_the_default_budget():
    chosen = plan(**LARGE, store_budget_mb=2000)
    assert 100 < chosen.k < 500
    assert chosen.peak_mb <= 512
    assert chosen.head_length == 200


@pytest.mark.parametrize("budget_mb", [520, 600, 700, 1000])
def test_a_larger_budget_never_makes_anything_smaller(budget_mb):
    less = plan(**LARGE, store_budget_mb=2000)
    more = plan(**LARGE, store_budget_mb=2000, budget_mb=budget_mb)
    assert more.peak_mb <= budget_mb
    assert more.k > less.k
    for size in ("user_block", "block_entries", "extract_rows", "head_length"):
        assert getattr(more, size) >= getattr(less, size)


def test_counted_interactions_replace_the_estimate():
    assert (
        plan(**LARGE, interactions=10_000_000, store_budget_mb=2000).k
        > plan(**LARGE, interactions=15_000_000, store_budget_mb=2000).k
    )


def test_heads_shrink_to_the_budget_of_the_store():
    chosen = plan(**LARGE, store_budget_mb=192)
    assert 20 <= chosen.head_length < 200
    assert chosen.store_bytes <= 192 << 20


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"orders": 200_000_000, "users": 10_000_000}, "TASTEMATCH_WORKER_MEMORY_MB"),
        ({**LARGE, "budget_mb": 256}, "TASTEMATCH_WORKER_MEMORY_MB"),
        ({**LARGE, "store_budget_mb": 20}, "TASTEMATCH_SNAPSHOT_MB"),
    ],
)
def test_data_that_do_not_fit_are_refused_with_the_need_and_the_setting(changes, named):
    with pytest.raises(BudgetError, match=rf"needs about \d+ MB.*{named}"):
        plan(**changes)


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, 1, 1), (0, 5, 0), (5, 0, 0)])
def test_next_to_nothing_has_a_plan(counts):
    users, restaurants, orders = counts
    chosen = plan(users=users, restaurants=restaurants, orders=orders)
    assert chosen.k >= 1
    assert chosen.user_block >= 1


MEASURED = """
import sys
import numpy as np
from shared.peak_memory import peak_rss_mb
from worker.memory import CHILD_MB, PARENT_MB, make_plan
from worker.ranking.item_model import fit_item_graph
from worker.ranking.matrix import MatrixBuilder
from worker.ranking.scoring import score_users

before = peak_rss_mb()
users, restaurants, orders = 40_000, 3_000, 800_000
random = np.random.default_rng(1)
builder = MatrixBuilder(user_ids=np.arange(users), restaurant_ids=np.arange(restaurants))
for _ in range(orders // 20_000):
    builder.add(
        user_ids=random.integers(0, users, 20_000),
        restaurant_ids=np.floor(restaurants * random.random(20_000) ** 2).astype(np.int64),
        epoch_seconds=random.integers(0, 10**9, 20_000),
    )
matrix = builder.build()
plan = make_plan(
    users=users,
    restaurants=restaurants,
    orders=orders,
    interactions=len(matrix.restaurants),
    budget_mb=400,
    store_budget_mb=192,
    head_length=100,
)
graph = fit_item_graph(
    matrix, k=plan.k, item_block=plan.item_block, block_entries=plan.block_entries
)
for _ in score_users(
    matrix, graph, n=100, user_block=plan.user_block, block_entries=plan.block_entries
):
    pass
print(peak_rss_mb() - before, plan.peak_mb - PARENT_MB - CHILD_MB)
"""


def test_the_ranking_needs_what_the_plan_predicts():
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True
    )
    needed_mb, predicted_mb = map(float, done.stdout.split())
    assert needed_mb == pytest.approx(predicted_mb, rel=0.2)


def test_a_plan_needs_no_numpy():
    program = "import sys, worker.memory; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
