"""Orders as clients send them: the members of a JSON object, read strictly, all faults at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import orjson

from shared.errors import FieldError, invalid_body
from shared.parsing import (
    MAX_AMOUNT_DECIMALS,
    MAX_AMOUNT_DIGITS,
    MAX_ID,
    MAX_SHOWN_CHARS,
    ParseError,
    parse_instant,
    shown,
)

LOWEST_RATING: Final = 1
HIGHEST_RATING: Final = 5
AMOUNT_LIMIT: Final = 10**MAX_AMOUNT_DIGITS

_AMOUNT_STEP = Decimal(1).scaleb(-MAX_AMOUNT_DECIMALS)


def read_order(
    members: Mapping[str, Any],
    *,
    required: tuple[str, ...],
    optional: tuple[str, ...],
    now: datetime,
    ahead: timedelta = timedelta(),
) -> dict[str, Any]:
    """The values of these members; None for an optional one that is absent or null.

    `order_date` may be later than `now` by `ahead` at most. Raises InvalidInput with every fault.
    """
    problems = [
        FieldError("body", name[:MAX_SHOWN_CHARS], "is not a member of this body")
        for name in members
        if name not in required and name not in optional
    ]
    values: dict[str, Any] = {}
    for name in (*required, *optional):
        value = members.get(name)
        values[name] = None
        if value is None:
            if name in required:
                problems.append(FieldError("body", name, "is missing"))
            continue
        try:
            values[name] = _READERS[name](value)
            if name == "order_date" and values[name] > now + ahead:
                raise ParseError("is in the future")
        except ParseError as error:
            problems.append(FieldError("body", name, error.reason))
    if problems:
        raise invalid_body(problems)
    return values


def fingerprint(values: Mapping[str, Any]) -> str:
    """Equal for bodies that say the same, however they are written: 64 characters."""
    text = orjson.dumps({name: str(value) for name, value in values.items() if value is not None})
    return hashlib.sha256(text).hexdigest()


def _read_id(value: Any) -> int:
    if type(value) is not int:
        raise ParseError("is not a whole number")
    if not 0 <= value <= MAX_ID:
        raise ParseError(f"is not between 0 and {MAX_ID}")
    return value


def _read_instant(value: Any) -> datetime:
    if type(value) is not str:
        raise ParseError("is not a text")
    return parse_instant(value)


def _read_amount(value: Any) -> Decimal:
    """Exact: the digits that were sent, to four decimals."""
    if type(value) not in (int, float):
        raise ParseError("is not a number")
    amount = Decimal(repr(value))
    if not (amount.is_finite() and 0 <= amount < AMOUNT_LIMIT):
        raise ParseError(f"{shown(repr(value))} is not from 0 to below 10^{MAX_AMOUNT_DIGITS}")
    exact = abs(amount.quantize(_AMOUNT_STEP))
    if exact != abs(amount):
        raise ParseError(f"{shown(repr(value))} has more than {MAX_AMOUNT_DECIMALS} decimals")
    return exact


def _read_rating(value: Any) -> float:
    if type(value) not in (int, float):
        raise ParseError("is not a number")
    if not LOWEST_RATING <= value <= HIGHEST_RATING:
        raise ParseError(f"is not between {LOWEST_RATING} and {HIGHEST_RATING}")
    return float(value)


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "id": _read_id,
    "user_id": _read_id,
    "restaurant_id": _read_id,
    "order_date": _read_instant,
    "total_amount": _read_amount,
    "rating": _read_rating,
}
