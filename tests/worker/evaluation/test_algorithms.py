"""Each algorithm against lists worked out by hand, and all of them whatever the block sizes."""

import numpy as np
import pytest

from tests.worker.evaluation.small import log_of, plan_of, random_shop, shop_of
from worker.evaluation import run
from worker.evaluation.algorithms import ALGORITHMS, OWN_MODEL
from worker.evaluation.context import LISTS
from worker.evaluation.judgement import describe, judge
from worker.evaluation.splits import hold_out_last, hold_out_next
from worker.evaluation.trial import context_of, run_trial

DAY = 86_400
START = 10_000 * DAY


@pytest.fixture
def town(tmp_path):
    """City 1 has restaurants 10 and 20, city 2 has 30 and 40; nobody ever ordered from 50.

    Of all orders 30 has most (four), of city 1's new ones 20; user 3 lives nowhere.
    """
    old, new = START, START + 300 * DAY
    orders = [
        *[(9, 30, old + n) for n in range(4)],
        *[(9, 10, old + n) for n in range(3)],
        (1, 20, new),
        (1, 20, new + 1),
        (2, 40, new + 2),
        (3, 10, new + 3),
        (1, 10, new + DAY),
        (2, 30, new + DAY),
        (3, 40, new + DAY),
    ]
    log = log_of(tmp_path / "orders", orders, users=[1, 2, 3, 9], restaurants=[10, 20, 30, 40, 50])
    part, _ = hold_out_next(log, is_active=np.ones(5, np.bool_), start=new + DAY)
    shop = shop_of(part, user_cities=[1, 2, 0, 0], restaurant_cities=[1, 1, 2, 2, 1])
    return part, context_of(part, shop=shop, plan=plan_of(part), folder=tmp_path, seed=0)


def lists_of(name, part, context, list_name):
    """User id -> restaurant ids."""
    found = {}
    for block in ALGORITHMS[name].fit(part.train, context)(list_name):
        for number, length in enumerate(block.lengths.tolist()):
            user = int(part.train.user_ids[context.users[block.first_user + number]])
            assert (block.rows[number, length:] == -1).all()
            found[user] = part.train.restaurant_ids[block.rows[number, :length]].tolist()
    return found


def test_popularity_counts_all_orders_ever(town):
    everyone = [10, 30, 20, 40]
    found = lists_of("popularity", *town, "for_you")
    assert found == {1: everyone, 2: everyone, 3: everyone}
    discovered = lists_of("popularity", *town, "discover")
    assert discovered == {1: [10, 30, 40], 2: [10, 30, 20], 3: [30, 20, 40]}


def test_popularity_in_the_city_counts_what_is_recent(town):
    found = lists_of("popularity-city", *town, "for_you")
    # 300 days leave a tenth of the old orders: two new ones at 20 beat four old ones at 30.
    assert found == {1: [20, 10, 40, 30], 2: [40, 30, 20, 10], 3: [20, 10, 40, 30]}
    discovered = lists_of("popularity-city", *town, "discover")
    assert discovered == {1: [10, 40, 30], 2: [30, 20, 10], 3: [20, 40, 30]}


def test_own_frequency_stands_before_the_city(town):
    found = lists_of("own-frequency", *town, "for_you")
    assert found == {1: [20, 10, 40, 30], 2: [40, 30, 20, 10], 3: [10, 20, 40, 30]}
    assert "discover" not in ALGORITHMS["own-frequency"].lists


def test_the_product_begins_with_repeats_and_never_discovers_them(town):
    for_you = lists_of(OWN_MODEL, *town, "for_you")
    discover = lists_of(OWN_MODEL, *town, "discover")
    own = {1: [20], 2: [40], 3: [10]}
    for user, repeats in own.items():
        assert for_you[user][:1] == repeats
        assert sorted(for_you[user]) == [10, 20, 30, 40]
        assert sorted(discover[user] + repeats) == [10, 20, 30, 40]


