"""Pages of a list: to its end, each id once, in the version they began in."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from api.list_queries import read_list_query, seal_page
from api.serving import START
from shared.settings import Settings
from shared.snapshot.store import SnapshotStore
from tests.api.running import Api, running
from tests.api.shop import RESTAURANTS, USERS, made_shop, whole_list
from tests.services.snapshots import publish_snapshot

PATH = "/api/recommendations"
SHOP = made_shop()
USER, OTHER = 3, 4
FILTERS: list[dict[str, Any]] = [
    {},
    {"cuisine": ["tacos"], "price_range": [1, 2, 3]},
    {"city": ["Oaxaca"]},
    {"city": ["São Paulo"], "exclude": "1,2,3"},
    {"near": "34.69,135.5", "radius_km": 40},
    {"exclude": ",".join(map(str, (SHOP.popular or ())[5:60]))},
]


@pytest.fixture
async def shop(settings: Settings, store: SnapshotStore) -> AsyncIterator[Api]:
    version = publish_snapshot(store, SHOP).version
    async with running(settings) as started:
        await started.serves(version)
        yield started


async def get(api: Api, url: str, user_id: int = USER, **query: Any) -> httpx.Response:
    return await api.client.get(url, params=query or None, headers=api.as_user(user_id))


def next_of(response: httpx.Response) -> str | None:
    assert response.status_code == 200, response.text
    return response.links["next"]["url"] if "next" in response.links else None


async def rest(api: Api, first: httpx.Response, user_id: int = USER) -> list[int]:
    """What the first page and all after it hold."""
    found: list[int] = list(first.json())
    url = next_of(first)
    while url is not None:
        page = await get(api, url, user_id)
        assert page.json(), "no page is empty"
        assert page.headers["x-snapshot-version"] == first.headers["x-snapshot-version"]
        found += page.json()
        url = next_of(page)
    return found


@pytest.mark.parametrize("list_name", ["for_you", "discover", "order_again"])
async def test_pages_are_the_list_to_its_end(shop: Api, list_name: str) -> None:
    for user_id in (1, 2, USER, OTHER, USERS + 1):
        for filters, limit in zip(FILTERS, (50, 7, 1, 19, 20, 33), strict=True):
            query = {"list": list_name, "limit": limit, **filters}
            first = await get(shop, PATH, user_id, **query)
            found = await rest(shop, first, user_id)
            assert found == whole_list(SHOP, user_id, list_name, filters), (user_id, query)


async def test_a_page_that_ends_with_the_list_has_no_next(shop: Api) -> None:
    length = len(whole_list(SHOP, USER, "order_again", {}))
    assert 1 < length <= 50
    whole = await get(shop, PATH, list="order_again", limit=length)
    assert next_of(whole) is None
    but_one = await get(shop, PATH, list="order_again", limit=length - 1)
    assert len((await get(shop, next_of(but_one) or "")).json()) == 1


async def test_the_limit_may_change_from_page_to_page(shop: Api) -> None:
    first = await get(shop, PATH, limit=3)
    url = (next_of(first) or "").replace("limit=3", "limit=50")
    assert [*first.json(), *(await get(shop, url)).json()] == whole_list(SHOP, USER, "for_you", {})[
        :53
    ]


@pytest.mark.parametrize("path", [f"{PATH}/detailed", f"/api/users/{USER}/recommendations"])
async def test_every_route_has_pages_of_its_own(shop: Api, path: str) -> None:
    found: list[int] = []
    url: str | None = f"{path}?limit=45&city=Osaka"
    while url is not None:
        assert url.startswith(f"{path}?")
        response = await get(shop, url)
        document = response.json()
        is_detailed = isinstance(document, dict)
        found += [item["id"] for item in document["items"]] if is_detailed else document
        url = next_of(response)
        if is_detailed:
            assert document["next_cursor"] == (url.rpartition("cursor=")[2] if url else None)
    assert found == whole_list(SHOP, USER, "for_you", {"city": ["Osaka"]})


async def test_each_page_has_an_etag_of_its_own(shop: Api) -> None:
    first = await get(shop, PATH)
    second = await get(shop, next_of(first) or "")
    assert first.headers["etag"] != second.headers["etag"]
    again = await shop.client.get(
        next_of(first) or "",
        headers={**shop.as_user(USER), "If-None-Match": second.headers["etag"]},
    )
    assert again.status_code == 304
    assert "link" not in again.headers


async def test_pages_go_on_in_their_version_when_a_newer_one_is_active(
    shop: Api, store: SnapshotStore
) -> None:
    first = await get(shop, PATH, limit=40)
    for seed in range(2, 2 + shop.settings.keep_snapshots - 1):
        newer = publish_snapshot(store, made_shop(seed))
        await shop.serves(newer.version)
    assert (await get(shop, PATH)).headers["x-snapshot-version"] == newer.version
    assert await rest(shop, first) == whole_list(SHOP, USER, "for_you", {})


async def test_pages_go_on_after_a_restart(
    shop: Api, settings: Settings, store: SnapshotStore
) -> None:
    first = await get(shop, PATH, limit=40)
    newer = publish_snapshot(store, made_shop(2))
    await shop.serves(newer.version)
    async with running(settings) as restarted:
        await until_status(restarted, next_of(first) or "", 200)
        assert await rest(restarted, first) == whole_list(SHOP, USER, "for_you", {})


@pytest.mark.parametrize("form", ["", "/detailed"])
async def test_a_pruned_version_is_gone(shop: Api, store: SnapshotStore, form: str) -> None:
    url = next_of(await get(shop, PATH + form)) or ""
    newer = publish_snapshot(store, made_shop(2))
    await shop.serves(newer.version)
    assert (await get(shop, url)).status_code == 200
    store.prune(1)
    problem = await until_status(shop, url, 410)
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.headers["cache-control"] == "no-store"
    assert problem.json()["code"] == "version-gone"


async def test_a_version_on_its_way_here_is_to_be_asked_for_again(shop: Api) -> None:
    """Another process may have taken up a snapshot a moment before this one."""
    now = time.gmtime()
    for version, status in (
        (f"{time.strftime('%Y%m%dT%H%M%S', now)}999999Z-ffff", 503),
        ("20200101T000000000000Z-ffff", 410),
    ):
        query, _ = read_list_query(b"")
        cursor = seal_page(
            shop.resources.page_cursors,
            PATH.encode(),
            USER,
            query,
            version=version.encode(),
            position=START,
        )
        response = await get(shop, f"{PATH}?cursor={cursor.decode()}")
        assert response.status_code == status
    assert (await get(shop, PATH)).status_code == 200


async def test_cursors_of_others_and_forged_ones_are_refused(shop: Api) -> None:
    url = next_of(await get(shop, PATH, limit=10, city="Osaka")) or ""
    cursor = url.rpartition("cursor=")[2]
    mine = f"/api/users/{USER}/recommendations"
    foreign = [
        (f"{PATH}?city=Oaxaca&cursor={cursor}", USER),
        (f"{PATH}?cursor={cursor}", USER),
        (f"{PATH}?city=Osaka&list=discover&cursor={cursor}", USER),
        (f"{PATH}?city=Osaka&exclude=1&cursor={cursor}", USER),
        (f"{PATH}/detailed?city=Osaka&cursor={cursor}", USER),
        (f"{mine}?city=Osaka&cursor={cursor}", USER),
        (url, OTHER),
        *((f"{PATH}?city=Osaka&cursor={text}", USER) for text in _forged(cursor)),
    ]
    for address, user_id in foreign:
        response = await get(shop, address, user_id)
        assert response.status_code == 400, address
        assert response.json()["code"] == "malformed-input"
    assert (await get(shop, f"{PATH}?cursor={cursor}&city=osaka")).status_code == 400
    assert (await get(shop, f"{PATH}?cursor={cursor}&city=%4fsaka")).status_code == 200
    twice = await get(shop, f"{PATH}?city=Osaka&cursor={cursor}&cursor={cursor}")
    assert twice.status_code == 422


def _forged(cursor: str) -> list[str]:
    changed = [
        cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]
        for at in range(len(cursor))
    ]
    return [
        *changed,
        "",
        "x",
        "%00",
        "%ED%A0%80",
        cursor[:-1],
        cursor + "A",
        "a" * 5_000,
        "1",
        cursor + "%3D",
        cursor + "%20",
    ]


async def test_a_link_keeps_every_filter(shop: Api) -> None:
    query: Mapping[str, Any] = {
        "cuisine": ["Crêperie", "Bar & Grill>", "Tacos", "Ramen", "Bar"],
        "price_range": [3, 1, 2, 4],
        "exclude": "9,8",
        "limit": 5,
    }
    response = await get(shop, PATH, **query)
    assert re.fullmatch(r'<[!-;=?-~]+>; rel="next"', response.headers["link"])
    expected = whole_list(SHOP, USER, "for_you", {k: v for k, v in query.items() if k != "limit"})
    assert await rest(shop, response) == expected


async def until_status(api: Api, url: str, status: int) -> httpx.Response:
    deadline = time.monotonic() + 10
    while (response := await get(api, url)).status_code != status:
        assert time.monotonic() < deadline, response.text
        await asyncio.sleep(0.01)
    return response


def test_the_shop_is_large_enough_to_tell() -> None:
    assert len(whole_list(SHOP, USER, "for_you", {})) == RESTAURANTS
