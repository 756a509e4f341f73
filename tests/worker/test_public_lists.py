"""From a database to the lists of everyone: popular, trending, new, similar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from shared.db.engine import sync_engine
from shared.db.models import Restaurant
from shared.settings import load_settings
from shared.snapshot.format import EVERYWHERE, KIND_NEW, KIND_TRENDING, Ragged
from tastematch.dataset import open_dataset
from tastematch.importer import import_dataset
from tests.services.datasets import write_dataset
from tests.worker.published import Published, open_published, precompute_here

NEWEST = datetime(2026, 6, 1, 12, tzinfo=UTC)

Env = dict[str, str]
Visits = Sequence[tuple[int, int, float]]
"""(user, restaurant, days before the newest order)"""


@pytest.fixture
def env(database_url: str, tmp_path: Path) -> Env:
    return {
        "DATABASE_URL": database_url,
        "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
        "HOME": str(tmp_path),
    }


def load(env: Env, folder: Path, restaurants: Sequence[Mapping[str, Any]], visits: Visits) -> None:
    write_dataset(
        folder,
        restaurants=[{"name": f"Place {row['id']}", **row} for row in restaurants],
        users=[{"id": user} for user in sorted({user for user, _, _ in visits})],
        orders=[
            {
                "id": number,
                "user_id": user,
                "restaurant_id": restaurant,
                "order_date": NEWEST - timedelta(days=days),
            }
            for number, (user, restaurant, days) in enumerate(visits, start=1)
        ],
    )
    engine = sync_engine(load_settings(env))
    rejected = []
    import_dataset(
        engine,
        open_dataset(folder, now=NEWEST + timedelta(days=365)),
        on_bad_row=rejected.append,
        on_progress=lambda table: None,
    )
    engine.dispose()
    assert not rejected


def created(env: Env, restaurant: int, *, days: float) -> None:
    """Sets when a restaurant's row was written, days before the newest order."""
    engine = sync_engine(load_settings(env))
    change = update(Restaurant).where(Restaurant.id == restaurant)
    with engine.begin() as connection:
        connection.execute(change.values(created_at=NEWEST - timedelta(days=days)))
    engine.dispose()


def computed(env: Env, folder: Path) -> Published:
    precompute_here(env)
    return open_published(env, folder)


def rows(found: Published, part: str, kind: int) -> list[list[int]]:
    """The ids of each row: everywhere, then the cities by code."""
    ragged = Ragged(memoryview(found.parts[part]), kind=kind)
    return [[found.restaurants[o] for o in ragged.row(row)] for row in range(ragged.count)]


def spread(restaurant: int, *, recent: int, previous: int) -> list[tuple[int, int, float]]:
    """So many orders by as many users in the newest two weeks, and in the two before."""
    return [(user + 1, restaurant, 13.0 * user / recent) for user in range(recent)] + [
        (user + 1, restaurant, 14.5 + 13.0 * user / previous) for user in range(previous)
    ]


GROWING = [
    *spread(1, recent=3, previous=1),
    *spread(2, recent=150, previous=100),
    *spread(3, recent=40, previous=40),
    *spread(5, recent=30, previous=4),
    *spread(6, recent=50, previous=1),
]
TOWNS = [
    *({"id": i, "city": "Lima"} for i in (1, 2, 3, 4)),
    *({"id": i, "city": "Cusco", "is_active": i != 6} for i in (5, 6, 7)),
]


def test_what_surely_grows_is_trending(env: Env, tmp_path: Path) -> None:
    load(env, tmp_path / "set", TOWNS, [*GROWING, (1, 3, 30.0)])
    found = computed(env, tmp_path / "parts")
    # Restaurant 1 tripled, by two orders; 6 grew most and is inactive.
    assert rows(found, "trending", KIND_TRENDING) == [[5, 2], [2], [5]]


def test_orders_of_three_weeks_have_no_trend(env: Env, tmp_path: Path) -> None:
    load(env, tmp_path / "set", TOWNS, [visit for visit in GROWING if visit[2] < 21])
    found = computed(env, tmp_path / "parts")
    assert rows(found, "trending", KIND_TRENDING) == [[], [], []]
    assert found.popular[None][:2] == [2, 3]


def test_restaurants_imported_at_once_are_new_by_their_first_order(
    env: Env, tmp_path: Path
) -> None:
    visits = [(1, 1, 50.0), (1, 2, 9.0), (2, 2, 70.0), (2, 3, 20.0), (3, 3, 1.0), (3, 5, 60.0)]
    visits += [(4, 6, 2.0)]
    load(env, tmp_path / "set", TOWNS, visits)
    found = computed(env, tmp_path / "parts")
    assert rows(found, "new", KIND_NEW) == [[3, 1, 5, 2, 4, 7], [3, 1, 2, 4], [5, 7]]


def test_restaurants_that_came_later_are_new_by_when_they_came(env: Env, tmp_path: Path) -> None:
    visits = [(1, 1, 50.0), (1, 2, 40.0), (2, 5, 0.0), (1, 4, 90.0)]
    load(env, tmp_path / "set", TOWNS, visits)
    for restaurant in (1, 2, 5, 6, 7):
        created(env, restaurant, days=45)
    created(env, 3, days=10)  # nobody ordered there so far
    created(env, 4, days=5)  # written long after its first order
    found = computed(env, tmp_path / "parts")
    # 2 and 5 were there from the beginning, before they were ordered from.
    assert rows(found, "new", KIND_NEW)[EVERYWHERE] == [3, 5, 2, 1, 4, 7]


def test_a_restaurant_without_guests_is_like_the_popular_ones_of_its_kind(
    env: Env, tmp_path: Path
) -> None:
    kinds = {1: "Thai", 2: "thai |Vegan", 3: "Thai", 4: "Vegan", 5: "Thai", 6: "Thai", 7: None}
    towns = [
        *({"id": i, "city": "Lima", "cuisine_type": kinds[i]} for i in (1, 2, 3, 4)),
        {"id": 5, "city": "Cusco", "cuisine_type": kinds[5]},
        {"id": 6, "city": "Lima", "cuisine_type": kinds[6], "is_active": False},
        {"id": 7, "city": "Lima", "cuisine_type": kinds[7]},
    ]
    visits = [(1, 2, 1.0), (2, 2, 2.0), (1, 3, 2.0), (1, 6, 1.0), (2, 6, 1.0), (2, 4, 80.0)]
    load(env, tmp_path / "set", towns, visits)
    similar = computed(env, tmp_path / "parts").similar
    assert similar[1] == [2, 3]  # the popular ones first; 5 is elsewhere, 6 inactive
    assert similar[5] == []
    assert similar[7] == []
    assert set(similar[2]) == {3, 4}
    assert all(6 not in others for others in similar.values())


def test_the_only_restaurant_is_like_no_other(env: Env, tmp_path: Path) -> None:
    load(env, tmp_path / "set", [{"id": 9, "city": "Lima", "cuisine_type": "Thai"}], [])
    found = computed(env, tmp_path / "parts")
    assert found.similar == {9: []}
    assert rows(found, "new", KIND_NEW) == [[9], [9]]
    assert rows(found, "trending", KIND_TRENDING) == [[], []]
