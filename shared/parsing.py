"""Strict parsers from text to values, the same for the import and the API.

Each takes the text of one field and returns its value or raises `ParseError`, whose message is
one line and safe to show. Nothing is guessed: what Python's own `int`, `float` and `fromisoformat`
let pass beyond plain ASCII notation (underscores, blanks, other digits, nan, dates without an
offset) is refused. Which columns exist and which may be empty is decided by the callers.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import NoReturn

MAX_ID = 2**63 - 1
# Above it a JavaScript number no longer holds every integer.
MAX_JAVASCRIPT_ID = 2**53 - 1
MAX_AMOUNT_DIGITS = 10
MAX_AMOUNT_DECIMALS = 4
MAX_NUMBER_CHARS = 64
MAX_URL_CHARS = 2_048
MIN_YEAR = 1970
MAX_SHOWN_CHARS = 40

_ID_CHARS = len(str(MAX_ID))
_FLOAT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_AMOUNT = re.compile(
    rf"[0-9]{{1,{MAX_AMOUNT_DIGITS}}}(?:\.[0-9]{{1,{MAX_AMOUNT_DECIMALS}}}0{{0,20}})?"
)
_DATE = r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_HOUR_MINUTE = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_INSTANT_UTC = re.compile(rf"{_DATE}T{_HOUR_MINUTE}:[0-5][0-9]Z")
# RFC 3339, section 5.6, with the blank that its note allows in place of the T.
_INSTANT = re.compile(
    rf"(?P<date>{_DATE})[Tt ](?P<minute>{_HOUR_MINUTE}):(?P<second>[0-5][0-9]|60)"
    rf"(?:\.(?P<fraction>[0-9]+))?(?:[Zz]|(?P<sign>[+-])(?P<offset>{_HOUR_MINUTE}))"
)
_LEAP_DAYS = ((6, 30), (12, 31))
# C0 controls but tab, line feed and carriage return; surrogates without their other half.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_HTTP_URL = re.compile(r"https?://[^\s/?#\\@]+(?:[/?#]\S*)?", re.IGNORECASE)
_BOOLS = {"true": True, "1": True, "false": False, "0": False}
_PRICE_RANGES = {"1": 1, "2": 2, "3": 3, "4": 4}

_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?[eE][+-]?[0-9]+")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9.]+,[0-9]+")
_NO_OFFSET = re.compile(rf"{_DATE}(?:[Tt ][0-9:.]+)?")
_DAY_OR_MONTH_FIRST = re.compile(r"[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{2,4}.*", re.DOTALL)


class ParseError(ValueError):
    """A text that is not what its field holds. `reason` is one line without control characters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_id(text: str) -> int:
    """A whole number from 0 to 2^63 - 1 in at most 19 ASCII digits; leading zeros do not count."""
    if text.isdigit() and text.isascii() and len(text) <= _ID_CHARS:
        value = int(text)
        if value <= MAX_ID:
            return value
    _refuse_id(text)


def parse_float(text: str, *, low: float, high: float) -> float:
    """A decimal number from `low` to `high`, both included; never nan, infinite or minus zero."""
    if _FLOAT.fullmatch(text) is None or len(text) > MAX_NUMBER_CHARS:
        if _DECIMAL_COMMA.fullmatch(text):
            raise ParseError(f"{shown(text)} holds a comma; decimals are written like 4.5")
        raise ParseError(f"{shown(text)} is not a number like 4.5")
    value = float(text)
    if not low <= value <= high:
        raise ParseError(f"{shown(text)} is not between {low:g} and {high:g}")
    return value + 0.0


def parse_restaurant_rating(text: str) -> float:
    """0 to 5 stars."""
    return parse_float(text, low=0, high=5)


def parse_order_rating(text: str) -> float:
    """1 to 5 stars, fractions included."""
    return parse_float(text, low=1, high=5)


def parse_amount(text: str) -> Decimal:
    """A sum of money of at most 4 decimals, 0 or more and below 10^10, exactly as written."""
    if _AMOUNT.fullmatch(text) is None:
        if text.startswith("-"):
            raise ParseError(f"{shown(text)} is negative")
        if _DECIMAL_COMMA.fullmatch(text):
            raise ParseError(f"{shown(text)} holds a comma; amounts are written like 1234.50")
        raise ParseError(
            f"{shown(text)} is not an amount like 1234.50, below 10^{MAX_AMOUNT_DIGITS} "
            f"and with at most {MAX_AMOUNT_DECIMALS} decimals"
        )
    return Decimal(text)


def parse_price_range(text: str) -> int:
    """1 (cheap) to 4 (dear)."""
    value = _PRICE_RANGES.get(text)
    if value is None:
        raise ParseError(f"{shown(text)} is not 1, 2, 3 or 4")
    return value


