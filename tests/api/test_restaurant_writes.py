"""The catalogue as the shop's backend changes it: rows, and what restaurants are found by."""

from __future__ import annotations

import asyncio
import csv
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from httpx import Response

from shared.db import operator_writes
from shared.db.engine import sync_engine
from shared.db.migration import migrate
from shared.db.models import Restaurant, RestaurantTerm
from shared.db.targets import RESTAURANTS
from shared.db.upserts import Staging
from shared.settings import load_settings
from shared.snapshot.store import SnapshotStore
from tastematch.dataset import open_dataset
from tastematch.importer import import_dataset
from tests.api.running import FULL, OAXACA, OSAKA, Api
from tests.api.writing import NDJSON, Writing, outcomes, shortly, writing
from tests.services.databases import sqlite_address

PATH = "/api/restaurants"
BARE = {"id": 8, "name": "bare"}
EMPTY = dict.fromkeys(FULL) | BARE | {"is_active": True}
STORED = [getattr(Restaurant, name) for name in RESTAURANTS.written]

REFUSED: list[tuple[str, str, int, list[str] | None]] = [
    ("9", "{}", 404, None),
    ("x", "{}", 422, ["restaurant_id"]),
    ("7?force=1", "{}", 422, ["force"]),
    ("metadata", "{}", 405, None),
    ("7", "", 400, None),
    ("7", "[]", 400, None),
    ("7", "{", 400, None),
    ("7", '{"name":"a","name":"b"}', 400, None),
    ("7", '{"id":8}', 422, ["id"]),
    ("7", '{"name":null}', 422, ["name"]),
    ("7", '{"name":""}', 422, ["name"]),
    ("7", '{"is_active":null}', 422, ["is_active"]),
    ("7", '{"is_active":"false"}', 422, ["is_active"]),
    ("7", '{"rating":-0.1,"price_range":5,"x":1}', 422, ["x", "rating", "price_range"]),
    ("7", '{"latitude":1e400}', 422, ["latitude"]),
    ("7", json.dumps({"description": "x" * 65_536}), 413, None),
]


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Writing]:
    async with writing(database_url, tmp_path) as started:
        yield started


async def found(shop: Writing, **query: str) -> list[int]:
    answer = await shop.api.client.get(PATH, params=query)
    assert answer.status_code == 200
    return [item["id"] for item in answer.json()["items"]]


async def change(shop: Writing, restaurant_id: int, members: Any) -> Response:
    return await shop.api.client.patch(
        f"{PATH}/{restaurant_id}", json=members, headers=shop.api.as_service
    )


# --- many rows ---


async def test_each_line_is_created_updated_or_unchanged(shop: Writing) -> None:
    told = await shop.put_lines(PATH, [FULL, BARE, {"id": 9, "name": "shut", "is_active": False}])
    assert shortly(told) == [(1, 7, "created"), (2, 8, "created"), (3, 9, "created")]
    detail = await shop.api.client.get(f"{PATH}/7")
    assert detail.json() == FULL
    assert (await shop.api.client.get(f"{PATH}/8")).json() == EMPTY
    assert await found(shop, q="zoes soup", city="OSAKA", cuisine="soup") == [7]
    renamed = FULL | {"name": "Bistro", "cuisine_type": None}
    del renamed["city"]
    lines = [
        renamed,
        {"id": 8, "name": " bare ", "is_active": True, "city": "", "rating": None},
        {"id": 8, "name": "twice"},
        {"id": 10, "name": "x", "rating": 5.5, "price_range": 0, "latitude": 91, "stars": 3},
        {"id": 11, "name": "  "},
        {"id": 12},
        {"id": 13, "name": "x", "is_active": None},
        {"id": 14, "name": "x", "is_active": 1},
        {"id": 15, "name": "x", "image_url": "javascript:alert(1)"},
        {"id": 16, "name": "x", "price_range": 2.0},
        {"id": 17, "name": "x", "rating": "4"},
    ]
    told = await shop.put_lines(PATH, lines)
    assert shortly(told) == [
        (1, 7, "updated"),
        (2, 8, "unchanged"),
        (3, 8, "rejected"),
        *[(n, n + 6, "rejected") for n in range(4, 12)],
    ]
    named = [error["name"] for error in told[3]["errors"]]
    assert named == ["stars", "rating", "price_range", "latitude"]
    assert await found(shop, q="zoes") == []
    assert await found(shop, q="bistro") == [7]
    assert [row.id for row in shop.rows(Restaurant.id)] == [7, 8, 9]
    assert shop.changes("restaurant") == {}, "none opened or closed"
    assert [(action, detail) for _, action, _, detail in shop.audit()] == [
        ("restaurants.put", {"created": 3, "updated": 0, "unchanged": 0}),
        ("restaurants.put", {"created": 0, "updated": 1, "unchanged": 1}),
    ]


