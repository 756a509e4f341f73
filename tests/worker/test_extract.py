"""What the precompute reads of a database, on both engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg2
import pytest
from sqlalchemy import Engine, insert, text

from shared.db.engine import database_errors, sync_engine
from shared.db.models import Order, Restaurant, User
from shared.errors import DatabaseUnavailable, SchemaError
from shared.settings import load_settings
from worker import extract

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LARGEST = 2**63 - 1
MANY = 700  # several pages of PostgreSQL

EngineOf = Callable[..., Engine]


@pytest.fixture
def engine_of(tmp_path: Path) -> Iterator[EngineOf]:
    engines = []

    def make(url: str, *, statement_timeout_seconds: float | None = None) -> Engine:
        settings = load_settings({"DATABASE_URL": url, "TASTEMATCH_DATA_DIR": str(tmp_path)})
        engine = sync_engine(settings, statement_timeout_seconds=statement_timeout_seconds)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(engine_of: EngineOf, database_url: str) -> Engine:
    return engine_of(database_url)


@pytest.fixture
def postgres_engine(engine_of: EngineOf, postgres_url: str) -> Engine:
    return engine_of(postgres_url)


def add_shop(engine: Engine, *, users: int = 3, restaurants: int = 2) -> None:
    with engine.begin() as connection:
        connection.execute(insert(User), [{"id": n} for n in range(1, users + 1)])
        connection.execute(
            insert(Restaurant),
            [{"id": n, "name": f"Place {n}"} for n in range(1, restaurants + 1)],
        )


def add_orders(engine: Engine, orders: list[tuple[int, int, datetime]]) -> None:
    rows = [
        {"user_id": user, "restaurant_id": restaurant, "order_date": instant}
        for user, restaurant, instant in orders
    ]
    with engine.begin() as connection:
        connection.execute(insert(Order), rows)


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def read_orders(
    engine: Engine, *, block_rows: int = 1000
) -> tuple[list[tuple[int, int, int]], dict[str, int]]:
    """Sorted, and what was left out."""
    skipped: Counter[str] = Counter()
    found = []
    with extract.reading(engine) as connection:
        for block in extract.orders(connection, block_rows=block_rows, now=NOW, skipped=skipped):
            columns = (block.user_ids, block.restaurant_ids, block.epoch_seconds)
            assert {column.dtype for column in columns} == {np.dtype(np.int64)}
            found += list(zip(*(column.tolist() for column in columns), strict=True))
    return sorted(found), {reason: number for reason, number in skipped.items() if number}


def read_users(engine: Engine, *, names: list[str], block_rows: int = 1000) -> dict[int, int]:
    cities = extract.Cities()
    for name in names:
        cities.add(name)
    with extract.reading(engine) as connection:
        users = extract.users(connection, cities, block_rows=block_rows)
    assert (users.ids.dtype, users.cities.dtype) == (np.int64, np.uint16)
    assert users.ids.tolist() == sorted(users.ids.tolist())
    return dict(zip(users.ids.tolist(), users.cities.tolist(), strict=True))


def read_restaurants(engine: Engine) -> tuple[list[extract.RestaurantRow], dict[str, int]]:
    skipped: Counter[str] = Counter()
    with extract.reading(engine) as connection:
        rows = list(extract.restaurants(connection, block_rows=10, skipped=skipped))
    return rows, dict(skipped)


@pytest.mark.parametrize("block_rows", [1, 70, 20_000])
def test_every_order_is_read_once_whatever_the_blocks(engine: Engine, block_rows: int) -> None:
    add_shop(engine)
    orders = [(1 + n % 3, 1 + n % 2, NOW - timedelta(minutes=n)) for n in range(MANY)]
    add_orders(engine, orders)
    found, skipped = read_orders(engine, block_rows=block_rows)
    assert found == sorted((user, place, int(at.timestamp())) for user, place, at in orders)
    assert skipped == {}


def test_no_block_holds_much_more_than_was_asked_for(engine: Engine) -> None:
    add_shop(engine)
    add_orders(engine, [(1, 1, NOW)] * MANY)
    with extract.reading(engine) as connection:
        for block_rows in (50, 100):
            blocks = extract.orders(connection, block_rows=block_rows, now=NOW, skipped=Counter())
            sizes = [len(block.user_ids) for block in blocks]
            assert sum(sizes) == MANY
            assert max(sizes) <= 4 * block_rows


def test_no_orders_are_no_rows(engine: Engine) -> None:
    assert read_orders(engine) == ([], {})


def test_seconds_are_whole_ones_since_1970(engine: Engine) -> None:
    add_shop(engine)
    instants = [
        datetime(1969, 12, 31, 23, 59, 58, tzinfo=UTC),
        datetime(2024, 2, 29, 12, 0, 0, 900_000, tzinfo=UTC),
        NOW + timedelta(hours=23),
    ]
    add_orders(engine, [(1, 1, instant) for instant in instants])
    found, _ = read_orders(engine)
    assert [seconds for *_, seconds in found] == [int(at.timestamp()) for at in instants]


def test_the_largest_ids_are_read(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(User), [{"id": 0}, {"id": LARGEST}])
        connection.execute(insert(Restaurant), [{"id": LARGEST, "name": "Last"}])
    add_orders(engine, [(LARGEST, LARGEST, NOW)])
    found, _ = read_orders(engine)
    assert found == [(LARGEST, LARGEST, int(NOW.timestamp()))]
    assert read_users(engine, names=[]) == {0: 0, LARGEST: 0}
    rows, _ = read_restaurants(engine)
    assert [row.id for row in rows] == [LARGEST]


def test_orders_of_the_future_are_left_out_and_counted(engine: Engine) -> None:
    add_shop(engine)
    add_orders(engine, [(1, 1, NOW), (2, 1, NOW + timedelta(days=2)), (3, 2, NOW)])
    found, skipped = read_orders(engine)
    assert [user for user, *_ in found] == [1, 3]
    assert skipped == {"orders dated in the future": 1}


def test_orders_whose_date_is_none_are_left_out_and_counted(
    engine_of: EngineOf, sqlite_url: str, postgres_url: str
) -> None:
    for url, dates in (
        (sqlite_url, ["'yesterday'", "''"]),
        (postgres_url, ["NULL", "'-infinity'", "'infinity'"]),
    ):
        engine = engine_of(url)
        add_shop(engine)
        add_orders(engine, [(1, 1, NOW)])
        if url == postgres_url:
            execute(engine, "ALTER TABLE orders ALTER COLUMN order_date DROP NOT NULL")
        for date in dates:
            execute(
                engine,
                f"INSERT INTO orders (user_id, restaurant_id, order_date) VALUES (2, 2, {date})",
            )
        found, skipped = read_orders(engine)
        assert [user for user, *_ in found] == [1]
        expected = {"orders without a date": 2}
        if url == postgres_url:
            expected["orders dated in the future"] = 1
        assert skipped == expected


def test_orders_without_a_user_belong_to_nobody(postgres_engine: Engine) -> None:
    add_shop(postgres_engine)
    execute(
        postgres_engine,
        "ALTER TABLE orders ALTER COLUMN user_id DROP NOT NULL,"
        " ALTER COLUMN restaurant_id DROP NOT NULL",
        f"INSERT INTO orders (user_id, restaurant_id, order_date) VALUES (NULL, NULL, '{NOW}')",
    )
    found, _ = read_orders(postgres_engine)
    assert found == [(-1, -1, int(NOW.timestamp()))]


def test_orders_of_a_view_are_read_too(postgres_engine: Engine) -> None:
    add_shop(postgres_engine)
    orders = [(1 + n % 3, 1, NOW - timedelta(hours=n)) for n in range(MANY)]
    add_orders(postgres_engine, orders)
    whole, _ = read_orders(postgres_engine)
    execute(
        postgres_engine,
        "ALTER TABLE orders RENAME TO all_orders",
        "CREATE VIEW orders AS SELECT * FROM all_orders WHERE user_id > 1",
    )
    found, _ = read_orders(postgres_engine, block_rows=50)
    assert found == [order for order in whole if order[0] > 1]


@pytest.mark.parametrize("block_rows", [1, 2, 1000])
def test_users_have_the_codes_of_their_cities(engine: Engine, block_rows: int) -> None:
    names = ["Leipzig", "L'Aquila", "100 % Köln", "a\\b\tc", "Nowhere"]
    cities = ["leipzig ", "L'AQUILA", "100 % KÖLN", "A\\B\tC", "Elsewhere", " ", None]
    with engine.begin() as connection:
        connection.execute(
            insert(User), [{"id": 10 * n, "city": city} for n, city in enumerate(cities)]
        )
    found = read_users(engine, names=names, block_rows=block_rows)
    assert found == {0: 1, 10: 2, 20: 3, 30: 4, 40: 0, 50: 0, 60: 0}


def test_users_with_ids_below_zero_are_left_out(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(User), [{"id": -5}, {"id": -1}, {"id": 7}])
    assert read_users(engine, names=["Leipzig"]) == {7: 0}


def test_places_are_whole_or_nothing(engine: Engine) -> None:
    nan = float("nan")  # SQLite keeps it as NULL
    places = [(51.3, 12.4), (-90.0, 180.0), (None, 12.4), (91.0, 0.0), (1.0, -200.0), (nan, 5.0)]
    with engine.begin() as connection:
        connection.execute(
            insert(Restaurant),
            [
                {"id": n, "name": f"Place {n}", "latitude": latitude, "longitude": longitude}
                for n, (latitude, longitude) in enumerate(places)
            ],
        )
    rows, skipped = read_restaurants(engine)
    assert [(row.latitude, row.longitude) for row in rows] == [
        (51.3, 12.4),
        (-90.0, 180.0),
        *[(None, None)] * 4,
    ]
    is_sqlite = engine.dialect.name == "sqlite"
    assert skipped == {"coordinates out of range": 2 if is_sqlite else 3}


def test_a_restaurant_of_no_instant_has_none(postgres_engine: Engine) -> None:
    add_shop(postgres_engine, restaurants=2)
    execute(
        postgres_engine,
        "UPDATE restaurants SET created_at = 'infinity' WHERE id = 1",
        "UPDATE restaurants SET created_at = '2024-01-01 00:00:00.9Z' WHERE id = 2",
    )
    rows, _ = read_restaurants(postgres_engine)
    seconds = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
    assert [row.created_seconds for row in rows] == [None, seconds]


def test_all_reads_see_one_state_of_the_data(engine_of: EngineOf, database_url: str) -> None:
    engine, writer = engine_of(database_url), engine_of(database_url)
    add_shop(engine)
    add_orders(engine, [(1, 1, NOW)])
    with extract.reading(engine) as connection:
        before = extract.users(connection, extract.Cities(), block_rows=10)
        with writer.begin() as other:
            other.execute(insert(User), [{"id": 50}])
        add_orders(writer, [(50, 1, NOW)] * MANY)
        after = extract.users(connection, extract.Cities(), block_rows=10)
        blocks = extract.orders(connection, block_rows=10, now=NOW, skipped=Counter())
        assert sum(len(block.user_ids) for block in blocks) == 1
    assert before.ids.tolist() == after.ids.tolist() == [1, 2, 3]
    assert len(read_orders(engine)[0]) == 1 + MANY


def test_the_connection_is_free_between_two_blocks(engine: Engine) -> None:
    add_shop(engine)
    add_orders(engine, [(1, 1, NOW)] * MANY)
    with extract.reading(engine) as connection:
        blocks = extract.orders(connection, block_rows=10, now=NOW, skipped=Counter())
        first = next(blocks)
        assert extract.counts(connection)["users"] == 3
        rest = sum(len(block.user_ids) for block in blocks)
    assert len(first.user_ids) + rest == MANY


def test_a_database_without_tables_is_told_apart(
    engine_of: EngineOf, empty_postgres_url: str, tmp_path: Path
) -> None:
    for url in (empty_postgres_url, f"sqlite:///{tmp_path / 'empty.db'}"):
        with pytest.raises(SchemaError, match="tastematch migrate"), database_errors():
            read_orders(engine_of(url))


def test_a_connection_lost_between_two_blocks_is_told(postgres_engine: Engine) -> None:
    add_shop(postgres_engine)
    add_orders(postgres_engine, [(1, 1, NOW)] * MANY)
    with suppress(DatabaseUnavailable), database_errors():
        with extract.reading(postgres_engine) as connection:
            blocks = extract.orders(connection, block_rows=10, now=NOW, skipped=Counter())
            next(blocks)
            with closing(_admin(postgres_engine)) as admin, admin.cursor() as cursor:
                pid = connection.connection.dbapi_connection.get_backend_pid()
                cursor.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            list(blocks)
        pytest.fail("the orders were read to their end")
    assert len(read_orders(postgres_engine)[0]) == MANY


def test_a_statement_that_may_not_wait_is_told(engine_of: EngineOf, postgres_url: str) -> None:
    engine = engine_of(postgres_url, statement_timeout_seconds=0.2)
    with closing(_admin(engine)) as admin, admin.cursor() as cursor:
        admin.autocommit = False
        cursor.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseUnavailable, match="statement timeout"), database_errors():
            read_orders(engine)
    assert read_orders(engine) == ([], {})


def _admin(engine: Engine) -> psycopg2.extensions.connection:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg2.connect(url)
