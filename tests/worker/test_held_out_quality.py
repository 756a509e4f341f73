"""The stage that measures a run, from sampled orders to what the manifest holds."""

import numpy as np
import orjson
import pytest

from shared.settings import load_settings
from worker.executors import block_workers
from worker.extract import OrderBlock, UserColumns
from worker.held_out_quality import measure_quality
from worker.order_sample import OrderSample
from worker.ranking.blend_weights import DEFAULTS
from worker.ranking.id_hash import hash_ids
from worker.ranking.surroundings import RestaurantFacts

DAY = 86_400
START = 18_000 * DAY
LISTS = ("for_you", "discover")


def measured(folder, users, restaurants, seconds, *, threads=2, block=10_000, **settings):
    """Measures a shop whose restaurants count from 0; each lies at a place of its own."""
    folder.mkdir()
    users, restaurants = np.asarray(users, np.int64), np.asarray(restaurants, np.int64)
    seconds = np.asarray(seconds, np.int64)
    user_ids = np.unique(users)
    count = int(restaurants.max(initial=-1)) + 1
    sample = OrderSample(folder, user_ids=user_ids, restaurant_ids=np.arange(count))
    for start in range(0, len(users), block):
        some = slice(start, start + block)
        sample.append(OrderBlock(users[some], restaurants[some], seconds[some]))
    sample.close()
    facts = RestaurantFacts(
        city_codes=(1 + np.arange(count) % 3).astype(np.uint16),
        latitudes=np.linspace(50, 50.2, count).astype(np.float32),
        longitudes=np.linspace(8, 8.3, count).astype(np.float32),
        cuisine_codes=(np.arange(count) % 4).astype(np.int32),
        is_candidate=np.ones(count, np.bool_),
    )
    options = load_settings({"TASTEMATCH_DATA_DIR": str(folder), **settings})
    with block_workers(options, threads) as workers:
        found = measure_quality(
            sample,
            UserColumns(ids=user_ids, cities=(user_ids % 3).astype(np.uint16)),
            facts,
            settings=options,
            folder=folder / "quality",
            workers=workers,
        )
    assert not (folder / "quality").exists()
    orjson.dumps([found.quality, found.trials, found.weights.to_json()])
    return found


def shop_of(users, *, orders=12, restaurants=120, seed=1):
    """Users who explore one of ten quarters, now and then going back to where they were."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), orders)
    quarter = random.integers(0, 10, users)[user]
    restaurant = quarter * (restaurants // 10) + random.integers(0, restaurants // 10, len(user))
    second = START + random.integers(0, 200 * DAY, len(user))
    return user, restaurant, second


@pytest.fixture(scope="module")
def large():
    """Enough users to choose weights by one half of them."""
    return shop_of(1500)


def test_figures_stand_beside_the_baseline(large, tmp_path):
    found = measured(tmp_path / "shop", *large)
    quality = found.quality
    newest = np.sort(large[2])[int(0.9 * len(large[2]))]
    assert quality["cut_at"] == f"{np.datetime64(int(newest), 's')}Z"
    assert quality["sampled_orders"] == len(large[0])
    assert quality["users"] == quality["for_you"]["targets"] > quality["discover"]["targets"] > 200
    for name in LISTS:
        figures = quality[name]
        assert set(figures) >= {"ndcg_at_20", "hit_rate_at_10", "intervals", "targets"}
        assert figures["ndcg_at_20"] > 1.5 * figures["baseline"]["ndcg_at_20"] > 0
        assert figures["baseline"]["algorithm"] == "popularity-city"
        assert figures["baseline"]["targets"] == figures["targets"]
    assert found.trials["tried"] == 81
    assert found.trials["chosen"]["ndcg_at_20"] >= found.trials["defaults"]["ndcg_at_20"] > 0


def test_no_target_both_chooses_and_judges(large, tmp_path):
    """Other newest orders of the half that judges change its figures, and no trial's."""
    user, restaurant, second = large
    before = measured(tmp_path / "before", *large)
    is_newest = second >= np.sort(second)[int(0.9 * len(second))]
    is_judging = hash_ids(user, salt=2) & np.uint64(1) == 1
    moved = np.where(is_newest & is_judging, (restaurant + 60) % 120, restaurant)
    after = measured(tmp_path / "after", user, moved, second)
    assert after.trials == before.trials
    assert after.weights == before.weights
    assert after.quality["for_you"]["ndcg_at_20"] < before.quality["for_you"]["ndcg_at_20"] / 2

    moved = np.where(is_newest & ~is_judging, (restaurant + 60) % 120, restaurant)
    chosen = measured(tmp_path / "chosen", user, moved, second)
    assert chosen.trials["defaults"] != before.trials["defaults"]
    assert chosen.quality["users"] == before.quality["users"]


