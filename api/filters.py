"""What a recommendation list is filtered by: read from the query, in one form for all spellings.

Values of one filter are alternatives, filters of different kinds hold together. Filters know no
snapshot: what passes them in one is `selection.py`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from api.parameters import IdsParameter, IntegerParameter, RepeatedParameter, TextParameter
from shared.errors import FieldError, InvalidInput
from shared.parsing import ParseError, parse_float, shown

MAX_NAME_CHARS = 200
MAX_NAMES = 20
MAX_EXCLUDED = 100
PRICE_RANGES = range(1, 5)
MIN_RADIUS_KM, MAX_RADIUS_KM, DEFAULT_RADIUS_KM = 1.0, 100.0, 10.0

_LATITUDE = r"-?(?:90(?:\.0{1,15})?|[1-8]?[0-9](?:\.[0-9]{1,15})?)"
_LONGITUDE = r"-?(?:180(?:\.0{1,15})?|(?:1[0-7][0-9]|[1-9]?[0-9])(?:\.[0-9]{1,15})?)"
_PLACE = re.compile(rf"({_LATITUDE}),({_LONGITUDE})")


class Circle(NamedTuple):
    """Degrees and kilometres."""

    latitude: float
    longitude: float
    radius_km: float


class Filters(NamedTuple):
    """Names as they were sent, ascending; a filter that is empty lets everything pass."""

    cuisines: tuple[str, ...] = ()
    cities: tuple[str, ...] = ()
    price_ranges: tuple[int, ...] = ()
    circle: Circle | None = None

    @property
    def is_empty(self) -> bool:
        return self == NO_FILTERS


NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True)
class PlaceParameter:
    """`latitude,longitude` in degrees."""

    name: str
    description: str

    def read(self, text: str | None) -> tuple[float, float] | None:
        if text is None:
            return None
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ParseError(f"{shown(text)} is not a latitude and longitude like 34.69,135.5")
        return float(found[1]) + 0.0, float(found[2]) + 0.0

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_PLACE.pattern}$"}


@dataclass(frozen=True, slots=True)
class RadiusParameter:
    name: str
    description: str

    def read(self, text: str | None) -> float | None:
        if text is None:
            return None
        return parse_float(text, low=MIN_RADIUS_KM, high=MAX_RADIUS_KM)

    def schema(self) -> dict[str, Any]:
        return {
            "type": "number",
            "minimum": int(MIN_RADIUS_KM),
            "maximum": int(MAX_RADIUS_KM),
            "default": int(DEFAULT_RADIUS_KM),
        }


FILTER_PARAMETERS = (
    RepeatedParameter(
        TextParameter("cuisine", MAX_NAME_CHARS, "Only of this cuisine, in any case; or of any."),
        MAX_NAMES,
    ),
    RepeatedParameter(
        TextParameter("city", MAX_NAME_CHARS, "Only in this city, in any case; or in any."),
        MAX_NAMES,
    ),
    RepeatedParameter(
        IntegerParameter("price_range", 1, 4, 1, "Only of this price range; or of any."),
        len(PRICE_RANGES),
    ),
    PlaceParameter("near", "Only within `radius_km` of this `latitude,longitude`."),
    RadiusParameter("radius_km", "Kilometres around `near`, and nothing without it."),
    IdsParameter("exclude", MAX_EXCLUDED, "None of these restaurants."),
)


def filters_of(values: dict[str, Any]) -> Filters:
    """From the values of FILTER_PARAMETERS by name. Raises InvalidInput."""
    near, radius_km = values["near"], values["radius_km"]
    if near is None and radius_km is not None:
        field = FieldError("query", "radius_km", "is not to be given without near")
        raise InvalidInput(f"query parameter radius_km: {field.detail}", (field,))
    radius_km = DEFAULT_RADIUS_KM if radius_km is None else radius_km
    return Filters(
        tuple(sorted(set(values["cuisine"]))),
        tuple(sorted(set(values["city"]))),
        tuple(sorted(set(values["price_range"]))),
        None if near is None else Circle(near[0], near[1], radius_km),
    )


def query_of(filters: Filters, excluded: frozenset[int]) -> str:
    """The filters as a query that reads back as the same; empty where nothing is filtered."""
    pairs = [("cuisine", name) for name in filters.cuisines]
    pairs += [("city", name) for name in filters.cities]
    pairs += [("price_range", str(price)) for price in filters.price_ranges]
    if (circle := filters.circle) is not None:
        pairs.append(("near", f"{_plain(circle.latitude)},{_plain(circle.longitude)}"))
        pairs.append(("radius_km", _plain(circle.radius_km)))
    if excluded:
        pairs.append(("exclude", ",".join(map(str, sorted(excluded)))))
    return "&".join(f"{name}={quote(value, safe=',')}" for name, value in pairs)


def _plain(value: float) -> str:
    """The shortest decimals that read as the same number, never with an exponent."""
    text = repr(value)
    if "e" in text:
        text = f"{value:.15f}".rstrip("0")
    return text.removesuffix(".0")
