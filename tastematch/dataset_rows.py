"""What the rows of a data set hold: their types, columns, limits and the parser of each column.

docs/dataset-format.md describes the same for those who make data sets. How files are found and
read is in `dataset`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from shared.parsing import (
    ParseError,
    parse_amount,
    parse_bool,
    parse_cuisines,
    parse_float,
    parse_http_url,
    parse_id,
    parse_instant,
    parse_order_rating,
    parse_price_range,
    parse_restaurant_rating,
    parse_text,
    shown,
)

MAX_NAME_CHARS = 200
MAX_CITY_CHARS = 100
MAX_CUISINES_CHARS = 200
MAX_EMAIL_CHARS = 254
MAX_DESCRIPTION_CHARS = 65_535
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
Parser = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class TableForm(Generic[Row]):
    """What a file holds. `parsers`: column -> parser, in the order of the row type's fields."""

    row_type: type[Row]
    required: tuple[str, ...]
    parsers: Mapping[str, Parser]


def restaurants_form() -> TableForm[RestaurantRow]:
    return TableForm(
        row_type=RestaurantRow,
        required=("id", "name"),
        parsers={
            "id": parse_id,
            "name": _parse_name,
            "cuisine_type": _optional(_parse_cuisines),
            "description": _text(MAX_DESCRIPTION_CHARS),
            "rating": _optional(parse_restaurant_rating),
            "price_range": _optional(parse_price_range),
            "city": _text(MAX_CITY_CHARS),
            "latitude": _optional(partial(parse_float, low=-90, high=90)),
            "longitude": _optional(partial(parse_float, low=-180, high=180)),
            "image_url": _optional(parse_http_url),
            "is_active": _optional(parse_bool, default=True),
        },
    )


def users_form() -> TableForm[UserRow]:
    return TableForm(
        row_type=UserRow,
        required=("id",),
        parsers={
            "id": parse_id,
            "name": _text(MAX_NAME_CHARS),
            "email": _text(MAX_EMAIL_CHARS),
            "city": _text(MAX_CITY_CHARS),
        },
    )


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
            "total_amount": _optional(parse_amount),
            "rating": _optional(parse_order_rating),
        },
    )


def _optional(parse: Parser, default: object = None) -> Parser:
    def parse_optional(text: str) -> object:
        return parse(text) if text and not text.isspace() else default

    return parse_optional


def _text(max_chars: int) -> Parser:
    return _optional(partial(parse_text, max_chars=max_chars))


def _parse_name(text: str) -> str:
    name = parse_text(text, max_chars=MAX_NAME_CHARS)
    if not name:
        raise ParseError("is empty")
    return name


def _parse_cuisines(text: str) -> str | None:
    return parse_cuisines(text, max_chars=MAX_CUISINES_CHARS) or None
