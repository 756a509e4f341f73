import json
import subprocess
import sys

import pytest

from benchmarks.shop_generator import Shop, Size
from benchmarks.shop_loading import write_folder
from shared.errors import BudgetError
from tests.services.processes import run_tastematch
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
    assert more.k >= less.k
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


def test_a_run_needs_what_the_plan_predicts(tastematch, sqlite_url, tmp_path):
    env = {"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    write_folder(Shop(Size(16_000, 2_000, 150_000)), tmp_path / "shop")
    assert tastematch("import", tmp_path / "shop", env=env).returncode == 0
    predicted = json.loads(tastematch("precompute", "--plan", "--json", env=env).stdout)
    # As a user runs it: the process that waits for the run counts, too.
    needed = json.loads(run_tastematch("precompute", "--json", env=env).stdout)
    assert needed["algorithm"]["name"] == "sharpened"
    assert needed["peak_rss_mb"] == pytest.approx(predicted["peak_mb"], rel=0.2)


def test_a_plan_needs_no_numpy():
    program = "import sys, worker.memory; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
