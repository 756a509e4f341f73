"""The restaurants of a run in columns, and the parts of a snapshot that hold the active ones."""

import math
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.snapshot.attributes import NO_CUISINE, encode_cuisines, write_attributes
from shared.snapshot.format import ordinal_width, write_restaurants
from worker.extract import RestaurantRow
from worker.ranking.activity import NEVER
from worker.ranking.surroundings import RestaurantFacts


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All restaurants in matrix rows, the inactive ones too; arrays of shape (restaurants,)."""

    ids: NDArray[np.int64]
    cities: NDArray[np.uint16]
    is_active: NDArray[np.bool_]
    cuisines: list[str | None]
    price_ranges: NDArray[np.uint8]
    latitudes: NDArray[np.float32]
    """Degrees, NaN where unknown."""
    longitudes: NDArray[np.float32]
    created_seconds: NDArray[np.int64]
    """When the row was written, since 1970; NEVER of the matrix where that is unknown."""

    @property
    def ordinals(self) -> NDArray[np.int64]:
        """Row -> ordinal; meaningless for inactive rows."""
        return np.cumsum(self.is_active) - 1

    @property
    def facts(self) -> RestaurantFacts:
        """What the ranking knows of each restaurant; the first of several cuisines is its main."""
        return RestaurantFacts(
            city_codes=self.cities,
            latitudes=self.latitudes,
            longitudes=self.longitudes,
            cuisine_codes=cuisine_codes(self.cuisines),
            is_candidate=self.is_active,
        )

    @property
    def width(self) -> int:
        return ordinal_width(int(np.count_nonzero(self.is_active)))


class CatalogueColumns:
    """Gathers the columns of a catalogue, row by row in the order of ids."""

    def __init__(self) -> None:
        self._ids, self._created = array("q"), array("q")
        self._cities, self._active, self._prices = array("H"), array("B"), array("B")
        self._latitudes, self._longitudes = array("f"), array("f")
        self._cuisines: list[str | None] = []

    def add(self, row: RestaurantRow, *, city: int) -> None:
        """city: its code."""
        self._ids.append(row.id)
        self._cities.append(city)
        self._active.append(row.is_active)
        self._cuisines.append(sys.intern(row.cuisine_type) if row.cuisine_type else None)
        self._prices.append(row.price_range or 0)
        self._latitudes.append(math.nan if row.latitude is None else row.latitude)
        self._longitudes.append(math.nan if row.longitude is None else row.longitude)
        self._created.append(NEVER if row.created_seconds is None else row.created_seconds)

    def catalogue(self) -> Catalogue:
        return Catalogue(
            ids=np.array(self._ids, np.int64),
            cities=np.array(self._cities, np.uint16),
            is_active=np.array(self._active, np.bool_),
            cuisines=self._cuisines,
            price_ranges=np.array(self._prices, np.uint8),
            latitudes=np.array(self._latitudes, np.float32),
            longitudes=np.array(self._longitudes, np.float32),
            created_seconds=np.clip(np.array(self._created, np.int64), 0, NEVER),
        )


def cuisine_codes(cuisines: Sequence[str | None]) -> NDArray[np.int32]:
    """Codes of main cuisines in no order that means anything, 0 where there is none."""
    names = [(kinds or "").split("|")[0].strip().casefold() for kinds in cuisines]
    codes = {name: code for code, name in enumerate(sorted({*names, ""}))}
    return np.fromiter((codes[name] for name in names), np.int32, len(names))


def coded_cuisines(cuisines: Sequence[str | None]) -> tuple[NDArray[np.int32], list[str]]:
    """Each restaurant's cuisines as a place in the list of all that there are."""
    names = sorted({kinds or "" for kinds in cuisines})
    codes = {kinds: code for code, kinds in enumerate(names)}
    return np.fromiter((codes[kinds or ""] for kinds in cuisines), np.int32, len(cuisines)), names


def write_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Writes the parts `restaurants`, `attributes` and `cuisines`."""
    active = np.flatnonzero(catalogue.is_active)
    with (folder / "restaurants").open("wb") as file:
        write_restaurants(
            file, ids=catalogue.ids[active].data, cities=catalogue.cities[active].data
        )
    codes: dict[str | None, int] = {None: NO_CUISINE}
    cuisines = [codes.setdefault(catalogue.cuisines[row], len(codes)) for row in active.tolist()]
    latitudes, longitudes = catalogue.latitudes[active], catalogue.longitudes[active]
    latitudes[np.isnan(longitudes)] = np.nan  # half a place is none
    northwards = np.argsort(latitudes, kind="stable")  # NaN comes last
    with (folder / "attributes").open("wb") as file:
        write_attributes(
            file,
            cuisines=np.array(cuisines, np.uint32).data,
            price_ranges=catalogue.price_ranges[active].data,
            latitudes=latitudes.data,
            longitudes=longitudes.data,
            by_latitude=northwards.astype("<u2" if catalogue.width == 2 else "<u4").data,
            width=catalogue.width,
        )
    (folder / "cuisines").write_bytes(encode_cuisines(list(codes)))
