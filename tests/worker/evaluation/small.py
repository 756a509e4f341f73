"""Small shops for tests of the evaluation: orders by hand, split and ready to be judged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worker import memory
from worker.evaluation.context import Shop
from worker.evaluation.held_out import HeldOut
from worker.extract import OrderBlock
from worker.order_log import OrderLog
from worker.ranking.surroundings import RestaurantFacts

Order = tuple[int, int, int]
"""User id, restaurant id, second."""


def log_of(
    path: Path, orders: Sequence[Order], *, users: Sequence[int], restaurants: Sequence[int]
) -> OrderLog:
    columns = np.array(orders, np.int64).reshape(-1, 3).T
    with OrderLog(
        path, user_ids=np.array(users, np.int64), restaurant_ids=np.array(restaurants, np.int64)
    ) as log:
        log.append(OrderBlock(*columns.copy()))
    return log


def plan_of(held_out: HeldOut, **sizes: int) -> memory.Plan:
    plan = memory.make_plan(
        users=len(held_out.train.user_ids),
        restaurants=len(held_out.train.restaurant_ids),
        orders=held_out.train.orders,
        budget_mb=512,
        store_budget_mb=128,
        head_length=200,
    )
    return type(plan)(**{**{name: getattr(plan, name) for name in plan.__slots__}, **sizes})


def shop_of(
    held_out: HeldOut,
    *,
    user_cities: Sequence[int] | None = None,
    restaurant_cities: Sequence[int] | None = None,
) -> Shop:
    """Without cities given, nobody and nothing has one. All restaurants are active."""
    restaurants = len(held_out.train.restaurant_ids)
    return Shop(
        user_cities=np.array(user_cities or [0] * len(held_out.train.user_ids), np.uint16),
        facts=RestaurantFacts(
            city_codes=np.array(restaurant_cities or [0] * restaurants, np.uint16),
            latitudes=np.full(restaurants, np.nan, np.float32),
            longitudes=np.full(restaurants, np.nan, np.float32),
            cuisine_codes=np.zeros(restaurants, np.int32),
            is_candidate=np.ones(restaurants, np.bool_),
        ),
    )


def random_shop(path: Path, *, users: int, restaurants: int, orders: int, seed: int) -> OrderLog:
    """Users with a taste of their own: most go back to where they were, some go where many go."""
    random = np.random.default_rng(seed)
    user = np.floor(users * random.random(orders) ** 1.5).astype(np.int64)
    popular = np.floor(restaurants * random.random(orders) ** 2)
    favourite = (user * 7 + random.integers(0, 3, orders)) % restaurants
    restaurant = np.where(random.random(orders) < 0.5, favourite, popular).astype(np.int64)
    second = np.sort(random.integers(10**9, 10**9 + 10**7, orders))
    with OrderLog(
        path, user_ids=np.arange(users), restaurant_ids=np.arange(100, 100 + restaurants)
    ) as log:
        log.append(OrderBlock(user, restaurant + 100, second))
    return log