def test_the_command_offers_the_algorithms_there_are():
    assert tuple(ALGORITHMS) == run.ALGORITHMS
    assert tuple(name for name, one in ALGORITHMS.items() if one.needs_shop) == run.SHOP_ONLY
    assert [one.is_baseline for one in ALGORITHMS.values()] == [False, True, True, True, True]


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    path = tmp_path_factory.mktemp("shop") / "orders"
    log = random_shop(path, users=150, restaurants=60, orders=4000, seed=3)
    return hold_out_last(log, is_active=np.ones(60, np.bool_))[0]


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_no_block_size_changes_a_figure(part, name, tmp_path):
    random = np.random.default_rng(5)
    shop = shop_of(
        part,
        user_cities=random.integers(0, 3, 150).tolist(),
        restaurant_cities=random.integers(0, 3, 60).tolist(),
    )
    found = []
    for sizes in (
        {},
        {"user_block": 1, "block_entries": 1, "item_block": 1},
        {"user_block": 7, "block_entries": 300, "item_block": 5},
    ):
        context = context_of(part, shop=shop, plan=plan_of(part, **sizes), folder=tmp_path, seed=1)
        rank = ALGORITHMS[name].fit(part.train, context)
        for list_name in ALGORITHMS[name].lists:
            judged = judge(
                part, rank(list_name), list_name=list_name, is_candidate=context.is_candidate
            )
            found.append(describe(judged, seed=1))
    lists = len(ALGORITHMS[name].lists)
    assert found[:lists] == found[lists : 2 * lists] == found[2 * lists :]
    assert found[0]["users"] > 100


@pytest.mark.parametrize("name", list(ALGORITHMS))
@pytest.mark.parametrize("list_name", LISTS)
def test_lists_hold_candidates_once_and_hide_own_ones(part, name, list_name, tmp_path):
    if list_name not in ALGORITHMS[name].lists:
        return
    context = context_of(part, shop=shop_of(part), plan=plan_of(part), folder=tmp_path, seed=1)
    train = part.train
    candidates = set(train.restaurant_ids[context.is_candidate].tolist())
    rows = {int(user): row for row, user in enumerate(train.user_ids)}
    for user, ids in lists_of(name, part, context, list_name).items():
        assert len(set(ids)) == len(ids) <= 20
        assert set(ids) <= candidates
        own = train.restaurants[train.indptr[rows[user]] : train.indptr[rows[user] + 1]]
        if list_name == "discover":
            assert not set(ids) & set(train.restaurant_ids[own].tolist())


def test_users_without_orders_are_a_segment_of_their_own(tmp_path):
    orders = [(1, 10, 0), (1, 20, 1), (2, 10, 2), (1, 10, 5), (3, 10, 5), (2, 10, 5)]
    log = log_of(tmp_path / "orders", orders, users=[1, 2, 3], restaurants=[10, 20])
    part, counts = hold_out_next(log, is_active=np.ones(2, np.bool_), start=5)
    assert (counts.users, counts.new_users) == (2, 1)
    context = context_of(part, shop=shop_of(part), plan=plan_of(part), folder=tmp_path, seed=0)
    result = run_trial(
        "popularity", part, context, split="time", folder=tmp_path, on_progress=lambda done: None
    )[0]
    assert result["users"] == 2
    users = {segment["orders"]: segment["users"] for segment in result["segments"]}
    assert users == {"0": 1, "1-4": 2, "5-19": 0, "20+": 0}
    assert all(segment["mrr"] == bool(segment["users"]) for segment in result["segments"])


def test_each_baseline_is_told_how_far_it_lies_behind(part, tmp_path):
    context = context_of(part, shop=shop_of(part), plan=plan_of(part), folder=tmp_path, seed=1)
    results = {
        (result["algorithm"], result["list"]): result
        for name in (OWN_MODEL, "popularity")
        for result in run_trial(
            name, part, context, split="time", folder=tmp_path, on_progress=lambda done: None
        )
    }
    for list_name in LISTS:
        own, other = results[OWN_MODEL, list_name], results["popularity", list_name]
        gain = other["behind_own_model"]["ndcg_at_20"]
        assert gain["mean"] == pytest.approx(own["ndcg_at_20"] - other["ndcg_at_20"], abs=2e-6)
        assert gain["interval"][0] <= gain["mean"] <= gain["interval"][1]
        assert "behind_own_model" not in own
