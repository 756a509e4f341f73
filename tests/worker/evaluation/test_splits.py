import numpy as np
import pytest

from tests.worker.evaluation.small import log_of, random_shop
from worker.evaluation import held_out as files
from worker.evaluation.splits import cut, hold_out_last, hold_out_next

ALL_ACTIVE = np.ones(4, np.bool_)


@pytest.fixture
def log(tmp_path):
    """Users 1-4 and restaurants 10, 20, 30, 40; a second stands for the order's number."""
    orders = [
        (1, 10, 0),
        (1, 10, 1),
        (2, 20, 2),
        (1, 20, 3),
        (2, 10, 4),
        (1, 10, 5),  # user 1 next: a repeat
        (1, 20, 6),
        (2, 30, 7),  # user 2 next: a restaurant that nobody had ordered from
        (3, 10, 8),  # user 3: the first order of all
        (3, 20, 9),
    ]
    return log_of(tmp_path / "orders", orders, users=[1, 2, 3, 4], restaurants=[10, 20, 30, 40])


def pairs_of(part):
    """User id -> restaurant ids, of the training side and of the targets."""
    train = part.train
    seen = {
        int(user): train.restaurant_ids[train.restaurants[a:b]].tolist()
        for user, a, b in zip(train.user_ids, train.indptr[:-1], train.indptr[1:], strict=True)
    }
    targets = {
        int(train.user_ids[user]): train.restaurant_ids[part.targets[a:b]].tolist()
        for user, a, b in zip(part.users, part.indptr[:-1], part.indptr[1:], strict=True)
    }
    return seen, targets


def test_the_next_order_after_the_cut_is_the_target(log):
    part, counts = hold_out_next(log, is_active=ALL_ACTIVE, start=5)
    seen, targets = pairs_of(part)
    assert seen == {1: [10, 20], 2: [10, 20], 3: [], 4: []}
    assert targets == {1: [10], 3: [10]}
    assert part.is_new.tolist() == [False, True]
    assert part.orders.tolist() == [3, 0]
    assert part.restaurant_orders.tolist() == [3, 2, 0, 0]
    assert (counts.train_orders, counts.users, counts.new_users) == (5, 1, 1)
    assert (counts.unseen_targets, counts.inactive_targets, counts.repeat_share) == (1, 0, 1.0)


def test_a_window_ends_where_the_next_begins(log):
    part, counts = hold_out_next(log, is_active=ALL_ACTIVE, start=3, stop=5)
    assert pairs_of(part)[1] == {1: [20], 2: [10]}
    assert part.is_new.tolist() == [True, True]
    assert counts.repeat_share == 0


def test_the_newest_order_of_each_user_is_left_out(log):
    part, counts = hold_out_last(log, is_active=ALL_ACTIVE)
    seen, targets = pairs_of(part)
    assert seen == {1: [10, 20], 2: [10, 20], 3: [10], 4: []}
    assert targets == {1: [20], 3: [20]}  # nobody else ordered from user 2's restaurant 30
    assert part.is_new.tolist() == [False, True]
    assert part.orders.tolist() == [4, 1]
    assert (counts.users, counts.unseen_targets, counts.repeat_share) == (2, 1, 0.5)


def test_inactive_restaurants_are_no_targets(log):
    is_active = np.array([False, True, True, True])
    part, counts = hold_out_next(log, is_active=is_active, start=5)
    assert len(part.users) == 0
    assert (counts.inactive_targets, counts.unseen_targets) == (2, 1)


@pytest.mark.parametrize(
    ("train", "validation", "expected"), [(0.8, 0.1, (8, 9)), (0.8, 0, (8, 8)), (0.7, 0.1, (7, 8))]
)
def test_cuts_are_at_shares_of_the_orders_by_count(log, train, validation, expected):
    cuts = cut(log, train_share=train, validation_share=validation)
    assert (cuts.validation_from, cuts.test_from) == expected


