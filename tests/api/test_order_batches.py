"""Orders in many lines, by the ids of another system: an outcome for each, the same ones again."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from httpx import Response

from shared.db.models import Order, Restaurant, User
from tests.api.writing import NDJSON, Writing, outcomes, shortly, writing

PATH = "/api/orders/batch"
WHEN = "2020-02-29T12:00:00Z"
FUTURE = "2999-01-01T00:00:00Z"


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Writing]:
    """Users 1 to 3; restaurant 7, and 8, which is closed."""
    async with writing(database_url, tmp_path) as started:
        started.add(User, *({"id": n} for n in (1, 2, 3)))
        closed = {"id": 8, "name": "closed", "is_active": False}
        started.add(Restaurant, {"id": 7, "name": "seven"}, closed)
        yield started


def line(order_id: int, **values: Any) -> dict[str, Any]:
    given = {"id": order_id, "user_id": 1, "restaurant_id": 7, "order_date": WHEN}
    return given | values


async def send(shop: Writing, lines: list[Any], **headers: str) -> Response:
    body = b"".join(
        (each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines
    )
    all_headers = shop.api.as_service | NDJSON | headers
    return await shop.api.client.post(PATH, content=body, headers=all_headers)


async def put(shop: Writing, lines: list[Any]) -> list[dict[str, Any]]:
    answer = await send(shop, lines)
    assert answer.status_code == 200, answer.text
    return outcomes(answer)


async def test_an_outcome_for_each_line(shop: Writing) -> None:
    shop.add(Order, {"id": 3, "user_id": 2, "restaurant_id": 7, "order_date": datetime.now(UTC)})
    told = await put(
        shop,
        [
            line(1, total_amount=12.5, rating=4),
            b"",
            line(2, restaurant_id=8),
            line(3, rating=1.5),
            line(4, user_id=9),
            line(5, user_id=9, restaurant_id=9),
            line(1),
            line(6, order_date=FUTURE, total_amount=-1, note="x"),
            b"{",
            {"id": 7},
        ],
    )
    assert shortly(told) == [
        (1, 1, "created"),
        (3, 2, "created"),
        (4, 3, "updated"),
        (5, 4, "rejected"),
        (6, 5, "rejected"),
        (7, 1, "rejected"),
        (8, 6, "rejected"),
        (9, None, "rejected"),
        (10, 7, "rejected"),
    ]
    wrong = {each["line"]: [error["name"] for error in each.get("errors", [])] for each in told}
    assert wrong == {
        1: [],
        3: [],
        4: [],
        5: ["user_id"],
        6: ["user_id", "restaurant_id"],
        7: ["id"],
        8: ["note", "order_date", "total_amount"],
        9: [""],
        10: ["user_id", "restaurant_id", "order_date"],
    }
    when = datetime(2020, 2, 29, 12, tzinfo=UTC)
    columns = (Order.id, Order.user_id, Order.restaurant_id, Order.order_date, Order.rating)
    assert [tuple(row) for row in shop.rows(*columns)] == [
        (1, 1, 7, when, 4),
        (2, 1, 8, when, None),
        (3, 1, 7, when, 1.5),
    ]
    # Who had the order before has changed too.
    assert shop.changes("user") == {1: 1, 2: 1}
    (audit,) = shop.audit()
    assert audit[:3] == ("service", "orders.put", "5 rows")
    listed = await shop.api.client.get("/api/orders", headers=shop.api.as_user(1))
    assert [order["id"] for order in listed.json()["items"]] == [3, 2, 1]


async def test_the_same_lines_again_change_nothing(shop: Writing) -> None:
    lines = [
        line(n, user_id=n % 3 + 1, total_amount=n / 10_000, rating=1 + n % 9 / 2)
        for n in range(1000)
    ]
    for expected, revision in (("created", 2), ("unchanged", 2)):
        told = await put(shop, lines)
        assert {each["outcome"] for each in told} == {expected}
        assert [each["line"] for each in told] == list(range(1, 1001))
        assert shop.changes("user") == dict.fromkeys((1, 2, 3), revision)
    assert len(shop.rows(Order.id)) == 1000


async def test_what_is_refused_as_a_whole_changes_nothing(shop: Writing) -> None:
    for lines, headers, status in (
        ([line(n) for n in range(1001)], {}, 413),
        ([line(1, note="x" * 1024**2)], {}, 413),
        ([line(1)], {"Content-Type": "application/json"}, 415),
        ([line(1)], shop.api.as_user(1), 403),
        ([line(1)], shop.api.as_viewer, 403),
        ([line(1)], {"Authorization": "Bearer nobody"}, 401),
    ):
        answer = await send(shop, lines, **headers)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert shop.rows(Order.id) == []


async def test_a_thousand_lines_take_little_memory(shop: Writing) -> None:
    lines = [line(n, user_id=n % 3 + 1) for n in range(1000)]
    await put(shop, lines)  # packages are loaded, statements compiled
    tracemalloc.start()
    try:
        await put(shop, lines)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * 1024**2
