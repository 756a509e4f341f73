"""Folding in one user by the kept model, against what the precompute itself published."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shared.settings import load_settings
from tests.services.datasets import write_dataset
from tests.worker.published import Published, open_published, precompute_here
from tests.worker.test_precompute import load_dataset
from worker.refresh import RefreshedLists, Refresher
from worker.refresher_reading import UserState

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CITIES = (None, "Leipzig", "Halle")
RESTAURANTS = range(10, 70)
USERS = range(100, 160)

Order = tuple[int, int, datetime]


@pytest.fixture(scope="module")
def orders() -> list[Order]:
    chance = random.Random(11)
    return [
        (
            chance.choice(USERS[:-1]),
            RESTAURANTS[int(len(RESTAURANTS) * chance.random() ** 2)],
            NOW - timedelta(minutes=chance.randrange(200 * 24 * 60)),
        )
        for _ in range(900)
    ]


@pytest.fixture(scope="module")
def shop(
    orders: list[Order], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Published, dict[str, str]]:
    folder = tmp_path_factory.mktemp("refresh")
    env = {"TASTEMATCH_DATA_DIR": str(folder / "data"), "HOME": str(folder)}
    from shared.db.migration import migrate

    migrate(load_settings(env))
    load_dataset(
        env,
        write_dataset(
            folder / "set",
            restaurants=[
                {
                    "id": place,
                    "name": f"Place {place}",
                    "cuisine_type": ("Thai", "Pizza", "Sushi")[place % 3],
                    "city": CITIES[place % 3],
                    "latitude": 51.3 + place % 7 / 100 if place % 5 else None,
                    "longitude": 12.3 + place % 11 / 100 if place % 5 else None,
                    "is_active": str(place % 13 != 0).lower(),
                }
                for place in RESTAURANTS
            ],
            users=[{"id": user, "city": CITIES[user % 3]} for user in USERS],
            orders=[
                {"id": number, "user_id": user, "restaurant_id": place, "order_date": date}
                for number, (user, place, date) in enumerate(orders, start=1)
            ],
        ),
    )
    precompute_here(env)
    return open_published(env, folder / "parts"), env


@pytest.fixture
def refresher(shop: tuple[Published, dict[str, str]]) -> Refresher:
    published, env = shop
    return Refresher(load_settings(env).models_dir / published.manifest.version)


def state_of(user: int, orders: list[Order], **more: object) -> UserState:
    own = [(place, date) for owner, place, date in orders if owner == user]
    return UserState(
        is_known=True,
        city=CITIES[user % 3],
        has_orders=bool(own),
        restaurant_ids=np.array([place for place, _ in own], np.int64),
        epoch_seconds=np.array([int(date.timestamp()) for _, date in own], np.int64),
        **more,
    )


def as_ids(each: RefreshedLists, published: Published) -> tuple[list[int], ...]:
    return tuple([published.restaurants[o] for o in ordinals] for ordinals in each.lists)


def refreshed(
    refresher: Refresher, user: int, orders: list[Order], published: Published
) -> tuple[list[int], ...]:
    (each,) = refresher.refresh([state_of(user, orders)])
    return as_ids(each, published)


def test_unchanged_orders_give_the_lists_of_the_snapshot(shop, refresher, orders):
    published, _ = shop
    together = refresher.refresh([state_of(user, orders) for user in USERS])
    for user, each in zip(USERS, together, strict=True):
        assert as_ids(each, published) == published.lists[user]
        assert refreshed(refresher, user, orders, published) == published.lists[user]
        assert each.source == published.sources[user]


def test_a_new_order_moves_its_restaurant_from_discover_to_the_repeats(shop, refresher, orders):
    published, _ = shop
    user = USERS[0]
    ordered = published.lists[user][1][0]
    more = [*orders, (user, ordered, NOW)]
    for_you, discover, again = refreshed(refresher, user, more, published)
    assert ordered not in discover
    assert ordered in again
    assert ordered in for_you[:10]


def test_the_first_order_of_a_user_makes_lists(shop, refresher, orders):
    published, _ = shop
    user = USERS[-1]
    assert published.lists[user] == ([], [], [])
    for_you, discover, again = refreshed(refresher, user, [(user, 11, NOW)], published)
    assert again == [11]
    assert for_you[0] == 11
    assert discover
    assert 11 not in discover


def test_orders_at_restaurants_that_the_model_does_not_know_are_left_out(shop, refresher, orders):
    published, _ = shop
    more = [*orders, (USERS[1], 5, NOW), (USERS[1], 2**62, NOW)]
    assert refreshed(refresher, USERS[1], more, published) == published.lists[USERS[1]]


def test_hidden_restaurants_are_in_no_list_and_all_else_stays(shop, refresher, orders):
    published, _ = shop
    user = USERS[0]
    hidden = {published.lists[user][1][0], published.lists[user][2][0], 5}
    (each,) = refresher.refresh([state_of(user, orders, hidden=frozenset(hidden))])
    for found, was in zip(as_ids(each, published), published.lists[user], strict=True):
        assert found == [place for place in was if place not in hidden]


def test_models_of_pruned_versions_go(shop):
    published, env = shop
    settings = load_settings({**env, "TASTEMATCH_KEEP_SNAPSHOTS": "1"})
    precompute_here({**env, "TASTEMATCH_KEEP_SNAPSHOTS": "1"})
    left = [folder.name for folder in settings.models_dir.iterdir()]
    assert len(left) == 1
    assert left != [published.manifest.version]