def test_equal_orders_give_equal_figures_on_any_machine(large, tmp_path):
    expected = measured(tmp_path / "one", *large)
    order = np.random.default_rng(3).permutation(len(large[0]))
    shuffled = [column[order] for column in large]
    for number, (threads, memory) in enumerate(((1, "256"), (4, "2048"))):
        again = measured(
            tmp_path / f"again{number}",
            *shuffled,
            threads=threads,
            block=777,
            TASTEMATCH_WORKER_MEMORY_MB=memory,
        )
        assert again == expected


def test_too_few_to_choose_by_leave_the_defaults_and_all_judge(tmp_path):
    user, restaurant, second = shop_of(300)
    found = measured(tmp_path / "shop", user, restaurant, second, TASTEMATCH_CUISINE_CAP="7")
    assert 0 < found.trials["targets"] < 200
    assert found.trials["tried"] == 0
    assert found.weights.uncapped() == DEFAULTS.uncapped()
    assert found.weights.cuisine_cap == 7
    cut = np.sort(second)[int(0.9 * len(second))]
    asked = set(user[second >= cut].tolist()) & set(user[second < cut].tolist())
    assert found.quality["users"] == len(asked) > 150


MANY = 100_000
ODD = {
    "nobody ever ordered": ([], [], []),
    "one order": ([5], [0], [START]),
    "one user": ([5] * 40, [0, 1] * 20, START + DAY * np.arange(40)),
    "one restaurant": (np.arange(400) % 40, [0] * 400, START + DAY * np.arange(400)),
    "everything at once": (np.arange(400) % 40, np.arange(400) % 7, [START] * 400),
    "every user the same order": (np.arange(400), [3] * 400, START + np.arange(400)),
    "1970": (np.arange(40) % 4, np.arange(40) % 7, [0] * 20 + [1] * 20),
    "one user with a hundred thousand orders": (
        [5] * MANY + [6] * 20,
        np.r_[np.arange(MANY) % 50, np.arange(20)],
        START + np.r_[np.arange(MANY), MANY - 10 + np.arange(20)],
    ),
    "the largest ids": ([2**63 - 1, 2**63 - 2] * 30, np.arange(60) % 9, START + np.arange(60)),
}
PREDICTABLE = {
    "one user": 1,
    "one restaurant": 40,
    "1970": 4,
    "one user with a hundred thousand orders": 1,
    "the largest ids": 2,
}


@pytest.mark.parametrize("name", list(ODD))
def test_odd_shops_are_measured_or_told_apart(tmp_path, name):
    found = measured(tmp_path / "shop", *ODD[name])
    quality = found.quality
    assert quality["users"] == PREDICTABLE.get(name, 0)
    assert quality["sampled_orders"] == len(ODD[name][0])
    assert (quality["cut_at"] is None) == (not quality["sampled_orders"])
    for list_name in LISTS:
        assert quality[list_name]["targets"] <= quality["users"]
        assert bool(quality["users"]) == ("ndcg_at_20" in quality[list_name])
    assert found.weights.uncapped() == DEFAULTS.uncapped()
