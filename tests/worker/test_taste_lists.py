"""Whom a taste finds: the city first, then what fits, and what may."""

from __future__ import annotations

import numpy as np
import pytest

from worker.extract import Taste
from worker.taste_lists import TasteRanking

ROWS = {  # city, price, cuisine code; the first is the most popular
    0: (1, 2, 1),
    1: (1, 0, 1),
    2: (2, 0, 1),
    3: (2, 0, 2),
    4: (1, 3, 2),
    5: (2, 1, 0),
}
INACTIVE = 3


@pytest.fixture
def ranking() -> TasteRanking:
    cities, prices, cuisines = zip(*ROWS.values(), strict=True)
    is_active = np.ones(len(ROWS), np.bool_)
    is_active[INACTIVE] = False
    return TasteRanking(
        np.arange(len(ROWS), 0, -1).astype(np.float32),
        is_active=is_active,
        cities=np.array(cities, np.uint16),
        price_ranges=np.array(prices, np.uint8),
        cuisine_codes=np.array(cuisines, np.int32),
        cuisine_names=["", "Ramen|Soup", "Tacos"],
    )


@pytest.mark.parametrize(
    ("cuisines", "prices", "city", "place", "expected"),
    [
        pytest.param(["ramen"], [], 0, 0, [0, 1, 2], id="everywhere, without a place"),
        pytest.param(["ramen"], [], 0, 2, [2], id="of the place alone"),
        pytest.param(["tacos"], [], 2, 2, [4], id="elsewhere, where the place has none"),
        pytest.param(["soup"], [2], 1, 1, [0], id="what fits the price"),
        pytest.param(["soup"], [2], 2, 2, [2], id="of unknown price, before another place"),
        pytest.param([], [2], 2, 2, [2], id="a price alone"),
        pytest.param([], [3], 2, 2, [2], id="a price that only another place has"),
        pytest.param(["tacos"], [4], 1, 1, [], id="no price fits, and each is known"),
        pytest.param(["nobody has it"], [], 1, 1, [], id="a cuisine that nobody has"),
        pytest.param([], [], 2, 2, [2, 5], id="a city alone"),
        pytest.param([], [], 0, 2, [], id="nothing said, though the city is known"),
    ],
)
def test_whom_a_taste_finds(
    ranking: TasteRanking,
    cuisines: list[str],
    prices: list[int],
    city: int,
    place: int,
    expected: list[int],
) -> None:
    taste = Taste(frozenset(cuisines), frozenset(prices), city)
    assert ranking.head(taste, place=place, n=10).tolist() == expected
    assert ranking.head(taste, place=place, n=1).tolist() == expected[:1]
