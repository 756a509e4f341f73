import numpy as np
import pytest

from worker.extract import OrderBlock
from worker.order_log import OrderLog


def block(*orders: tuple[int, int, int]) -> OrderBlock:
    return OrderBlock(*np.array(orders, np.int64).reshape(-1, 3).T.copy())


@pytest.fixture
def log(tmp_path):
    with OrderLog(
        tmp_path / "orders", user_ids=np.array([3, 2**62]), restaurant_ids=np.array([10, 20])
    ) as log:
        log.append(block((3, 10, 500), (2**62, 20, 1_700_000_000), (4, 10, 1), (3, 11, 1)))
        log.append(block())
        log.append(block((3, 20, -5), (3, 20, 2**40)))
    return log


@pytest.mark.parametrize("block_orders", [1, 3, 1000])
def test_usable_orders_come_back_in_rows(log, block_orders):
    assert (log.orders, log.skipped) == (4, 2)
    found = [
        (user, restaurant, second)
        for rows in log.blocks(block_orders=block_orders)
        for user, restaurant, second in zip(
            rows.users.tolist(), rows.restaurants.tolist(), rows.seconds.tolist(), strict=True
        )
    ]
    assert found == [(0, 0, 500), (1, 1, 1_700_000_000), (0, 1, 0), (0, 1, 2**32 - 1)]


def test_the_nth_second_is_that_of_the_sorted_orders(tmp_path):
    random = np.random.default_rng(1)
    seconds = np.concatenate([random.integers(0, 2**32, 300), random.integers(70_000, 70_020, 300)])
    ids = np.array([1])
    with OrderLog(tmp_path / "orders", user_ids=ids, restaurant_ids=ids) as log:
        log.append(OrderBlock(np.ones(600, np.int64), np.ones(600, np.int64), seconds))
    assert [log.nth_second(n) for n in range(600)] == np.sort(seconds).tolist()
    assert log.nth_second(600) == 2**32


def test_without_orders_there_is_no_time(tmp_path):
    nobody = np.empty(0, np.int64)
    with OrderLog(tmp_path / "orders", user_ids=nobody, restaurant_ids=nobody) as log:
        log.append(block((1, 1, 1)))
    assert (log.orders, log.skipped, list(log.blocks())) == (0, 1, [])
    assert log.nth_second(0) == 2**32
