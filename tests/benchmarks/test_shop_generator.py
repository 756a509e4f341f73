"""The generated shop: what it promises, and that both ways of writing it hold the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg2
import pytest

from benchmarks import shop_generator
from benchmarks.shop_generator import Shop, Size
from benchmarks.shop_loading import load_postgres, write_folder
from tests.services.processes import run_tastematch

SMALL = Size(users=300, restaurants=120, orders=5_000)
TABLES = {
    "restaurants": "id, name, cuisine_type, rating, price_range, city, latitude, longitude",
    "users": "id, name, city",
    "orders": "id, user_id, restaurant_id, order_date, total_amount, rating",
}


def all_orders(size: Size) -> np.ndarray:
    """Columns id, user, restaurant, second."""
    blocks = list(Shop(size).orders())
    return np.column_stack(
        [
            np.concatenate([getattr(block, name) for block in blocks])
            for name in ("ids", "users", "restaurants", "seconds")
        ]
    )


def test_equal_sizes_and_seeds_make_equal_shops() -> None:
    first, again, other = (
        (list(Shop(size).restaurant_lines()), list(Shop(size).user_lines()), all_orders(size))
        for size in (SMALL, SMALL, Size(300, 120, 5_000, seed=2))
    )
    assert first[:2] == again[:2]
    assert np.array_equal(first[2], again[2])
    assert not np.array_equal(first[2], other[2])


def test_orders_name_what_exists_over_two_years(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop_generator, "BLOCK", 700)
    ids, users, restaurants, seconds = all_orders(SMALL).T
    assert ids.tolist() == list(range(1, 5_001))
    assert 1 <= users.min() <= users.max() <= 300
    assert 1 <= restaurants.min() <= restaurants.max() <= 120
    days = (seconds - shop_generator.LAST_SECOND) / 86_400
    assert -730 <= days.min() < -728
    assert -2 < days.max() <= 0
    assert np.all(np.diff(seconds) > -3_600)


def test_a_quarter_of_the_orders_repeats_an_earlier_one() -> None:
    orders = all_orders(Size(users=20_000, restaurants=5_000, orders=400_000))
    pairs = len(np.unique(orders[:, 1] << 20 | orders[:, 2]))
    assert 0.70 < pairs / len(orders) < 0.80


def test_some_restaurants_and_users_are_busier_than_others() -> None:
    orders = all_orders(Size(users=5_000, restaurants=1_000, orders=100_000))
    for column, count in ((1, 5_000), (2, 1_000)):
        numbers = np.sort(np.bincount(orders[:, column] - 1, minlength=count))[::-1]
        assert numbers[: count // 10].sum() > 0.3 * len(orders)
        assert numbers[0] < 0.05 * len(orders)


@pytest.mark.parametrize("size", [Size(1, 1, 1), Size(2, 1, 50), Size(40, 3, 0)])
def test_tiny_shops_exist(size: Size) -> None:
    orders = all_orders(size) if size.orders else np.empty((0, 4), int)
    assert len(orders) == size.orders == len(list(orders))
    assert len("".join(Shop(size).user_lines()).splitlines()) == 1 + size.users


def test_a_folder_and_copy_make_the_same_tables(
    postgres_url: str, empty_postgres_url: str, tmp_path: Path
) -> None:
    write_folder(Shop(SMALL), tmp_path / "set")
    imported = run_tastematch(
        "import", tmp_path / "set", env={"DATABASE_URL": postgres_url}, timeout_seconds=60
    )
    assert imported.returncode == 0, imported.stderr
    migrated = run_tastematch("migrate", env={"DATABASE_URL": empty_postgres_url})
    assert migrated.returncode == 0, migrated.stderr
    load_postgres(Shop(SMALL), empty_postgres_url)
    imported_rows, copied_rows = (
        {
            name: _rows(url, f"SELECT {columns} FROM {name} ORDER BY id")
            for name, columns in TABLES.items()
        }
        for url in (postgres_url, empty_postgres_url)
    )
    assert imported_rows == copied_rows
    assert len(copied_rows["orders"]) == SMALL.orders
    indexes, again = (
        _rows(url, "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        for url in (postgres_url, empty_postgres_url)
    )
    assert indexes == again


def _rows(url: str, query: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            rows: list[tuple[object, ...]] = cursor.fetchall()
            return rows
    finally:
        connection.close()
