"""What the columns of restaurants and users hold, one parser each: for files and for HTTP.

docs/dataset-format.md describes the same for those who make data sets.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from shared.parsing import (
    ParseError,
    parse_bool,
    parse_cuisines,
    parse_float,
    parse_http_url,
    parse_id,
    parse_price_range,
    parse_restaurant_rating,
    parse_text,
)

MAX_NAME_CHARS: Final = 200
MAX_CITY_CHARS: Final = 100
MAX_CUISINES_CHARS: Final = 200
MAX_EMAIL_CHARS: Final = 254
MAX_DESCRIPTION_CHARS: Final = 65_535

Parser = Callable[[str], object]
"""From the text of a field to its value. Raises ParseError."""


class Column(NamedTuple):
    """`kind` is what its values are where they are not text. Empty text is no value, if any."""

    parse: Parser
    kind: type[int | float | str | bool] = str
    is_required: bool = False


def optional(parse: Parser, default: object = None) -> Parser:
    """Blank text is the default."""

    def parse_optional(text: str) -> object:
        return parse(text) if text and not text.isspace() else default

    return parse_optional


def _text(max_chars: int) -> Column:
    return Column(optional(partial(parse_text, max_chars=max_chars)))


def _degrees(limit: float) -> Column:
    return Column(optional(partial(parse_float, low=-limit, high=limit)), float)


def _parse_name(text: str) -> str:
    name = parse_text(text, max_chars=MAX_NAME_CHARS)
    if not name:
        raise ParseError("is empty")
    return name


def _parse_cuisines(text: str) -> str | None:
    return parse_cuisines(text, max_chars=MAX_CUISINES_CHARS) or None


# In the order of the columns of `shared.db.targets`.
RESTAURANT_COLUMNS: Final[Mapping[str, Column]] = {
    "id": Column(parse_id, int, is_required=True),
    "name": Column(_parse_name, is_required=True),
    "cuisine_type": Column(optional(_parse_cuisines)),
    "description": _text(MAX_DESCRIPTION_CHARS),
    "rating": Column(optional(parse_restaurant_rating), float),
    "price_range": Column(optional(parse_price_range), int),
    "city": _text(MAX_CITY_CHARS),
    "latitude": _degrees(90),
    "longitude": _degrees(180),
    "image_url": Column(optional(parse_http_url)),
    "is_active": Column(optional(parse_bool, default=True), bool),
}
USER_COLUMNS: Final[Mapping[str, Column]] = {
    "id": Column(parse_id, int, is_required=True),
    "name": _text(MAX_NAME_CHARS),
    "email": _text(MAX_EMAIL_CHARS),
    "city": _text(MAX_CITY_CHARS),
}
