"""What a user says about taste, as clients send it: bounded lists of names and numbers.

Names are trimmed and bounded as those of restaurants are; of names that differ in letter case
alone the first one stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from shared.columns import MAX_CITY_CHARS, MAX_CUISINES_CHARS
from shared.errors import FieldError, invalid_body
from shared.parsing import MAX_SHOWN_CHARS, ParseError, parse_text

MAX_CUISINES: Final = 20
LOWEST_PRICE: Final = 1
HIGHEST_PRICE: Final = 4


def read_preferences(members: Mapping[str, Any]) -> dict[str, Any]:
    """`cuisines`, `price_ranges` and `city`; empty where absent or null. Raises InvalidInput."""
    problems: list[FieldError] = []
    for name in members:
        if name not in _READERS:
            detail = "is not a member of this body"
            if name == "hidden":
                detail += "; hidden restaurants have addresses of their own"
            problems.append(FieldError("body", name[:MAX_SHOWN_CHARS], detail))
    values = {}
    for name, read in _READERS.items():
        try:
            values[name] = read(members.get(name))
        except ParseError as error:
            problems.append(FieldError("body", name, error.reason))
    if problems:
        raise invalid_body(problems)
    return values


def _read_cuisines(value: Any) -> tuple[str, ...]:
    found: dict[str, str] = {}
    for item in _items(value, most=MAX_CUISINES):
        name = _name(item, max_chars=MAX_CUISINES_CHARS)
        if not name or "|" in name:
            raise ParseError("holds something that is not the name of one cuisine")
        found.setdefault(name.casefold(), name)
    return tuple(found.values())


def _read_prices(value: Any) -> tuple[int, ...]:
    items = _items(value, most=HIGHEST_PRICE)
    if not all(type(item) is int and LOWEST_PRICE <= item <= HIGHEST_PRICE for item in items):
        raise ParseError(f"holds something other than {LOWEST_PRICE} to {HIGHEST_PRICE}")
    return tuple(sorted(set(items)))


def _read_city(value: Any) -> str | None:
    return None if value is None else _name(value, max_chars=MAX_CITY_CHARS) or None


def _items(value: Any, *, most: int) -> list[Any]:
    if value is None:
        return []
    if type(value) is not list:
        raise ParseError("is not a list")
    if len(value) > most:
        raise ParseError(f"holds more than {most} entries")
    return value


def _name(value: Any, *, max_chars: int) -> str:
    if type(value) is not str:
        raise ParseError("is not a text" if value is None else "holds something that is no text")
    return parse_text(value, max_chars=max_chars)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "cuisines": _read_cuisines,
    "price_ranges": _read_prices,
    "city": _read_city,
}
