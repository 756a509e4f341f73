"""What filters ask of each restaurant, in columns by ordinal: cuisine, city, price range, place.

From the parts `attributes` and `cuisines`; of a snapshot without them from its metadata, which
know no places.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api.cuisines import CuisineIndex
from shared.errors import SnapshotDamaged
from shared.snapshot.attributes import Attributes


@dataclass(frozen=True, slots=True)
class Places:
    """Degrees by ordinal, NaN where unknown; `northwards` are the ordinals from south to north."""

    latitudes: Sequence[float]
    longitudes: Sequence[float]
    northwards: Sequence[int]


@dataclass(frozen=True, slots=True)
class Columns:
    """`price_ranges` is one byte a restaurant, 0 where unknown."""

    cuisines: CuisineIndex
    price_ranges: bytes | memoryview
    places: Places | None


def columns_of(attributes: Attributes, cuisines: Sequence[str | None]) -> Columns:
    """Raises SnapshotDamaged where a cuisine has no name."""
    if attributes.count and max(attributes.cuisines) >= len(cuisines):
        raise SnapshotDamaged("the attributes name a cuisine that there is not")
    return Columns(
        CuisineIndex(attributes.cuisines, cuisines),
        attributes.price_ranges,
        Places(attributes.latitudes, attributes.longitudes, attributes.by_latitude),
    )


def columns_from(held: Iterable[tuple[str | None, int | None]]) -> Columns:
    """held: cuisine_type and price_range of each restaurant, in the order of the ordinals."""
    names: dict[str | None, int] = {None: 0}
    codes, price_ranges = array("I"), bytearray()
    for cuisine, price_range in held:
        codes.append(names.setdefault(cuisine, len(names)))
        price_ranges.append(price_range or 0)
    return Columns(CuisineIndex(codes, list(names)), bytes(price_ranges), None)
