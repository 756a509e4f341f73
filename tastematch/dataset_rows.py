"""What the rows of a data set hold: their types, columns, limits and the parser of each column.

docs/dataset-format.md describes the same for those who make data sets. How files are found and
read is in `dataset`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Generic, NamedTuple, TypeVar

from shared.columns import RESTAURANT_COLUMNS, USER_COLUMNS, Column, Parser, optional
from shared.parsing import (
    ParseError,
    parse_amount,
    parse_id,
    parse_instant,
    parse_order_rating,
    shown,
)

# Clocks differ and dates are written in local time with a wrong offset: a day is forgiven.
MAX_AHEAD = timedelta(days=1)


class RestaurantRow(NamedTuple):
    """`line` is where the row starts in its file; the rest is what the columns hold."""

    id: int
    name: str
    cuisine_type: str | None
    description: str | None
    rating: float | None
    price_range: int | None
    city: str | None
    latitude: float | None
    longitude: float | None
    image_url: str | None
    is_active: bool
    line: int


class UserRow(NamedTuple):
    id: int
    name: str | None
    email: str | None
    city: str | None
    line: int


class OrderRow(NamedTuple):
    """`order_date` is in UTC, `total_amount` exact."""

    id: int
    user_id: int
    restaurant_id: int
    order_date: datetime
    total_amount: Decimal | None
    rating: float | None
    line: int


Row = TypeVar("Row", bound=RestaurantRow | UserRow | OrderRow)


@dataclass(frozen=True, slots=True)
class TableForm(Generic[Row]):
    """What a file holds. `parsers`: column -> parser, in the order of the row type's fields."""

    row_type: type[Row]
    required: tuple[str, ...]
    parsers: Mapping[str, Parser]


def restaurants_form() -> TableForm[RestaurantRow]:
    return TableForm(RestaurantRow, *_fields(RESTAURANT_COLUMNS))


def users_form() -> TableForm[UserRow]:
    return TableForm(UserRow, *_fields(USER_COLUMNS))


def orders_form(*, now: datetime) -> TableForm[OrderRow]:
    """The form of orders whose date is not after `now` by more than MAX_AHEAD."""
    latest = now + MAX_AHEAD

    def parse_order_date(text: str) -> datetime:
        instant = parse_instant(text)
        if instant > latest:
            raise ParseError(f"{shown(text)} is more than a day in the future")
        return instant

    return TableForm(
        row_type=OrderRow,
        required=("id", "user_id", "restaurant_id", "order_date"),
        parsers={
            "id": parse_id,
            "user_id": parse_id,
            "restaurant_id": parse_id,
            "order_date": parse_order_date,
            "total_amount": optional(parse_amount),
            "rating": optional(parse_order_rating),
        },
    )


def _fields(columns: Mapping[str, Column]) -> tuple[tuple[str, ...], Mapping[str, Parser]]:
    required = tuple(name for name, column in columns.items() if column.is_required)
    return required, {name: column.parse for name, column in columns.items()}
