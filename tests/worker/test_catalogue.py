"""The parts of a snapshot that hold restaurants: the active ones alone, in columns."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from shared.snapshot.attributes import Attributes, decode_cuisines
from shared.snapshot.format import Restaurants
from worker.catalogue import Catalogue, write_catalogue

NAN = math.nan


def test_active_restaurants_stand_in_columns(tmp_path: Path) -> None:
    catalogue = Catalogue(
        ids=np.array([10, 20, 30, 40, 50], np.int64),
        cities=np.array([1, 2, 0, 1, 2], np.uint16),
        is_active=np.array([True, False, True, True, True]),
        cuisines=["Ramen|Bar", "Tacos", None, "Ramen|Bar", "Crêperie"],
        price_ranges=np.array([1, 2, 0, 4, 3], np.uint8),
        latitudes=np.array([34.5, 1.0, NAN, -20.25, 10.0], np.float32),
        longitudes=np.array([135.5, 1.0, NAN, -46.5, NAN], np.float32),
        created_seconds=np.zeros(5, np.int64),
    )
    write_catalogue(catalogue, tmp_path)

    restaurants = Restaurants(memoryview((tmp_path / "restaurants").read_bytes()))
    assert list(restaurants.ids) == [10, 30, 40, 50]
    assert list(restaurants.cities) == [1, 0, 1, 2]
    found = Attributes(memoryview((tmp_path / "attributes").read_bytes()), width=restaurants.width)
    names = decode_cuisines((tmp_path / "cuisines").read_bytes())
    assert [names[code] for code in found.cuisines] == ["Ramen|Bar", None, "Ramen|Bar", "Crêperie"]
    assert "Tacos" not in names
    assert list(found.price_ranges) == [1, 0, 4, 3]
    # 50 has half a place, which is none.
    assert [None if math.isnan(x) else x for x in found.latitudes] == [34.5, None, -20.25, None]
    assert list(found.by_latitude)[:2] == [2, 0]
    assert found.longitudes[2] == -46.5
