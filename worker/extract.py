"""Streams restaurants, users, preferences and orders out of the database in blocks of columns.

One read transaction covers them all, so a snapshot shows one state of the data. Rows that cannot
be used are left out and counted by reason. Never holds more than one block of rows; what is
returned whole is one number a user or restaurant.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Integer,
    case,
    cast,
    column,
    func,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import OID

from shared.db.models import Order, Preferences, Restaurant, User
from shared.parsing import MAX_ID
from worker.id_columns import NO_DATE, order_columns, user_columns
from worker.ranking.popularity import NO_CITY

MAX_CITIES = 65_535
MAX_AHEAD = timedelta(days=1)

_PG_CLASS = table("pg_class", column("oid"), column("reltuples"))


@dataclass(frozen=True, slots=True)
class RestaurantRow:
    """One restaurant; `rating` is within 0-5 or None. Both coordinates in degrees, or neither."""

    id: int
    name: str
    cuisine_type: str | None
    rating: float | None
    price_range: int | None
    city: str | None
    latitude: float | None
    longitude: float | None
    image_url: str | None
    is_active: bool
    created_seconds: int | None
    """When the row was written, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class OrderBlock:
    """Three columns of shape (n,)."""

    user_ids: NDArray[np.int64]
    restaurant_ids: NDArray[np.int64]
    epoch_seconds: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UserColumns:
    """ids: ascending, shape (users,). cities: codes, shape (users,), NO_CITY where unknown."""

    ids: NDArray[np.int64]
    cities: NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Taste:
    """What a user without orders likes; every field may be empty."""

    cuisines: frozenset[str]
    price_ranges: frozenset[int]
    city: int


class Cities:
    """City names <-> codes; a code is a place in `names`, 0 is no city.

    Names are matched without regard to case: users and restaurants are written by different hands.
    """

    def __init__(self) -> None:
        self.names: list[str | None] = [None]
        self._codes: dict[str, int] = {}

    @classmethod
    def of(cls, names: Sequence[str | None]) -> Self:
        """Those of a model, by their codes."""
        cities = cls()
        for name in names[1:]:
            cities.add(name)
        return cities

    def add(self, name: str | None) -> int:
        if name is None or not name.strip():
            return NO_CITY
        key = name.strip().casefold()
        code = self._codes.get(key)
        if code is None:
            if len(self.names) > MAX_CITIES:
                return NO_CITY
            code = self._codes[key] = len(self.names)
            self.names.append(name.strip())
        return code

    def find(self, name: str | None) -> int:
        return NO_CITY if name is None else self._codes.get(name.strip().casefold(), NO_CITY)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection whose reads all see the same state of the database."""
    with engine.connect() as connection:
        if connection.dialect.name != "sqlite":
            connection = connection.execution_options(  # noqa: PLW2901
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        with connection.begin():
            if connection.dialect.name == "sqlite":
                # The driver begins no transaction for reads: each would see a state of its own.
                connection.exec_driver_sql("BEGIN")
            yield connection


def restaurants(
    connection: Connection, *, block_rows: int, skipped: Counter[str]
) -> Iterator[RestaurantRow]:
    """All restaurants by id, the inactive ones too: their orders still tell about taste."""
    statement = select(
        Restaurant.id,
        Restaurant.name,
        Restaurant.cuisine_type,
        Restaurant.rating,
        Restaurant.price_range,
        Restaurant.city,
        Restaurant.latitude,
        Restaurant.longitude,
        Restaurant.image_url,
        Restaurant.is_active,
        epoch_seconds(connection, Restaurant.created_at).label("created_seconds"),
    ).order_by(Restaurant.id)
    for rows in _stream(connection, statement, block_rows):
        for row in rows:
            if not 0 <= row.id <= MAX_ID:
                skipped["restaurants with an id out of range"] += 1
            elif not row.name or not row.name.strip():
                skipped["restaurants without a name"] += 1
            else:
                yield RestaurantRow(
                    row.id,
                    row.name,
                    row.cuisine_type,
                    _within(row.rating, 0, 5, "ratings out of range", skipped),
                    _within(row.price_range, 1, 4, "price ranges out of range", skipped),
                    row.city,
                    *_place(row.latitude, row.longitude, skipped),
                    row.image_url,
                    bool(row.is_active),
                    row.created_seconds,
                )


def users(connection: Connection, cities: Cities, *, block_rows: int) -> UserColumns:
    """Every user's id and city code."""
    # A city stands beside thousands of users: its name is looked up once, not once a user.
    codes: dict[str | None, int] = {}
    named = select(User.city).where(User.city.is_not(None)).distinct()
    for rows in _stream(connection, named, block_rows):
        codes.update((row[0], code) for row in rows if (code := cities.find(row[0])) != NO_CITY)
    ids: list[NDArray[np.int64]] = []
    places: list[NDArray[np.uint16]] = []
    for block in user_columns(connection, codes, block_rows=block_rows):
        ids.append(block[0])
        places.append(block[1].astype(np.uint16))
    return UserColumns(
        np.concatenate(ids) if ids else np.empty(0, np.int64),
        np.concatenate(places) if places else np.empty(0, np.uint16),
    )


