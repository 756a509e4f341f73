"""A shop of any size, generated: restaurants in cities, users with tastes, two years of orders.

Equal sizes and seeds make equal shops. Every city has eight tastes, a restaurant serves one and a
user likes two; within a taste restaurants are ordered from by Zipf's law, users order by a
log-normal activity, and about a quarter of all orders repeat an earlier one of the same user.
Memory follows from users and restaurants, some 20 bytes each, never from orders.

Run: `python -m benchmarks.shop_generator --help`. Writes a data set folder for
`tastematch import`, or streams by COPY into a migrated PostgreSQL database without orders.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg2
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

_COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
_COPY_END = b"\xff\xff"
_POSTGRES_EPOCH = 946_684_800
_COPY_BYTES = 1 << 20
# Of a row in PostgreSQL's binary COPY form: a count of fields, then length and value of each. An
# amount has two digits to the base of 10,000: the whole, and the cents times a hundred.
_ROW = np.dtype(
    [
        ("fields", ">i2"),
        *(
            (f"{name}{part}", kind)
            for name in ("id", "user", "restaurant", "instant")
            for part, kind in (("_bytes", ">i4"), ("", ">i8"))
        ),
        ("amount_bytes", ">i4"),
        *((name, ">i2") for name in ("digits", "weight", "sign", "scale", "whole", "cents")),
        ("rating_bytes", ">i4"),
        ("rating", ">f8"),
    ]
)
_FIXED = {
    "fields": 6,
    **dict.fromkeys(("id_bytes", "user_bytes", "restaurant_bytes", "instant_bytes"), 8),
    "amount_bytes": 12,
    "rating_bytes": 8,
    "digits": 2,
    "scale": 4,
}


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


def write_folder(shop: Shop, folder: Path) -> None:
    """Writes a data set folder, as docs/dataset-format.md has it."""
    folder.mkdir(parents=True)
    with (folder / "restaurants.csv").open("w") as file:
        file.writelines(shop.restaurant_lines())
    with (folder / "users.csv").open("w") as file:
        file.writelines(shop.user_lines())
    with (folder / "orders.csv").open("w") as file:
        file.write("id,user_id,restaurant_id,order_date,total_amount,rating\n")
        for block in shop.orders():
            instants = block.seconds.astype("M8[s]").astype(str).tolist()
            rows = zip(
                block.ids.tolist(),
                block.users.tolist(),
                block.restaurants.tolist(),
                instants,
                block.cents.tolist(),
                block.ratings.tolist(),
                strict=True,
            )
            file.writelines(
                f"{number},{user},{restaurant},{instant}Z,{cents / 100:.2f},{rating}\n"
                for number, user, restaurant, instant, cents, rating in rows
            )


def load_postgres(shop: Shop, url: str) -> None:
    """Streams the shop into a migrated database whose tables are empty, as its superuser.

    References hold by construction and are not checked; the index of orders is made at the end.
    """
    with contextlib.closing(psycopg2.connect(url)) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            for table, lines in (
                ("restaurants", shop.restaurant_lines()),
                ("users", shop.user_lines()),
            ):
                columns = next(lines)
                cursor.copy_expert(
                    f"COPY {table} ({columns}) FROM STDIN (FORMAT csv)",
                    _Pieces(text.encode() for text in lines),
                    _COPY_BYTES,
                )
            cursor.execute(
                "SELECT indexname, indexdef FROM pg_indexes"
                " WHERE tablename = 'orders' AND indexname NOT LIKE 'pk%'"
            )
            indexes = cursor.fetchall()
            for name, _ in indexes:
                cursor.execute(f"DROP INDEX {name}")
            cursor.copy_expert(
                "COPY orders (id, user_id, restaurant_id, order_date, total_amount, rating)"
                " FROM STDIN (FORMAT binary)",
                _Pieces(_binary_rows(shop)),
                _COPY_BYTES,
            )
            for _, definition in indexes:
                cursor.execute(definition)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


class _Pieces:
    """A file-like view of blocks of bytes, made as it is read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._rest = memoryview(block)
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)


def _binary_rows(shop: Shop) -> Iterator[bytes]:
    yield _COPY_HEAD
    for block in shop.orders():
        rows = np.zeros(len(block.ids), _ROW)
        for name, value in _FIXED.items():
            rows[name] = value
        rows["id"] = block.ids
        rows["user"] = block.users
        rows["restaurant"] = block.restaurants
        rows["instant"] = (block.seconds - _POSTGRES_EPOCH) * 1_000_000
        rows["whole"] = block.cents // 100
        rows["cents"] = block.cents % 100 * 100
        rows["rating"] = block.ratings
        yield rows.tobytes()
    yield _COPY_END


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--restaurants", type=int, default=2_000)
    parser.add_argument("--orders", type=int, default=400_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="a new data set folder")
    parser.add_argument("--postgres", help="a migrated database without rows: postgresql://...")
    chosen = parser.parse_args()
    if not chosen.folder and not chosen.postgres:
        parser.error("give --folder or --postgres")
    shop = Shop(Size(chosen.users, chosen.restaurants, chosen.orders, chosen.seed))
    if chosen.folder:
        write_folder(shop, chosen.folder)
    if chosen.postgres:
        load_postgres(shop, chosen.postgres)


if __name__ == "__main__":
    main()
