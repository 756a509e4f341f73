"""Data set folders for tests: written from rows, or generated with a known taste in them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from gzip import compress
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

COLUMNS = {
    "restaurants": (
        "id name cuisine_type description rating price_range city latitude longitude image_url "
        "is_active"
    ),
    "users": "id name email city",
    "orders": "id user_id restaurant_id order_date total_amount rating",
}
FIRST_ORDER_DATE = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TwoTastes:
    """Who is who in a data set of two groups that share no restaurant and no city.

    The users stand in the order in which they were generated: the same place in two data sets of
    one seed has the same orders, whatever the ids.
    """

    folder: Path
    ramen_users: tuple[int, ...]
    taco_users: tuple[int, ...]
    ramen_restaurants: tuple[int, ...]
    taco_restaurants: tuple[int, ...]


def write_dataset(
    folder: Path,
    *,
    restaurants: Iterable[Row] | None = None,
    users: Iterable[Row] | None = None,
    orders: Iterable[Row] | None = None,
    gzip: bool = False,
    bom: bool = False,
    delimiter: str = ",",
    newline: str = "\n",
) -> Path:
    """Writes the CSV files of a data set folder, made where missing, and returns the folder.

    A row holds any columns; those it lacks, and None, become empty. No rows at all: a header
    alone; None in the place of the rows: no such file. True and False are written in lower case,
    an aware datetime as RFC 3339, anything else by `str`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"restaurants": restaurants, "users": users, "orders": orders}
    for name, rows in files.items():
        if rows is None:
            continue
        text = _csv_text(name, list(rows), delimiter=delimiter, newline=newline)
        content = text.encode("utf-8-sig" if bom else "utf-8")
        if gzip:
            (folder / f"{name}.csv.gz").write_bytes(compress(content, mtime=0))
        else:
            (folder / f"{name}.csv").write_bytes(content)
    return folder


def two_tastes_dataset(
    folder: Path,
    *,
    users_per_group: int = 40,
    restaurants_per_group: int = 30,
    seed: int = 1,
    user_ids: Sequence[int] | None = None,
) -> TwoTastes:
    """Writes a data set of two groups: one orders ramen in Osaka, the other tacos in Oaxaca.

    Each user orders 6 to 12 times, some of it repeats, and knows less than half of the group's
    restaurants. The two groups alternate in every file. `user_ids` gives the users other ids
    (unique, 2 * users_per_group of them) and changes nothing else.
    """
    chance = random.Random(seed)
    ids = list(user_ids or range(1, 2 * users_per_group + 1))
    assert len(set(ids)) == 2 * users_per_group, "one id for each user of both groups"
    tastes = (("Ramen", "Osaka"), ("Tacos", "Oaxaca"))
    restaurant_ids = range(101, 101 + 2 * restaurants_per_group)
    restaurants = [
        {
            "id": restaurant_id,
            "name": f"{tastes[place % 2][0]} house {place // 2 + 1}",
            "cuisine_type": tastes[place % 2][0],
            "rating": round(chance.uniform(2.5, 5.0), 1),
            "price_range": chance.randint(1, 4),
            "city": tastes[place % 2][1],
            "is_active": True,
        }
        for place, restaurant_id in enumerate(restaurant_ids)
    ]
    users = [
        {"id": user_id, "name": f"User {place + 1}", "city": tastes[place % 2][1]}
        for place, user_id in enumerate(ids)
    ]
    pairs = [
        (user_id, restaurant_id)
        for place, user_id in enumerate(ids)
        for restaurant_id in _orders_of_one(chance, restaurant_ids[place % 2 :: 2])
    ]
    chance.shuffle(pairs)
    orders = [
        {
            "id": number,
            "user_id": user_id,
            "restaurant_id": restaurant_id,
            "order_date": FIRST_ORDER_DATE + timedelta(minutes=7 * number),
        }
        for number, (user_id, restaurant_id) in enumerate(pairs, start=1)
    ]
    write_dataset(folder, restaurants=restaurants, users=users, orders=orders)
    return TwoTastes(
        folder=folder,
        ramen_users=tuple(ids[0::2]),
        taco_users=tuple(ids[1::2]),
        ramen_restaurants=tuple(restaurant_ids[0::2]),
        taco_restaurants=tuple(restaurant_ids[1::2]),
    )


def _orders_of_one(chance: random.Random, restaurants: Sequence[int]) -> list[int]:
    known = chance.sample(restaurants, k=min(len(restaurants) // 2 - 1, chance.randint(5, 9)))
    return known + chance.choices(known, k=chance.randint(1, 3))


def _csv_text(name: str, rows: Sequence[Row], *, delimiter: str, newline: str) -> str:
    seen = dict.fromkeys(column for row in rows for column in row)
    columns = COLUMNS[name].split()
    expected = [column for column in columns if column in seen or not rows]
    header = expected + [column for column in seen if column not in columns]
    lines = [header, *([_cell(row.get(column)) for column in header] for row in rows)]
    return "".join(
        delimiter.join(_quoted(cell, delimiter) for cell in line) + newline for line in lines
    )


def _quoted(cell: str, delimiter: str) -> str:
    # By hand, since before Python 3.13 `csv` leaves a carriage return outside quotes.
    if any(special in cell for special in (delimiter, '"', "\r", "\n")):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        assert value.tzinfo is not None, "an order's date has an offset"
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
