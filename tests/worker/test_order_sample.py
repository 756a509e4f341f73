"""The sample of users: whole histories, a bounded number of orders, the same one every time."""

import numpy as np
import pytest

from worker.extract import OrderBlock
from worker.order_sample import OrderSample

USERS = np.arange(1000, 1400)
RESTAURANTS = np.arange(20)


def sample_of(folder, users, *, max_orders, block=100):
    folder.mkdir()
    sample = OrderSample(folder, user_ids=USERS, restaurant_ids=RESTAURANTS, max_orders=max_orders)
    for start in range(0, len(users), block):
        some = users[start : start + block]
        sample.append(OrderBlock(some, some % 20, some * 1000))
    sample.close()
    return sample


def found_in(sample):
    """(user id, restaurant id, second), sorted."""
    log = sample.log
    return sorted(
        (int(log.user_ids[user]), int(log.restaurant_ids[restaurant]), int(second))
        for rows in log.blocks()
        for user, restaurant, second in zip(rows.users, rows.restaurants, rows.seconds, strict=True)
    )


@pytest.fixture
def users():
    random = np.random.default_rng(4)
    return random.choice(USERS, 3000)


def test_few_orders_are_all_in_it(users, tmp_path):
    sample = sample_of(tmp_path / "all", users, max_orders=3000)
    assert sample.has(USERS).all()
    assert found_in(sample) == sorted((int(u), int(u) % 20, int(u) * 1000) for u in users)


@pytest.mark.parametrize("max_orders", [2999, 1000, 100])
def test_many_are_thinned_to_whole_histories(users, tmp_path, max_orders):
    sample = sample_of(tmp_path / "some", users, max_orders=max_orders)
    is_in = sample.has(USERS)
    assert np.array_equal(sample.log.user_ids, USERS[is_in])
    expected = users[np.isin(users, USERS[is_in])]
    assert found_in(sample) == sorted((int(u), int(u) % 20, int(u) * 1000) for u in expected)
    assert max_orders / 4 < sample.log.orders <= max_orders
    assert len(list((tmp_path / "some").iterdir())) == 1, "what it was thinned from is gone"


def test_who_is_in_it_follows_from_the_orders_alone(users, tmp_path):
    one = sample_of(tmp_path / "one", users, max_orders=700)
    two = sample_of(tmp_path / "two", np.sort(users)[::-1].copy(), max_orders=700, block=7)
    assert np.array_equal(one.log.user_ids, two.log.user_ids)
    assert found_in(one) == found_in(two)


def test_more_orders_of_one_user_than_it_may_hold_end(tmp_path):
    sample = sample_of(tmp_path / "one", np.full(5000, USERS[7]), max_orders=10)
    assert sample.log.orders == 0
    assert not sample.has(USERS[7:8]).any()


def test_without_anybody_it_is_empty(tmp_path):
    nobody = np.empty(0, np.int64)
    sample = OrderSample(tmp_path, user_ids=nobody, restaurant_ids=nobody)
    sample.append(OrderBlock(np.array([1]), np.array([1]), np.array([1])))
    sample.close()
    assert (sample.log.orders, sample.has(nobody).tolist()) == (0, [])
