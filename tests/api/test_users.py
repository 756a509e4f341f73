"""Users as the shop's backend writes them: many at once, and the erasure of one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.db.models import (
    Audit,
    HiddenRestaurant,
    IdempotencyKey,
    Order,
    Preferences,
    Restaurant,
    User,
)
from shared.snapshot.store import SnapshotStore
from tests.api.running import OSAKA, PERSONAL, Api
from tests.api.writing import NDJSON, Writing, shortly, writing

USERS = "/api/users"
NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Writing]:
    async with writing(database_url, tmp_path) as started:
        yield started


async def test_each_line_is_created_updated_or_unchanged(shop: Writing) -> None:
    shop.add(
        User,
        {"id": 1, "name": "Ada", "city": "Rome"},
        {"id": 2, "name": "Bob", "email": "b@shop.example", "city": "Rome"},
        {"id": 3, "name": "Cem"},
    )
    lines = [
        {"id": 3, "name": " Cem ", "email": "", "city": None},
        {"id": 2, "name": "Bob"},
        {"id": 2**63 - 1, "name": "Zoë", "email": "z@shop.example", "city": "Köln"},
        {"id": 2, "name": "again"},
        {"id": 4, "nickname": "x", "name": 7},
        {"name": "nobody"},
        {"id": None},
        {"id": "5"},
        {"id": True},
        {"id": 5.0},
        {"id": 6, "city": "x" * 101},
        {"id": 0},
        {"id": 1, "name": "Eve", "city": "Rome"},
    ]
    told = await shop.put_lines(USERS, lines)
    assert shortly(told) == [
        (1, 3, "unchanged"),
        (2, 2, "updated"),
        (3, 2**63 - 1, "created"),
        (4, 2, "rejected"),
        (5, 4, "rejected"),
        *[(n, None, "rejected") for n in (6, 7, 8, 9, 10)],
        (11, 6, "rejected"),
        (12, 0, "created"),
        (13, 1, "updated"),
    ]
    assert [e["name"] for e in told[4]["errors"]] == ["nickname", "name"]
    assert told[3]["errors"][0]["detail"] == "stands on an earlier line too"
    assert [tuple(row) for row in shop.rows(User.id, User.name, User.email, User.city)] == [
        (0, None, None, None),
        (1, "Eve", None, "Rome"),
        (2, "Bob", None, None),
        (3, "Cem", None, None),
        (2**63 - 1, "Zoë", "z@shop.example", "Köln"),
    ]
    moved_or_new = {0: 1, 2: 1, 2**63 - 1: 1}
    assert shop.changes("user") == moved_or_new
    counts = {"created": 2, "updated": 2, "unchanged": 1}
    assert shop.audit() == [("service", "users.put", "5 rows", counts)]
    again = await shop.put_lines(USERS, [lines[1], lines[2]])
    assert [each["outcome"] for each in again] == ["unchanged", "unchanged"]
    assert shop.changes("user") == moved_or_new


async def test_of_equal_requests_at_once_one_creates(shop: Writing) -> None:
    lines = [{"id": n, "city": "Rome"} for n in range(50)]
    told = await asyncio.gather(
        *(shop.put_lines(USERS, lines if n % 2 else lines[::-1]) for n in range(20))
    )
    created = [each["id"] for one in told for each in one if each["outcome"] == "created"]
    assert sorted(created) == list(range(50))
    assert {each["outcome"] for one in told for each in one} == {"created", "unchanged"}
    assert shop.changes("user") == dict.fromkeys(range(50), 1)


async def test_nothing_is_left_of_an_erased_user(shop: Writing) -> None:
    shop.add(Restaurant, {"id": 7, "name": "seven"})
    users = [{"id": n, "name": f"Name{n}", "email": f"{n}@shop.example"} for n in (1, 2)]
    shop.add(User, *users)
    shop.add(
        Order,
        *({"id": n, "user_id": n % 2 + 1, "restaurant_id": 7, "order_date": NOW} for n in range(9)),
    )
    for n in (1, 2):
        shop.add(Preferences, {"user_id": n, "cuisines": ["Ramen"], "price_ranges": []})
        shop.add(HiddenRestaurant, {"user_id": n, "restaurant_id": 7, "hidden_at": NOW})
        key = {"user_id": n, "key": "k", "body_hash": "h", "order_id": n, "created_at": NOW}
        shop.add(IdempotencyKey, key)
    for _ in range(2):  # the second finds nothing, and that is no error
        answer = await shop.api.client.delete(f"{USERS}/1", headers=shop.api.as_service)
        assert (answer.status_code, answer.content) == (204, b"")
    unknown = await shop.api.client.delete(f"{USERS}/99", headers=shop.api.as_service)
    assert unknown.status_code == 204
    columns = (Order, Preferences, HiddenRestaurant, IdempotencyKey)
    for model in columns:
        assert {row.user_id for row in shop.rows(model.user_id)} == {2}
    assert [row.id for row in shop.rows(User.id)] == [2]
    assert shop.changes("user") == {1: 2, 99: 1}
    assert shop.audit() == [
        ("service", "user.erase", "1", {"existed": True}),
        ("service", "user.erase", "1", {"existed": False}),
        ("service", "user.erase", "99", {"existed": False}),
    ]
    assert "Name1" not in str(shop.rows(Audit.id, Audit.subject, Audit.detail))


@pytest.mark.parametrize("text", ["x", "-1", "9223372036854775808", "1?force=1"])
async def test_only_ids_are_erased(shop: Writing, text: str) -> None:
    shop.add(User, {"id": 1})
    answer = await shop.api.client.delete(f"{USERS}/{text}", headers=shop.api.as_service)
    assert answer.status_code == 422
    assert [row.id for row in shop.rows(User.id)] == [1]


async def test_erasure_and_writes_of_one_user_do_not_stand_in_each_others_way(
    shop: Writing,
) -> None:
    """Whatever comes last: nothing fails, and what is there belongs to a user."""
    client, service, user = shop.api.client, shop.api.as_service, shop.api.as_user(1)
    shop.add(Restaurant, {"id": 7, "name": "seven"}, {"id": 8, "name": "eight"})
    line = json.dumps({"id": 1, "name": "Ada"}).encode()
    requests = [
        lambda: client.delete(f"{USERS}/1", headers=service),
        lambda: client.put(USERS, content=line, headers=service | NDJSON),
        lambda: client.put("/api/preferences", json={"city": "Rome"}, headers=user),
        lambda: client.put("/api/preferences/hidden/7", headers=user),
        lambda: client.delete("/api/preferences/hidden/7", headers=user),
        lambda: client.post("/api/orders", json={"restaurant_id": 8}, headers=user),
    ]
    for _ in range(4):
        answers = await asyncio.gather(*(ask() for _ in range(3) for ask in requests))
        assert {answer.status_code for answer in answers} <= {200, 201, 204}
    assert (await client.delete(f"{USERS}/1", headers=service)).status_code == 204
    for model in (User.id, Order.id, Preferences.user_id, HiddenRestaurant.user_id):
        assert shop.rows(model) == []


async def test_the_lists_of_an_erased_user_are_gone_at_once(api: Api, store: SnapshotStore) -> None:
    path = f"/api/users/{PERSONAL}/recommendations?list=order_again"
    before = await api.client.get(path, headers=api.as_service)
    assert before.json() == list(OSAKA[:3])
    erased = await api.client.delete(f"{USERS}/{PERSONAL}", headers=api.as_service)
    assert erased.status_code == 204
    after = await api.client.get(path, headers=api.as_service)
    assert (after.json(), after.headers["x-recommendation-source"]) == ([], "popular")
    assert after.headers["etag"] != before.headers["etag"]