def test_orders_of_one_second_stay_on_one_side(tmp_path):
    orders = [(1, 10, 0), (2, 10, 0), (1, 20, 5), (1, 10, 5), (2, 20, 5), (2, 20, 5)]
    log = log_of(tmp_path / "ties", orders, users=[1, 2], restaurants=[10, 20])
    # Three of six orders would cut between equal seconds: all of them lie behind.
    cuts = cut(log, train_share=0.5, validation_share=0)
    part, counts = hold_out_next(log, is_active=ALL_ACTIVE[:2], start=cuts.test_from)
    assert (cuts.test_from, counts.train_orders) == (5, 2)
    assert pairs_of(part)[1] == {1: [10]}  # of two next orders that of the smaller row
    assert counts.unseen_targets == 1
    part, counts = hold_out_last(log, is_active=ALL_ACTIVE[:2])
    assert pairs_of(part) == ({1: [10], 2: [10]}, {})  # nobody is left who ordered from 20
    assert (counts.train_orders, counts.unseen_targets) == (3, 2)


def test_everything_at_one_second_leaves_nothing_to_learn_from(tmp_path):
    log = log_of(tmp_path / "one", [(1, 10, 5)] * 3, users=[1], restaurants=[10])
    cuts = cut(log, train_share=0.8, validation_share=0.1)
    part, counts = hold_out_next(log, is_active=ALL_ACTIVE[:1], start=cuts.test_from)
    assert (len(part.users), counts.train_orders, counts.unseen_first_targets) == (0, 0, 1)
    part, counts = hold_out_last(log, is_active=ALL_ACTIVE[:1])
    assert (len(part.users), counts.single_order_users) == (0, 1)


def test_no_order_is_on_both_sides_and_none_is_lost(tmp_path):
    log = random_shop(tmp_path / "orders", users=60, restaurants=30, orders=1500, seed=1)
    columns = [np.concatenate(c) for c in zip(*_columns(log), strict=True)]
    user, restaurant, second = columns
    start = log.nth_second(1200)
    part, counts = hold_out_next(log, is_active=np.ones(30, np.bool_), start=start)
    before = second < start
    assert counts.train_orders == before.sum()
    assert part.restaurant_orders.tolist() == np.bincount(restaurant[before], minlength=30).tolist()
    expected = {}
    for u, r, _ in sorted(zip(*(c[~before].tolist() for c in columns), strict=True), key=_by_time):
        expected.setdefault(u, r)
    assert dict(zip(part.users.tolist(), part.targets.tolist(), strict=True)) == {
        u: r for u, r in expected.items() if (restaurant[before] == r).any()
    }
    known = set(zip(user[before].tolist(), restaurant[before].tolist(), strict=True))
    pairs = zip(part.users.tolist(), part.targets.tolist(), strict=True)
    assert part.is_new.tolist() == [pair not in known for pair in pairs]


def test_files_give_back_what_was_saved(log, tmp_path):
    part, _ = hold_out_next(log, is_active=ALL_ACTIVE, start=5)
    files.save(part, tmp_path / "saved")
    again = files.load(tmp_path / "saved")
    for name in ("users", "indptr", "targets", "is_new", "orders", "restaurant_orders"):
        assert np.array_equal(getattr(again, name), getattr(part, name))
    for name in part.train.__slots__:
        assert np.array_equal(getattr(again.train, name), getattr(part.train, name))


def test_a_sample_of_users_keeps_their_own_targets(tmp_path):
    log = random_shop(tmp_path / "orders", users=200, restaurants=30, orders=3000, seed=2)
    part, _ = hold_out_last(log, is_active=np.ones(30, np.bool_))
    some = files.sample_users(part, limit=50, seed=4)
    assert len(some.users) == 50
    assert np.array_equal(some.users, files.sample_users(part, limit=50, seed=4).users)
    assert not np.array_equal(some.users, files.sample_users(part, limit=50, seed=5).users)
    assert files.sample_users(part, limit=10_000, seed=4) is part
    whole = dict(zip(part.users.tolist(), part.targets.tolist(), strict=True))
    assert all(
        whole[u] == t for u, t in zip(some.users.tolist(), some.targets.tolist(), strict=True)
    )
    histories = some.histories()
    for row, user in enumerate(some.users.tolist()):
        own = part.train.restaurants[part.train.indptr[user] : part.train.indptr[user + 1]]
        kept = histories.restaurants[histories.indptr[row] : histories.indptr[row + 1]]
        assert np.array_equal(kept, own)


def _columns(log):
    for block in log.blocks():
        yield block.users, block.restaurants, block.seconds


def _by_time(order):
    return order[2], order[1]