def orders(
    connection: Connection, *, block_rows: int, now: datetime, skipped: Counter[str]
) -> Iterator[OrderBlock]:
    """Orders in the table's own order; those dated more than a day after `now` are left out.

    Blocks are as large as suits the database, in about the memory of `block_rows` rows as objects.
    """
    latest = int((now + MAX_AHEAD).timestamp())
    for users, restaurants, seconds in order_columns(connection, block_rows=block_rows):
        is_dated = seconds != NO_DATE
        is_past = seconds <= latest
        undated = len(seconds) - int(np.count_nonzero(is_dated))
        ahead = len(seconds) - int(np.count_nonzero(is_past))
        if undated or ahead:
            skipped["orders without a date"] += undated
            skipped["orders dated in the future"] += ahead
            is_usable = is_dated & is_past
            yield OrderBlock(users[is_usable], restaurants[is_usable], seconds[is_usable])
        else:
            yield OrderBlock(users, restaurants, seconds)


def tastes(connection: Connection, cities: Cities, *, block_rows: int) -> dict[int, Taste]:
    """Preferences of users who have no order, by user id."""
    has_order = select(Order.id).where(Order.user_id == Preferences.user_id).exists()
    statement = select(
        Preferences.user_id, Preferences.cuisines, Preferences.price_ranges, Preferences.city
    ).where(~has_order)
    found: dict[int, Taste] = {}
    for rows in _stream(connection, statement, block_rows):
        for row in rows:
            found[row.user_id] = taste_of(row, cities)
    return found


def taste_of(row: Any, cities: Cities) -> Taste:
    """row: of the columns `cuisines`, `price_ranges` and `city` of preferences."""
    cuisines = frozenset(str(c).strip().casefold() for c in row.cuisines or ())
    prices = frozenset(p for p in row.price_ranges or () if isinstance(p, int))
    return Taste(cuisines, prices, cities.find(row.city))


def counts(connection: Connection) -> dict[str, int]:
    """Rows of users, restaurants and orders; the orders of PostgreSQL are an estimate.

    Counting all orders takes PostgreSQL as long as reading them; the planner's figure is good
    enough to choose block sizes and to draw a progress bar.
    """
    orders = 0
    if connection.dialect.name != "sqlite":
        estimate = select(_PG_CLASS.c.reltuples).where(
            _PG_CLASS.c.oid == cast(func.to_regclass("orders"), OID)
        )
        orders = int(connection.scalar(estimate) or 0)
    return {
        "users": connection.scalar(select(func.count()).select_from(User)) or 0,
        "restaurants": connection.scalar(select(func.count()).select_from(Restaurant)) or 0,
        "orders": orders
        if orders > 0
        else connection.scalar(select(func.count()).select_from(Order)) or 0,
    }


def epoch_seconds(connection: Connection, instant: Any) -> Any:
    """SQL for the whole seconds since 1970; None where the column holds no instant."""
    if connection.dialect.name == "sqlite":
        return cast(func.strftime("%s", instant), Integer)
    seconds = cast(func.floor(func.extract("epoch", instant)), BigInteger)
    return case((func.isfinite(instant), seconds))


def _stream(connection: Connection, statement: Any, block_rows: int) -> Iterator[Sequence[Any]]:
    streamed = connection.execution_options(stream_results=True, max_row_buffer=block_rows)
    return streamed.execute(statement).partitions(block_rows)


def _within(value: Any, low: float, high: float, reason: str, skipped: Counter[str]) -> Any:
    if value is None or (math.isfinite(value) and low <= value <= high):
        return value
    skipped[reason] += 1
    return None


def _place(
    latitude: Any, longitude: Any, skipped: Counter[str]
) -> tuple[float | None, float | None]:
    """Both coordinates or neither: one alone says nothing."""
    reason = "coordinates out of range"
    if latitude is None or longitude is None:
        return None, None
    if _within(latitude, -90, 90, reason, skipped) is None:
        return None, None
    if _within(longitude, -180, 180, reason, skipped) is None:
        return None, None
    return float(latitude), float(longitude)
