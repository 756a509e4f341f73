"""Orders over HTTP, on each engine: placing one, repeating a request, walking through pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from sqlalchemy import func, insert, select

from shared.db.engine import sync_engine
from shared.db.models import Change, IdempotencyKey, Order, Restaurant, User
from shared.settings import load_settings
from tests.api.running import BEYOND_JAVASCRIPT, Api, running

RESTAURANTS = (
    {"id": 7, "name": "Zoë's Ramen", "image_url": "https://img.example/7.jpg"},
    {"id": 8, "name": "closed", "is_active": False},
    {"id": 9, "name": "nine"},
    {"id": BEYOND_JAVASCRIPT, "name": "beyond"},
)
OLD = datetime(2020, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
USER = 42
REFUSED: list[tuple[str, int, set[str] | None]] = [
    ("{}", 422, {"restaurant_id"}),
    ("", 400, None),
    ('{"restaurant_id":null}', 422, {"restaurant_id"}),
    *[
        (f'{{"restaurant_id":{value}}}', 422, {"restaurant_id"})
        for value in ("8", "10", "-1", "7.0", '"7"', "true", "9223372036854775808", "[7]")
    ],
    *[
        (f'{{"restaurant_id":7,"total_amount":{value}}}', 422, {"total_amount"})
        for value in ("-1", "-0.0001", "0.00001", "1e10", "1e308", "1e400", '"1"', "true")
    ],
    *[
        (f'{{"restaurant_id":7,"rating":{value}}}', 422, {"rating"})
        for value in ("0", "0.99", "5.01", "6", "-1", "1e400", '"5"', "{}")
    ],
    *[
        (f'{{"restaurant_id":7,"order_date":{value}}}', 422, {"order_date"})
        for value in (
            '"2999-01-01T00:00:00Z"',
            '"2020-01-01T00:00:00"',
            '"2020-01-01"',
            '"2020-02-30T00:00:00Z"',
            '"1969-12-31T23:59:59Z"',
            '"yesterday"',
            "1582934400",
        )
    ],
    ('{"restaurant_id":7,"id":1,"user_id":2}', 422, {"id", "user_id"}),
    ('{"restaurant_id":7,"rating":9,"total_amount":-1}', 422, {"rating", "total_amount"}),
    ('{"restaurant_id":7,"total_amount":NaN}', 400, None),
    ('{"restaurant_id":7,"restaurant_id":9}', 400, None),
    ('{"restaurant_id":7', 400, None),
    ("[7]", 400, None),
    ('{"restaurant_id":' + "9" * 5_000 + "}", 400, None),
    ("[" * 60_000, 400, None),
    ('\ufeff{"restaurant_id":7}', 400, None),
]


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """An API over a database with a few restaurants and one user, on each engine."""
    settings = load_settings(
        {"TASTEMATCH_DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": database_url}
    )
    engine = sync_engine(settings)
    with engine.begin() as connection:
        for row in RESTAURANTS:
            connection.execute(insert(Restaurant).values(row))
        connection.execute(insert(User).values(id=USER))
    engine.dispose()
    async with running(settings) as api:
        yield api


async def place(api: Api, body: Any, *, user: int = USER, key: str | None = None) -> Response:
    headers = api.as_user(user) | ({} if key is None else {"Idempotency-Key": key})
    return await api.client.post("/api/orders", json=body, headers=headers)


async def orders_of(api: Api, user: int = USER, query: str = "") -> dict[str, Any]:
    response = await api.client.get(f"/api/orders{query}", headers=api.as_user(user))
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def count(api: Api, table: Any, *conditions: Any) -> int:
    engine = sync_engine(api.settings)
    with engine.begin() as connection:
        found = connection.scalar(select(func.count()).select_from(table).where(*conditions))
    engine.dispose()
    assert found is not None
    return found


async def test_an_order_is_placed_and_listed(shop: Api) -> None:
    before = datetime.now(UTC)
    response = await place(shop, {"restaurant_id": 7, "total_amount": 12.5, "rating": 4})
    assert response.status_code == 201
    order = response.json()
    assert order.pop("id") <= 2**53
    placed_at = datetime.fromisoformat(order.pop("order_date"))
    assert before - timedelta(milliseconds=1) <= placed_at <= datetime.now(UTC)
    assert order == {
        "restaurant": {"id": 7, "name": "Zoë's Ramen", "image_url": "https://img.example/7.jpg"},
        "total_amount": 12.5,
        "rating": 4,
    }
    assert response.headers["cache-control"] == "no-store"
    bare = await place(shop, {"restaurant_id": BEYOND_JAVASCRIPT})
    assert f'"restaurant":{{"id":{BEYOND_JAVASCRIPT},'.encode() in bare.content
    assert (bare.json()["total_amount"], bare.json()["rating"]) == (None, None)
    listed = await orders_of(shop)
    assert listed == {"items": [bare.json(), response.json()], "next_cursor": None}
    assert await orders_of(shop, 43) == {"items": [], "next_cursor": None}


async def test_a_user_that_is_not_known_yet_orders(shop: Api) -> None:
    for revision in (1, 2):
        assert (await place(shop, {"restaurant_id": 9}, user=77)).status_code == 201
        changed = (Change.subject == "user", Change.subject_id == 77, Change.revision == revision)
        assert count(shop, Change, *changed) == 1
    assert count(shop, User, User.id == 77) == 1
    assert len((await orders_of(shop, 77))["items"]) == 2


async def test_amounts_and_times_come_back_exactly(shop: Api) -> None:
    headers = shop.as_user(USER) | {"Content-Type": "application/json"}
    when = "2020-02-29T13:00:00.123456+01:00"
    for amount in ("0", "-0.0", "9999999999.9999", "0.1", "1234567890.1234"):
        body = f'{{"restaurant_id":7,"total_amount":{amount},"order_date":"{when}"}}'
        response = await shop.client.post("/api/orders", content=body, headers=headers)
        assert response.status_code == 201
        listed = await shop.client.get("/api/orders?limit=1", headers=shop.as_user(USER))
        answered = "0.0" if float(amount) == 0 else amount
        for text in (response.text, listed.text):
            assert f'"order_date":"2020-02-29T12:00:00.123456Z","total_amount":{answered},' in text


async def test_bodies_that_are_refused(shop: Api) -> None:
    headers = shop.as_user(USER) | {"Content-Type": "application/json"}
    for body, status, names in REFUSED:
        response = await shop.client.post("/api/orders", content=body.encode(), headers=headers)
        assert response.status_code == status, (body, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        if names is not None:
            assert {(error["in"], error["name"]) for error in response.json()["errors"]} == {
                ("body", name) for name in names
            }
    assert (await orders_of(shop))["items"] == []


async def test_only_users_have_orders(shop: Api) -> None:
    for headers, status in (({}, 401), (shop.as_service, 403), (shop.as_viewer, 403)):
        assert (await shop.client.get("/api/orders", headers=headers)).status_code == status
        posted = await shop.client.post("/api/orders", json={"restaurant_id": 7}, headers=headers)
        assert posted.status_code == status
    assert count(shop, Order) == 0


async def test_a_key_gives_the_same_answer_again(shop: Api) -> None:
    body = {"restaurant_id": 7, "total_amount": 10, "rating": 3.5}
    first = await place(shop, body, key="a")
    again = [await place(shop, dict(reversed(body.items())), key="a") for _ in range(3)]
    assert {(r.status_code, r.content) for r in (first, *again)} == {(201, first.content)}
    other = await place(shop, {**body, "rating": 4}, key="a")
    assert other.status_code == 422
    assert other.json()["errors"] == [
        {"in": "header", "name": "Idempotency-Key", "detail": "was used with another body"}
    ]
    assert (await orders_of(shop))["items"] == [first.json()]
    assert count(shop, Change, Change.revision > 1) == 0
    assert (await place(shop, body, key="b")).json()["id"] != first.json()["id"]
    assert (await place(shop, body, key="a", user=43)).json()["id"] != first.json()["id"]


async def test_what_was_refused_is_not_remembered(shop: Api) -> None:
    assert (await place(shop, {"restaurant_id": 10}, key="a")).status_code == 422
    assert (await place(shop, {"restaurant_id": 7}, key="a")).status_code == 201


async def test_twenty_at_once_with_one_key_are_one_order(shop: Api) -> None:
    body = {"restaurant_id": 7}
    async with running(shop.settings) as replica:
        answers = await asyncio.gather(
            *(place((shop, replica)[n % 2], body, key="once") for n in range(20))
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert count(shop, Order) == count(shop, IdempotencyKey) == 1


async def test_forms_of_keys(shop: Api) -> None:
    forms = [("!" * 255, 201), ("~", 201), ("", 422), ("x" * 256, 422), ("a b", 422), ("é", 422)]
    for key, status in forms:
        headers = shop.as_user(USER) | {"Idempotency-Key": key.encode("utf-8")}
        response = await shop.client.post("/api/orders", json={"restaurant_id": 7}, headers=headers)
        assert response.status_code == status
        if status == 422:
            assert response.json()["errors"][0]["in"] == "header"


async def test_many_at_once_with_refused_ones_among_them(shop: Api) -> None:
    wanted = [7, 8, 9, 10, BEYOND_JAVASCRIPT] * 18
    answers = await asyncio.gather(
        *(place(shop, {"restaurant_id": r}, user=n % 50) for n, r in enumerate(wanted))
    )
    for restaurant, answer in zip(wanted, answers, strict=True):
        assert answer.status_code == (422 if restaurant in (8, 10) else 201)
        if answer.status_code == 201:
            assert answer.json()["restaurant"]["id"] == restaurant
    listed = [o for user in range(50) for o in (await orders_of(shop, user))["items"]]
    placed = [answer.json() for answer in answers if answer.status_code == 201]
    assert sorted(listed, key=json.dumps) == sorted(placed, key=json.dumps)
    assert len({order["id"] for order in placed}) == 54


async def test_pages_hold_each_order_once(shop: Api) -> None:
    engine = sync_engine(shop.settings)
    rows = [
        # Ties in time, and ids that do not grow with time.
        {"id": (n * 37) % 101, "user_id": USER, "restaurant_id": (7, 8, 9)[n % 3],
         "order_date": OLD + timedelta(microseconds=n // 4)}
        for n in range(40)
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(Order), rows)
    engine.dispose()
    expected = sorted(((row["order_date"], row["id"]) for row in rows), reverse=True)
    for limit in (1, 3, 39, 40, 50):
        found: list[Any] = []
        query: str | None = f"?limit={limit}"
        while query is not None:
            page = await orders_of(shop, USER, query)
            assert len(page["items"]) <= limit
            found += page["items"]
            cursor = page["next_cursor"]
            query = None if cursor is None else f"?limit={limit}&cursor={cursor}"
            if len(found) == 3:  # what is ordered meanwhile is newer, and on no later page
                await place(shop, {"restaurant_id": 9})
        times = [(datetime.fromisoformat(order["order_date"]), order["id"]) for order in found]
        assert [each for each in times if each[0] < OLD + timedelta(days=1)] == expected
    assert (await orders_of(shop, USER, "?limit=50"))["items"][-1]["restaurant"]["name"] in (
        "Zoë's Ramen",
        "closed",
        "nine",
    )


async def test_cursors_of_others_are_refused(shop: Api) -> None:
    for _ in range(2):
        await place(shop, {"restaurant_id": 7})
    cursor = (await orders_of(shop, USER, "?limit=1"))["next_cursor"]
    for user, query, status in (
        (43, f"?cursor={cursor}", 400),
        (USER, f"?cursor={cursor[:-2]}AA", 400),
        (USER, "?cursor=", 400),
        (USER, "?cursor=" + "A" * 10_000, 400),
        (USER, "?limit=0", 422),
        (USER, "?limit=51", 422),
        (USER, "?user_id=43", 422),
    ):
        response = await shop.client.get(f"/api/orders{query}", headers=shop.as_user(user))
        assert response.status_code == status, query


async def test_keys_are_kept_for_a_day_and_then_forgotten(shop: Api) -> None:
    engine = sync_engine(shop.settings)
    now = datetime.now(UTC)
    rows = [
        {
            "user_id": USER,
            "key": f"{hours} {number}",
            "body_hash": "",
            "order_id": 1,
            "created_at": now - timedelta(hours=hours),
        }
        for hours, many in ((1, 3), (24, 3), (72, 1500))
        for number in range(many)
    ]
    with engine.begin() as connection:
        connection.execute(insert(IdempotencyKey), rows)
    engine.dispose()
    await place(shop, {"restaurant_id": 7}, key="new")
    deadline = asyncio.get_running_loop().time() + 10
    while (kept := count(shop, IdempotencyKey)) > 7:
        assert asyncio.get_running_loop().time() < deadline, f"{kept} keys are kept"
        await asyncio.sleep(0.01)
    assert kept == 7
