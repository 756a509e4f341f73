"""Filtered lists: nothing outside the filter, filled up inside it, in the order of the ranking."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from shared.settings import Settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.store import SnapshotStore
from tests.api.running import Api, running
from tests.api.shop import RESTAURANTS, USERS, kilometres, made_shop, whole_list
from tests.services.snapshots import SnapshotSpec, UserSpec, publish_snapshot

PATH = "/api/recommendations"
SHOP = made_shop()
UNKNOWN = USERS + 1
OSAKA, SAO_PAULO = "34.69,135.5", "-23.55,-46.63"
FILTERS: list[dict[str, Any]] = [
    {},
    {"cuisine": ["ramen"]},
    {"cuisine": ["CRÊPERIE", "tacos"]},
    {"city": ["osaka"]},
    {"city": ["Osaka", "Oaxaca"]},
    {"price_range": [2]},
    {"price_range": [1, 4]},
    {"cuisine": ["Bar"], "city": ["Oaxaca"], "price_range": [1, 2, 3]},
    {"near": OSAKA},
    {"near": SAO_PAULO, "radius_km": 25.5},
    {"near": OSAKA, "radius_km": 100, "cuisine": ["Ramen"], "city": ["Osaka"]},
    {"near": "0,0", "radius_km": 100},
    {"exclude": ",".join(str(i) for i in (SHOP.popular or ())[:100])},
    {"exclude": "1,2,9223372036854775807", "price_range": [3]},
]


@pytest.fixture
async def shop(settings: Settings, store: SnapshotStore) -> AsyncIterator[Api]:
    version = publish_snapshot(store, SHOP).version
    async with running(settings) as started:
        await started.serves(version)
        yield started


async def ids(api: Api, user_id: int, path: str = PATH, **query: Any) -> list[int]:
    response = await api.client.get(path, params=query, headers=api.as_user(user_id))
    assert response.status_code == 200, response.text
    found: list[int] = response.json()
    return found


async def test_every_user_gets_what_passes_and_as_many_as_there_are(shop: Api) -> None:
    choices = itertools.cycle(itertools.product(FILTERS, ("for_you", "discover", "order_again")))
    for user_id, (filters, list_name) in zip(range(1, USERS + 2), choices, strict=False):
        found = await ids(shop, user_id, list=list_name, limit=50, **filters)
        assert found == whole_list(SHOP, user_id, list_name, filters)[:50], (user_id, filters)


async def test_both_paths_and_the_detailed_form_say_the_same(shop: Api) -> None:
    user_id = 7
    mine = f"/api/users/{user_id}/recommendations"
    for filters in FILTERS:
        expected = await ids(shop, user_id, **filters)
        assert await ids(shop, user_id, mine, **filters) == expected
        for path in (f"{PATH}/detailed", f"{mine}/detailed"):
            response = await shop.client.get(path, params=filters, headers=shop.as_user(user_id))
            assert [item["id"] for item in response.json()["items"]] == expected


async def test_one_city_asked_for_stands_in_the_place_of_the_users(shop: Api) -> None:
    response = await shop.client.get(PATH, params={"city": "OAXACA"}, headers=shop.as_user(UNKNOWN))
    assert response.headers["x-recommendation-source"] == "popular-city"
    popular = [i for i in SHOP.popular or () if SHOP.restaurants[i] == "Oaxaca"]
    assert response.json() == popular[:20]


async def test_what_nothing_passes_is_an_empty_list(shop: Api) -> None:
    for filters in (
        {"cuisine": "Nobody"},
        {"city": "Atlantis"},
        {"city": "Osaka", "near": SAO_PAULO},
    ):
        response = await shop.client.get(PATH, params=filters, headers=shop.as_user(UNKNOWN))
        assert response.json() == []
        assert "link" not in response.headers


REFUSED = [
    *("price_range=0", "price_range=5", "price_range=1,2", "price_range=", "price_range=nan"),
    *("&".join(["price_range=1"] * 5), "cuisine=", "cuisine=%00", "city=%ED%A0%80"),
    *(f"city={'a' * 4_000}", "&".join(["city=a"] * 21), "near=", "near=1", "near=1,2,3"),
    *("near=91,0", "near=-90.1,0", "near=0,180.1", "near=nan,0", "near=1e1,0", "near=%201,2"),
    *("near=+1,2", "near=0,inf", "near=1;2", "near=1,2%0A", "near=1,2&near=1,2"),
    "radius_km=50",
    *("near=0,0&radius_km=0", "radius_km=101", "radius_km=nan", "radius_km=1e400"),
    *("radius_km=-1", "radius_km=", "radius_km=0.99", "exclude=", "exclude=1,", "exclude=,1"),
    *("exclude=a", "exclude=1.0", "exclude=-1", "exclude=9223372036854775808", "exclude=%00"),
    *(f"exclude={','.join(map(str, range(101)))}", "exclude=1&exclude=2", f"exclude={10**30}"),
]


async def test_values_out_of_range_are_refused(shop: Api) -> None:
    for query in REFUSED:
        for path in (PATH, f"{PATH}/detailed"):
            response = await shop.client.get(f"{path}?{query}", headers=shop.as_user(1))
            assert response.status_code == 422, query
            assert response.json()["errors"][0]["name"] in query


async def test_edges_of_the_ranges_are_taken(shop: Api) -> None:
    hundred = ",".join(map(str, range(100)))
    for query in (
        "near=90,180",
        "near=-90,-180",
        "near=-0,0.000000000000001",
        "near=0,0&radius_km=1",
        "near=0,0&radius_km=100",
        f"exclude={hundred}",
        "exclude=0,0,0",
        "price_range=1&price_range=2&price_range=3&price_range=4",
    ):
        response = await shop.client.get(f"{PATH}?{query}", headers=shop.as_user(1))
        assert response.status_code == 200, response.text


async def test_the_etag_is_that_of_the_meaning_not_of_the_spelling(shop: Api) -> None:
    async def etag(query: str) -> str:
        response = await shop.client.get(f"{PATH}?{query}", headers=shop.as_user(1))
        again = await shop.client.get(
            f"{PATH}?{query}",
            headers={**shop.as_user(1), "If-None-Match": response.headers["etag"]},
        )
        assert again.status_code == 304
        assert again.content == b""
        return str(response.headers["etag"])

    same = [
        "cuisine=Ramen&city=S%C3%A3o+Paulo&price_range=1&price_range=2&limit=5",
        "limit=05&price_range=2&price_range=1&price_range=1&cuisine=%52amen&city=São%20Paulo",
        "price_range=1&cuisine=Ramen&city=S%C3%A3o+Paulo&price_range=2&limit=5",
    ]
    assert len({await etag(query) for query in same}) == 1
    others = ["", "cuisine=Ramen", "city=Ramen", "price_range=1", "near=1,2", "exclude=1"]
    others += ["near=1,2&radius_km=11", "exclude=1,2", "cuisine=Ramen&list=discover"]
    assert len({await etag(query) for query in [*same[:1], *others]}) == len(others) + 1


async def test_distances_hold_over_the_date_line_and_at_the_poles(
    settings: Settings, store: SnapshotStore
) -> None:
    places = {
        1: (0.0, 179.99),
        2: (0.0, -179.99),
        3: (0.0, -179.8),
        4: (89.95, 10.0),
        5: (89.95, -170.0),
        6: (-90.0, 55.0),
        7: (48.0, 11.0),
        8: (48.0, 11.134),
    }
    spec = SnapshotSpec(restaurants=dict.fromkeys([*places, 9]), places=places)
    manifest = publish_snapshot(store, spec)
    async with running(settings) as api:
        await api.serves(manifest.version)
        assert await ids(api, 1, near="0,180") == [1, 2]
        assert await ids(api, 1, near="0,-180", radius_km=30) == [1, 2, 3]
        assert await ids(api, 1, near="90,0") == [4, 5]
        assert await ids(api, 1, near="-89.99,-170", radius_km=2) == [6]
        apart = kilometres(places[7], places[8])
        assert 9.9 < apart < 10
        assert await ids(api, 1, near="48,11") == [7, 8]
        assert await ids(api, 1, near="48,11", radius_km=round(apart - 0.01, 3)) == [7]


@pytest.mark.parametrize("missing", [("attributes",), ("attributes", "cuisines")])
async def test_a_snapshot_of_the_release_before_knows_all_but_places(
    settings: Settings, store: SnapshotStore, missing: tuple[str, ...]
) -> None:
    def older(manifest: Manifest) -> Manifest:
        def kept(whole: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in whole.items() if name not in missing}

        return dataclasses.replace(
            manifest, bytes=kept(manifest.bytes), checksums=kept(manifest.checksums)
        )

    version = publish_snapshot(store, SHOP, change_manifest=older).version
    async with running(settings) as api:
        await api.serves(version)
        for filters in FILTERS:
            if "near" not in filters:
                expected = whole_list(SHOP, 1, "for_you", filters)[:50]
                assert await ids(api, 1, limit=50, **filters) == expected
        for path in (PATH, f"{PATH}/detailed"):
            response = await api.client.get(path, params={"near": OSAKA}, headers=api.as_user(1))
            assert response.status_code == 503
            assert response.json()["code"] == "snapshot-outdated"
            assert int(response.headers["retry-after"]) > 0


async def test_three_restaurants_are_three_at_most(
    settings: Settings, store: SnapshotStore
) -> None:
    user = UserSpec("personal", "Rome", for_you=(2,), order_again=(2,))
    spec = SnapshotSpec(restaurants={1: "Rome", 2: "Rome", 3: None}, users={5: user})
    manifest = publish_snapshot(store, spec)
    async with running(settings) as api:
        await api.serves(manifest.version)
        assert await ids(api, 5, limit=50, cuisine="Ramen") == [2, 1, 3]
        assert await ids(api, 5, limit=50, city="Rome", list="discover") == [1]
        assert await ids(api, 5, limit=50, exclude="2,3") == [1]
        assert await ids(api, 5, limit=50, list="order_again", city="Rome") == [2]
        assert await ids(api, 5, limit=50, list="order_again", exclude="2") == []


def test_the_shop_is_large_enough_to_tell() -> None:
    lengths = [len(whole_list(SHOP, 1, "for_you", filters)) for filters in FILTERS]
    assert max(lengths) == RESTAURANTS
    assert sum(0 < length < 50 for length in lengths) >= 4