def parse_bool(text: str) -> bool:
    """true, false, 1 or 0, in any case."""
    value = _BOOLS.get(text if text in _BOOLS else text.lower())
    if value is None:
        raise ParseError(f"{shown(text)} is not true, false, 1 or 0")
    return value


def parse_instant(text: str) -> datetime:
    """An RFC 3339 time with its offset, in UTC, from the year 1970 on.

    Fractions are cut after the microsecond. A leap second (23:59:60 UTC at the end of June or
    December) is taken as the second before it, so that it stays on its day.
    """
    if _INSTANT_UTC.fullmatch(text):
        try:
            instant = datetime.fromisoformat(text)
        except ValueError:
            raise ParseError(f"{shown(text)} is not a day of the calendar") from None
    else:
        instant = _parse_any_instant(text)
    if instant.year < MIN_YEAR:
        raise ParseError(f"{shown(text)} is before {MIN_YEAR}")
    return instant


def parse_text(text: str, *, max_chars: int) -> str:
    """Text of at most `max_chars` characters; blanks at its ends are dropped, the rest is kept."""
    if not text.isprintable():
        found = _FORBIDDEN.search(text)
        if found is not None:
            kind = "half a surrogate pair" if found[0] >= "\ud800" else "the control character"
            raise ParseError(f"holds {kind} U+{ord(found[0]):04X}")
    text = text.strip()
    if len(text) > max_chars:
        raise ParseError(f"is {len(text):,} characters long; at most {max_chars:,} are allowed")
    return text


def parse_cuisines(text: str, *, max_chars: int) -> str:
    """Cuisines separated by `|`, the main one first; each trimmed, empty ones left out."""
    pieces = [piece.strip() for piece in parse_text(text, max_chars=max_chars).split("|")]
    return "|".join(piece for piece in pieces if piece)


def parse_http_url(text: str) -> str:
    """An absolute http or https address without user name; anything a page might run is refused."""
    url = parse_text(text, max_chars=MAX_URL_CHARS)
    if _HTTP_URL.fullmatch(url) is None:
        raise ParseError(f"{shown(url)} is not an http or https address")
    return url


def shown(text: str) -> str:
    """The text quoted for a message: one line, cut short, control characters escaped."""
    return repr(text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…")


def _refuse_id(text: str) -> NoReturn:
    if not text:
        raise ParseError("is empty")
    if _SCIENTIFIC.fullmatch(text):
        raise ParseError(
            f"{shown(text)} is in scientific notation: digits of the id are lost; "
            "export the column as text"
        )
    if text.isascii() and text.removeprefix("-").isdigit():
        problem = "is negative" if text.startswith("-") else f"is above {MAX_ID}"
        raise ParseError(f"{shown(text)} {problem}")
    if text != text.strip():
        raise ParseError(f"{shown(text)} has blanks at its ends")
    raise ParseError(f"{shown(text)} is not a whole number in ASCII digits")


def _parse_any_instant(text: str) -> datetime:
    parts = _INSTANT.fullmatch(text) if len(text) <= MAX_NUMBER_CHARS else None
    if parts is None:
        _refuse_instant(text)
    fraction = (parts["fraction"] or "")[:6].ljust(6, "0")
    is_leap = parts["second"] == "60"
    second = "59" if is_leap else parts["second"]
    offset = timedelta()
    if parts["sign"] is not None:
        hours, minutes = parts["offset"].split(":")
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        if parts["sign"] == "-":
            offset = -offset
    try:
        local = datetime.fromisoformat(f"{parts['date']}T{parts['minute']}:{second}.{fraction}")
        instant = local.replace(tzinfo=timezone(offset)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ParseError(
            f"{shown(text)} is not a day of the calendar between the years {MIN_YEAR} and 9999"
        ) from None
    is_leap_minute = (instant.month, instant.day) in _LEAP_DAYS and (
        (instant.hour, instant.minute) == (23, 59)
    )
    if is_leap and not is_leap_minute:
        raise ParseError(f"{shown(text)} is not a leap second")
    return instant


def _refuse_instant(text: str) -> NoReturn:
    expected = "expected RFC 3339 like 2026-01-31T18:30:00Z"
    if _NO_OFFSET.fullmatch(text):
        raise ParseError(f"{shown(text)} has no time with an offset; {expected}")
    if _DAY_OR_MONTH_FIRST.fullmatch(text):
        raise ParseError(f"{shown(text)} leaves open which is day and which is month; {expected}")
    raise ParseError(f"{shown(text)} is not a time; {expected}")