async def test_what_opens_or_closes_is_noted(shop: Writing) -> None:
    await shop.put_lines(PATH, [FULL, BARE])
    closed = [FULL | {"is_active": False}, BARE]
    for _ in range(2):
        await shop.put_lines(PATH, closed)
    assert shop.changes("restaurant") == {7: 1}
    assert (await shop.api.client.get(f"{PATH}/7")).status_code == 404
    await shop.put_lines(PATH, [FULL])
    assert shop.changes("restaurant") == {7: 2}
    assert (await shop.api.client.get(f"{PATH}/7")).status_code == 200


async def test_rows_are_stored_as_the_import_stores_them(shop: Writing, tmp_path: Path) -> None:
    """Whichever way they come, and whichever came first: values, keys and terms."""
    first = [
        FULL,
        EMPTY,
        EMPTY | {"id": 9, "name": "Łódź |Café 東京らーめん", "cuisine_type": " a | |B|a"},
        EMPTY | {"id": 10, "name": "will be renamed", "city": "Köln", "rating": 0.1},
    ]
    second = [
        FULL | {"cuisine_type": "Sushi", "is_active": False},
        EMPTY | {"id": 10, "name": "renamed", "city": "köln ", "latitude": -0.0},
        EMPTY | {"id": 11, "name": "new", "rating": 5, "longitude": 1e-7},
    ]
    imported = load_settings(
        {
            "DATABASE_URL": sqlite_address(tmp_path / "imported.db"),
            "TASTEMATCH_DATA_DIR": str(tmp_path / "other"),
        }
    )
    migrate(imported)
    engine = sync_engine(imported)
    for rows in (first, second):
        await shop.put_lines(PATH, rows)
        folder = tmp_path / f"folder-{rows[0]['cuisine_type']}"
        folder.mkdir()
        with (folder / "restaurants.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(FULL))
            writer.writeheader()
            writer.writerows(rows)
        dataset = open_dataset(folder, now=datetime.now(UTC))
        bad: list[Any] = []
        import_dataset(engine, dataset, on_bad_row=bad.append, on_progress=lambda _table: None)
        assert bad == []
    other = Writing(shop.api, engine)
    terms = (RestaurantTerm.term, RestaurantTerm.restaurant_id)
    assert shop.rows(*STORED) == other.rows(*STORED)
    assert sorted(map(tuple, shop.rows(*terms))) == sorted(map(tuple, other.rows(*terms)))
    assert shop.changes("restaurant") == other.changes("restaurant") == {7: 1}
    engine.dispose()


async def test_of_equal_requests_at_once_one_creates(shop: Writing) -> None:
    lines = [{"id": n, "name": f"Restaurant {n}", "city": "Osaka"} for n in range(30)]
    told = await asyncio.gather(
        *(shop.put_lines(PATH, lines if n % 2 else lines[::-1]) for n in range(20))
    )
    counted = Counter(each["outcome"] for one in told for each in one)
    assert counted == {"created": 30, "unchanged": 19 * 30}
    assert len(await found(shop, q="restaurant", limit="50")) == 30


async def test_many_rows_are_many_transactions(shop: Writing) -> None:
    lines = [{"id": n, "name": f"Restaurant {n}"} for n in range(1_200)]
    told = await shop.put_lines(PATH, lines)
    assert shortly(told) == [(n + 1, n, "created") for n in range(1_200)]
    assert [subject for _, _, subject, _ in shop.audit()] == ["500 rows", "500 rows", "200 rows"]


# --- one in part ---


async def test_what_is_given_changes_and_nothing_else(shop: Writing) -> None:
    await shop.put_lines(PATH, [FULL])
    expected = dict(FULL)
    members: dict[str, Any]
    for members in (
        {},
        {"name": " Bistro "},
        {"cuisine_type": None, "rating": 3},
        {"description": "", "price_range": None, "city": "Kyōto"},
        {"latitude": -34.5, "longitude": None, "image_url": "http://a.example/b"},
    ):
        answer = await change(shop, 7, members)
        for name, value in members.items():
            expected[name] = (value.strip() or None) if isinstance(value, str) else value
        assert (answer.status_code, answer.json()) == (200, expected)
        assert (await shop.api.client.get(f"{PATH}/7")).json() == expected
    assert await found(shop, q="bistro", city="kyoto") == [7]
    assert await found(shop, q="zoes") == await found(shop, cuisine="ramen") == []
    assert shop.changes("restaurant") == {}
    assert shop.audit()[2] == ("service", "restaurant.change", "7", {"columns": ["name"]})


async def test_what_is_not_as_declared_changes_nothing(sqlite_url: str, tmp_path: Path) -> None:
    async with writing(sqlite_url, tmp_path) as shop:
        await shop.put_lines(PATH, [FULL])
        headers = shop.api.as_service | {"Content-Type": "application/json"}
        for restaurant_id, body, status, names in REFUSED:
            path = f"{PATH}/{restaurant_id}"
            answer = await shop.api.client.patch(path, content=body, headers=headers)
            assert answer.status_code == status, body
            assert names is None or [e["name"] for e in answer.json()["errors"]] == names
        assert (await shop.api.client.get(f"{PATH}/7")).json() == FULL
        assert len(shop.audit()) == 1


async def test_no_change_at_once_is_lost(shop: Writing) -> None:
    await shop.put_lines(PATH, [FULL])
    wanted = {"rating": 1.5, "price_range": 4, "city": "Kyoto", "description": None}
    answers = await asyncio.gather(
        *(change(shop, 7, {name: value}) for name, value in wanted.items() for _ in range(4)),
        *(change(shop, 7, {"is_active": False}) for _ in range(4)),
    )
    assert {answer.status_code for answer in answers} == {200}
    stored = shop.rows(Restaurant.id, *(getattr(Restaurant, name) for name in wanted))
    assert [tuple(row) for row in stored] == [(7, *wanted.values())]
    assert shop.changes("restaurant") == {7: 1}
    assert await found(shop, city="kyoto") == []


async def test_who_writes_restaurants_waits_for_an_import_and_orders_do_not(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_writes, "LOCK_SECONDS", 0.2)
    async with writing(postgres_url, tmp_path) as shop:
        await shop.put_lines(PATH, [FULL])
        with shop.engine.connect() as importing:
            Staging(importing, RESTAURANTS).lock()
            answer = await change(shop, 7, {"rating": 1})
            assert (answer.status_code, answer.json()["code"]) == (503, "database-unavailable")
            ordered = await shop.api.client.post(
                "/api/orders", json={"restaurant_id": 7}, headers=shop.api.as_user(42)
            )
            assert ordered.status_code == 201
        assert (await change(shop, 7, {"rating": 1})).status_code == 200


async def test_a_closed_restaurant_leaves_the_answers_at_once(
    api: Api, store: SnapshotStore
) -> None:
    by_part, by_row = OSAKA[0], OAXACA[-1]
    rows = [{"id": n, "name": str(n), "is_active": True} for n in (by_part, by_row)]
    headers = api.as_service | NDJSON

    async def put(*rows: dict[str, Any]) -> None:
        body = b"\n".join(json.dumps(row).encode() for row in rows)
        answer = await api.client.put(PATH, content=body, headers=headers)
        assert "rejected" not in {each["outcome"] for each in outcomes(answer)}

    async def shown() -> set[int]:
        popular = (await api.client.get("/api/lists/popular?limit=50")).json()
        return {by_part, by_row} & set(popular)

    await put(*rows)
    assert await shown() == {by_part, by_row}
    answer = await api.client.patch(
        f"{PATH}/{by_part}", json={"is_active": False}, headers=api.as_service
    )
    assert (answer.status_code, answer.json()["is_active"]) == (200, False)
    assert await shown() == {by_row}
    await put(rows[1] | {"is_active": False})
    assert await shown() == set()
    await put(*rows)
    assert await shown() == {by_part, by_row}
