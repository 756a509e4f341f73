"""The data sets that tests write are what they say."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path

from tests.services.datasets import two_tastes_dataset, write_dataset


def test_a_dataset_is_written_as_asked(tmp_path: Path) -> None:
    folder = write_dataset(
        tmp_path / "data",
        restaurants=[{"id": 1, "name": 'Tony\'s, "the\r\nbest"', "is_active": True, "stars": None}],
        users=[],
        bom=True,
        delimiter=";",
        newline="\r\n",
    )

    assert sorted(path.name for path in folder.iterdir()) == ["restaurants.csv", "users.csv"]
    assert (folder / "restaurants.csv").read_bytes() == (
        b'\xef\xbb\xbfid;name;is_active;stars\r\n1;"Tony\'s, ""the\r\nbest""";true;\r\n'
    )
    assert (folder / "users.csv").read_bytes() == b"\xef\xbb\xbfid;name;email;city\r\n"


def test_a_compressed_dataset_reads_back(tmp_path: Path) -> None:
    row = {"id": 7, "user_id": 1, "restaurant_id": 2, "note": "x\ry"}
    date = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    write_dataset(tmp_path, orders=[{**row, "order_date": date, "rating": 4.5}], gzip=True)

    with gzip.open(tmp_path / "orders.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {
            "id": "7",
            "user_id": "1",
            "restaurant_id": "2",
            "order_date": "2026-03-01T12:30:00Z",
            "rating": "4.5",
            "note": "x\ry",
        }
    ]


def test_two_tastes_share_nothing_and_other_ids_change_nothing_else(tmp_path: Path) -> None:
    plain = two_tastes_dataset(tmp_path / "plain", users_per_group=20)
    ids = [1000 - place for place in range(40)]
    renamed = two_tastes_dataset(tmp_path / "renamed", users_per_group=20, user_ids=ids)

    def orders_by_user(folder: Path) -> dict[int, list[int]]:
        orders: dict[int, list[int]] = {}
        with (folder / "orders.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                orders.setdefault(int(row["user_id"]), []).append(int(row["restaurant_id"]))
        return orders

    plain_orders, renamed_orders = orders_by_user(plain.folder), orders_by_user(renamed.folder)
    assert len(plain_orders) == 40
    for user in plain.ramen_users:
        assert set(plain_orders[user]) < set(plain.ramen_restaurants)
    for user in plain.taco_users:
        assert set(plain_orders[user]) < set(plain.taco_restaurants)
    for old, new in zip(
        plain.ramen_users + plain.taco_users, renamed.ramen_users + renamed.taco_users, strict=True
    ):
        assert renamed_orders[new] == plain_orders[old]
