"""What users like and hide: said over HTTP, read by the worker, obeyed at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from api.routes import preferences
from shared.db.engine import sync_engine
from shared.db.models import HiddenRestaurant, Preferences, Restaurant, User
from tests.api.running import OSAKA, PERSONAL, Api
from tests.api.writing import Writing, writing
from worker.extract import Cities, Taste, reading, tastes

PATH = "/api/preferences"
NEVER_SAID: dict[str, Any] = {"cuisines": [], "price_ranges": [], "city": None, "hidden": []}
SAID = {"cuisines": ["Ramen", "Crêperie"], "price_ranges": [1, 3], "city": "Osaka"}
RESTAURANTS = (
    *({"id": n, "name": f"Restaurant {n}"} for n in range(1, 8)),
    {"id": 8, "name": "closed", "is_active": False},
    {"id": 2**63 - 1, "name": "last"},
)

REFUSED: list[tuple[str, list[str]]] = [
    ('{"cuisines":"Ramen"}', ["cuisines"]),
    ('{"cuisines":["Ramen","a|b"]}', ["cuisines"]),
    ('{"cuisines":["  "]}', ["cuisines"]),
    ('{"cuisines":[7]}', ["cuisines"]),
    ('{"cuisines":[null]}', ["cuisines"]),
    ('{"cuisines":["\\u0000"]}', ["cuisines"]),
    (json.dumps({"cuisines": ["x" * 201]}), ["cuisines"]),
    (json.dumps({"cuisines": [str(n) for n in range(21)]}), ["cuisines"]),
    (json.dumps({"price_ranges": [1] * 5}), ["price_ranges"]),
    ('{"price_ranges":[0]}', ["price_ranges"]),
    ('{"price_ranges":[5]}', ["price_ranges"]),
    ('{"price_ranges":[true]}', ["price_ranges"]),
    ('{"price_ranges":[1.0]}', ["price_ranges"]),
    ('{"price_ranges":2}', ["price_ranges"]),
    ('{"city":7}', ["city"]),
    (json.dumps({"city": "x" * 101}), ["city"]),
    ('{"hidden":[1],"mood":"x","city":[]}', ["hidden", "mood", "city"]),
]


@pytest.fixture
async def shop(database_url: str, tmp_path: Path) -> AsyncIterator[Writing]:
    async with writing(database_url, tmp_path) as started:
        started.add(Restaurant, *RESTAURANTS)
        yield started


async def test_a_user_who_was_never_seen(shop: Writing) -> None:
    user = shop.api.as_user(42)
    answer = await shop.api.client.get(PATH, headers=user)
    assert (answer.status_code, answer.json()) == (200, NEVER_SAID)
    assert answer.headers["cache-control"] == "no-store"
    unhidden = await shop.api.client.delete(f"{PATH}/hidden/1", headers=user)
    unknown = await shop.api.client.put(f"{PATH}/hidden/99", headers=user)
    assert (unhidden.status_code, unknown.status_code) == (204, 404)
    assert shop.rows(User.id) == []
    assert shop.changes("user") == {}
    answer = await shop.api.client.put(PATH, json=SAID, headers=user)
    assert (answer.status_code, answer.json()) == (200, SAID | {"hidden": []})
    assert [row.id for row in shop.rows(User.id)] == [42]
    assert shop.changes("user") == {42: 1}


async def test_what_was_said_is_what_the_worker_reads(shop: Writing) -> None:
    user = shop.api.as_user(42)
    said = {
        "cuisines": [" ramen ", "Crêperie", "RAMEN", "ramen"],
        "price_ranges": [3, 1, 3],
        "city": " osaka ",
    }
    normal = {"cuisines": ["ramen", "Crêperie"], "price_ranges": [1, 3], "city": "osaka"}
    for _ in range(2):
        answer = await shop.api.client.put(PATH, json=said, headers=user)
        assert answer.json() == normal | {"hidden": []}
    assert (await shop.api.client.get(PATH, headers=user)).json() == normal | {"hidden": []}
    assert shop.changes("user") == {42: 2}
    engine = sync_engine(shop.api.settings)
    cities = Cities()
    osaka = cities.add("Osaka")
    with reading(engine) as connection:
        found = tastes(connection, cities, block_rows=10)
    engine.dispose()
    assert found == {42: Taste(frozenset({"ramen", "crêperie"}), frozenset({1, 3}), osaka)}
    answer = await shop.api.client.put(PATH, json={"price_ranges": None}, headers=user)
    assert answer.json() == NEVER_SAID


async def test_what_is_not_as_declared_is_refused_whole(sqlite_url: str, tmp_path: Path) -> None:
    async with writing(sqlite_url, tmp_path) as shop:
        headers = shop.api.as_user(42) | {"Content-Type": "application/json"}
        for body, names in REFUSED:
            answer = await shop.api.client.put(PATH, content=body.encode(), headers=headers)
            assert answer.status_code == 422, body
            assert [error["name"] for error in answer.json()["errors"]] == names
        for path in (f"{PATH}?x=1", f"{PATH}/hidden/1?x=1", f"{PATH}/hidden/x"):
            answer = await shop.api.client.put(path, json={}, headers=headers)
            assert answer.status_code == 422
        for content in (
            b"",
            b"[]",
            b"{",
            b'{"city":"a","city":"b"}',
            b'{"city":NaN}',
            b'{"\\ud800":1}',
        ):
            answer = await shop.api.client.put(PATH, content=content, headers=headers)
            assert answer.status_code == 400
        assert shop.rows(Preferences.user_id) == shop.rows(User.id) == []


async def test_hiding_and_showing_again(shop: Writing) -> None:
    client, user = shop.api.client, shop.api.as_user(42)
    for restaurant_id in (2**63 - 1, 3, 3, 8):
        answer = await client.put(f"{PATH}/hidden/{restaurant_id}", headers=user)
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await client.get(PATH, headers=user)).json()["hidden"] == [3, 8, 2**63 - 1]
    answer = await client.put(PATH, json=SAID, headers=user)
    assert answer.json() == SAID | {"hidden": [3, 8, 2**63 - 1]}
    for _ in range(2):
        assert (await client.delete(f"{PATH}/hidden/3", headers=user)).status_code == 204
    assert (await client.get(PATH, headers=user)).json()["hidden"] == [8, 2**63 - 1]
    other = await client.get(PATH, headers=shop.api.as_user(43))
    assert other.json() == NEVER_SAID


async def test_the_same_at_once_is_there_once(shop: Writing) -> None:
    client, user = shop.api.client, shop.api.as_user(42)
    answers = await asyncio.gather(
        *(client.put(f"{PATH}/hidden/3", headers=user) for _ in range(20)),
        *(client.put(PATH, json=SAID, headers=user) for _ in range(20)),
    )
    assert Counter(answer.status_code for answer in answers) == {204: 20, 200: 20}
    assert len(shop.rows(HiddenRestaurant.user_id)) == 1
    assert len(shop.rows(Preferences.user_id)) == 1
    assert shop.changes("user") == {42: 40}


async def test_nobody_hides_more_than_the_bound(
    shop: Writing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences, "MAX_HIDDEN", 3)
    client, user = shop.api.client, shop.api.as_user(42)
    paths = [f"{PATH}/hidden/{n}" for n in range(1, 8)]
    answers = await asyncio.gather(*(client.put(path, headers=user) for path in paths))
    assert Counter(answer.status_code for answer in answers) == {204: 3, 422: 4}
    hidden = (await client.get(PATH, headers=user)).json()["hidden"]
    assert len(hidden) == 3
    assert (await client.put(f"{PATH}/hidden/{hidden[0]}", headers=user)).status_code == 204
    assert (await client.delete(f"{PATH}/hidden/{hidden[0]}", headers=user)).status_code == 204
    assert (await client.put(f"{PATH}/hidden/8", headers=user)).status_code == 204
    refused = next(answer for answer in answers if answer.status_code == 422)
    assert refused.json()["errors"][0]["name"] == "restaurant_id"


async def test_a_hidden_restaurant_leaves_the_lists_at_once(api: Api) -> None:
    hidden = OSAKA[0]
    engine = sync_engine(api.settings)
    with engine.begin() as connection:
        connection.execute(insert(Restaurant).values(id=hidden, name="Hidden"))
    engine.dispose()
    user = api.as_user(PERSONAL)

    async def lists() -> list[list[int]]:
        names = ("for_you", "order_again")
        paths = [f"/api/recommendations?limit=50&list={name}" for name in names]
        return [(await api.client.get(path, headers=user)).json() for path in paths]

    before = await lists()
    assert all(hidden in ids for ids in before)
    answer = await api.client.put(f"{PATH}/hidden/{hidden}", headers=user)
    assert answer.status_code == 204
    assert not any(hidden in ids for ids in await lists())
    answer = await api.client.delete(f"{PATH}/hidden/{hidden}", headers=user)
    assert answer.status_code == 204
    assert await lists() == before
