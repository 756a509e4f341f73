"""A shop of any size, generated: restaurants in cities, users with tastes, two years of orders.

Equal sizes and seeds make equal shops. Every city has eight tastes, a restaurant serves one and a
user likes two; within a taste restaurants are ordered from by Zipf's law, users order by a
log-normal activity, and about a quarter of all orders repeat an earlier one of the same user.
Memory follows from users and restaurants, some 20 bytes each, never from orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

CUISINES = (
    "Ramen|Soup",
    "Pizza|Italian",
    "Tacos|Mexican",
    "Curry|Indian",
    "Burgers|American",
    "Sushi|Japanese",
    "Falafel|Lebanese",
    "Pho|Vietnamese",
)
TASTES = len(CUISINES)
RESTAURANTS_A_CITY = 1_000
CITY_EXPONENT = 0.6
RESTAURANT_EXPONENT = 0.9
ACTIVITY_SIGMA = 1.0
IDLE_USERS = 0.03
HOMELESS_USERS = 0.02
INACTIVE_RESTAURANTS = 0.02
FIRST_TASTE, SECOND_TASTE = 0.55, 0.85
AWAY = 0.03
REPEATS = 0.12
"""Share of orders that repeat on purpose; chance makes it about a quarter."""
LAST_SECOND = int(datetime(2025, 12, 31, tzinfo=UTC).timestamp())
SPAN_SECONDS = 730 * 86_400
BLOCK = 200_000


@dataclass(frozen=True, slots=True)
class Size:
    users: int
    restaurants: int
    orders: int
    seed: int = 1

    @property
    def name(self) -> str:
        return f"shop_{self.users}_{self.restaurants}_{self.orders}_{self.seed}"


@dataclass(frozen=True, slots=True)
class Orders:
    """Columns of shape (n,); ids count from 1, `cents` is the amount."""

    ids: NDArray[np.int64]
    users: NDArray[np.int64]
    restaurants: NDArray[np.int64]
    seconds: NDArray[np.int64]
    cents: NDArray[np.int64]
    ratings: NDArray[np.int64]


@dataclass(slots=True)
class Shop:
    """The columns that orders are drawn from; restaurant and user n has the id n + 1."""

    size: Size
    cities: int = field(init=False)
    centres: NDArray[np.float64] = field(init=False)
    restaurant_cities: NDArray[np.int64] = field(init=False)
    restaurant_tastes: NDArray[np.int64] = field(init=False)
    user_cities: NDArray[np.uint16] = field(init=False)
    user_tastes: NDArray[np.uint8] = field(init=False)
    _activity: NDArray[np.float64] = field(init=False)
    _members: NDArray[np.int32] = field(init=False)
    _first_member: NDArray[np.int64] = field(init=False)
    _member_count: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        size, random = self.size, np.random.default_rng([self.size.seed, 0])
        self.cities = max(1, size.restaurants // RESTAURANTS_A_CITY)
        weights = np.arange(1, self.cities + 1) ** -CITY_EXPONENT
        shares = np.cumsum(weights / weights.sum())
        self.centres = random.uniform([47.5, 6.0], [54.5, 14.5], (self.cities, 2))
        self.restaurant_cities = _drawn(shares, random, size.restaurants)
        self.restaurant_tastes = random.integers(0, TASTES, size.restaurants)
        self.user_cities = _drawn(shares, random, size.users).astype(np.uint16)
        self.user_tastes = random.integers(0, TASTES, (size.users, 2), np.uint8)
        activity = random.lognormal(0.0, ACTIVITY_SIGMA, size.users)
        activity[1:][random.random(size.users - 1) < IDLE_USERS] = 0
        self._activity = np.cumsum(activity, out=activity)
        groups = self.restaurant_cities * TASTES + self.restaurant_tastes
        self._members = np.argsort(groups, kind="stable").astype(np.int32)
        self._member_count = np.bincount(groups, minlength=self.cities * TASTES)
        self._first_member = np.cumsum(self._member_count) - self._member_count
        # A taste that nobody serves is met anywhere.
        is_empty = self._member_count == 0
        self._first_member[is_empty] = 0
        self._member_count[is_empty] = size.restaurants

    def orders(self) -> Iterator[Orders]:
        """All orders, ascending by id and nearly so by time."""
        placed = np.zeros(self.size.users, np.int64)
        for first in range(0, self.size.orders, BLOCK):
            count = min(BLOCK, self.size.orders - first)
            random = np.random.default_rng([self.size.seed, 1, first])
            numbers = np.arange(first, first + count)
            users = np.searchsorted(
                self._activity, random.random(count) * self._activity[-1], side="right"
            )
            turns = placed[users] + _turns(users)
            placed += np.bincount(users, minlength=self.size.users)
            again = (random.random(count) < REPEATS) & (turns > 0)
            turns = np.where(again, turns * random.random(count) ** 2, turns).astype(np.int64)
            elapsed = numbers * SPAN_SECONDS // self.size.orders
            late = random.integers(0, 3_600, count)
            yield Orders(
                ids=numbers + 1,
                users=users + 1,
                restaurants=self._chosen(users, turns) + 1,
                seconds=np.minimum(LAST_SECOND - SPAN_SECONDS + elapsed + late, LAST_SECOND),
                cents=random.integers(500, 9_000, count),
                ratings=random.integers(1, 6, count),
            )

    def restaurant_lines(self) -> Iterator[str]:
        """The file restaurants.csv in blocks of lines, its header first."""
        yield "id,name,cuisine_type,rating,price_range,city,latitude,longitude,is_active\n"
        random = np.random.default_rng([self.size.seed, 2])
        for first in range(0, self.size.restaurants, BLOCK):
            rows = np.arange(first, min(first + BLOCK, self.size.restaurants))
            places = self.centres[self.restaurant_cities[rows]]
            places = places + random.normal(0, [0.02, 0.03], places.shape)
            columns = (
                rows.tolist(),
                self.restaurant_tastes[rows].tolist(),
                self.restaurant_cities[rows].tolist(),
                places.tolist(),
                random.integers(20, 51, len(rows)).tolist(),
                random.integers(1, 5, len(rows)).tolist(),
                (random.random(len(rows)) >= INACTIVE_RESTAURANTS).tolist(),
            )
            yield "".join(
                f"{row + 1},{CUISINES[taste].partition('|')[0]} House {row + 1},{CUISINES[taste]},"
                f"{rating / 10},{price},City {city + 1},{place[0]:.5f},{place[1]:.5f},"
                f"{'true' if is_active else 'false'}\n"
                for row, taste, city, place, rating, price, is_active in zip(*columns, strict=True)
            )

    def user_lines(self) -> Iterator[str]:
        """The file users.csv in blocks of lines, its header first."""
        yield "id,name,city\n"
        random = np.random.default_rng([self.size.seed, 3])
        for first in range(0, self.size.users, BLOCK):
            cities = self.user_cities[first : first + BLOCK].tolist()
            has_city = random.random(len(cities)) >= HOMELESS_USERS
            yield "".join(
                f"{number},User {number},{f'City {city + 1}' if known else ''}\n"
                for number, (city, known) in enumerate(
                    zip(cities, has_city.tolist(), strict=True), start=first + 1
                )
            )

    def _chosen(self, users: NDArray[np.int64], turns: NDArray[np.int64]) -> NDArray[np.int64]:
        """The restaurant of each user's turn: a turn taken again is the same restaurant again."""
        dice = _mixed(users.astype(np.uint64) << np.uint64(32) | turns.astype(np.uint64), self.size)
        taste_dice = (dice & np.uint64(0xFFFF)).astype(np.int64)
        away_dice = (dice >> np.uint64(16) & np.uint64(0xFFFF)).astype(np.int64)
        rank_dice = (dice >> np.uint64(32)).astype(np.float64) / (1 << 32)
        tastes = np.where(
            taste_dice < FIRST_TASTE * (1 << 16),
            self.user_tastes[users, 0],
            np.where(
                taste_dice < SECOND_TASTE * (1 << 16),
                self.user_tastes[users, 1],
                taste_dice % TASTES,
            ),
        )
        cities = self.user_cities[users].astype(np.int64)
        is_away = away_dice < AWAY * (1 << 16)
        cities = np.where(is_away, (cities + 1 + away_dice) % self.cities, cities)
        groups = cities * TASTES + tastes
        counts = self._member_count[groups]
        power = 1 - RESTAURANT_EXPONENT
        ranks = (1 + rank_dice * ((counts + 1) ** power - 1)) ** (1 / power) - 1
        places = self._first_member[groups] + np.minimum(ranks.astype(np.int64), counts - 1)
        return self._members[places].astype(np.int64)


def _drawn(
    shares: NDArray[np.float64], random: np.random.Generator, count: int
) -> NDArray[np.int64]:
    return np.minimum(np.searchsorted(shares, random.random(count)), len(shares) - 1)


def _turns(users: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many times a block's users stand before each place of it."""
    order = np.argsort(users, kind="stable")
    grouped = users[order]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1))
    turns = np.empty(len(users), np.int64)
    turns[order] = np.arange(len(users)) - np.repeat(starts, np.diff(starts, append=len(users)))
    return turns


def _mixed(numbers: NDArray[np.uint64], size: Size) -> NDArray[np.uint64]:
    """Dice of 64 bits: SplitMix64 (Steele, Lea and Flood, 2014) of the numbers and the seed."""
    mixed = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(size.seed)
    mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return mixed ^ mixed >> np.uint64(31)
