"""The tables that rows are merged into in bulk, and what is derived from a row on its way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table

from shared.db.declaration import Base
from shared.db.models import Order, Restaurant, User
from shared.search_keys import cuisine_keys, filter_key, name_key, search_text

# (column, the table it names a row of, what such a row is called)
Reference = tuple[str, Table, str]


@dataclass(frozen=True, slots=True)
class Target:
    """A table that rows are merged into.

    `columns` begin with the id; `derive` gives the values of the columns `derived` from those of
    `columns`. `references` must exist. Rows are written in the `order` of the widest index, so
    that a block touches each page of it once. `lock_mode` is PostgreSQL's, of the lock that merges
    take on the table, where what they compare must hold until they have written.
    """

    table: Table
    columns: tuple[str, ...]
    references: tuple[Reference, ...] = ()
    order: tuple[str, ...] = ("id",)
    derived: tuple[str, ...] = ()
    derive: Callable[..., tuple[Any, ...]] | None = None
    lock_mode: str | None = None

    @property
    def written(self) -> tuple[str, ...]:
        return self.columns + self.derived

    def complete(self, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Rows of (columns..., line) -> rows of (written..., line)."""
        if self.derive is None:
            return rows
        return [(*row[:-1], *self.derive(row), row[-1]) for row in rows]


@lru_cache
def staging_table(target: Target, *, is_sqlite: bool) -> Table:
    """What rows of the target are staged in; one object, so that statements are compiled once."""
    columns = [
        # The key is the rowid on SQLite and costs nothing; on PostgreSQL an index would.
        Column(name, target.table.c[name].type, primary_key=name == "id" and is_sqlite)
        for name in target.written
    ]
    return Table(
        f"staged_{target.table.name}",
        MetaData(),
        *columns,
        Column("line", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
        prefixes=["TEMPORARY"],
    )


def keys_of(name: str, cuisine_type: str | None, city: str | None) -> tuple[str, str, str, str]:
    """The values of KEY_COLUMNS."""
    return (
        name_key(name),
        search_text(name, cuisine_type),
        filter_key(city),
        cuisine_keys(cuisine_type),
    )


def _restaurant_keys(row: tuple[Any, ...]) -> tuple[str, ...]:
    return keys_of(row[_NAME], row[_CUISINE], row[_CITY])


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


KEY_COLUMNS = ("name_key", "search_text", "city_key", "cuisine_keys")
RESTAURANTS = Target(
    _table(Restaurant),
    (
        "id",
        "name",
        "cuisine_type",
        "description",
        "rating",
        "price_range",
        "city",
        "latitude",
        "longitude",
        "image_url",
        "is_active",
    ),
    derived=KEY_COLUMNS,
    derive=_restaurant_keys,
    lock_mode="SHARE ROW EXCLUSIVE",  # one writer at a time; those who order go on
)
_NAME, _CUISINE, _CITY = map(RESTAURANTS.columns.index, ("name", "cuisine_type", "city"))
USERS = Target(
    _table(User),
    ("id", "name", "email", "city"),
    lock_mode="SHARE UPDATE EXCLUSIVE",  # one merge at a time; others write single users
)
ORDERS = Target(
    _table(Order),
    ("id", "user_id", "restaurant_id", "order_date", "total_amount", "rating"),
    (
        ("user_id", _table(User), "user"),
        ("restaurant_id", _table(Restaurant), "restaurant"),
    ),
    ("user_id", "order_date"),
)
