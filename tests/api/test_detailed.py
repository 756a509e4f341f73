"""The detailed form: the same list, joined and explained with what the snapshot can prove."""

from __future__ import annotations

from typing import Any

import pytest

from shared.settings import Settings
from shared.snapshot.store import SnapshotStore
from tests.api.running import (
    BEYOND_JAVASCRIPT,
    CITY_ONLY,
    OSAKA,
    PERSONAL,
    PREFERENCES,
    SHORT,
    SPEC,
    UNKNOWN,
    Api,
    running,
)
from tests.services.snapshots import SnapshotSpec, UserSpec, projection, publish_snapshot

# No test changes what the API holds: all ask the same one, in its loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/api/recommendations/detailed"


@pytest.fixture
def api(standing_api: Api) -> Api:
    return standing_api


async def detailed(api: Api, user_id: int, **query: str | int) -> dict[str, Any]:
    response = await api.client.get(PATH, params=query, headers=api.as_user(user_id))
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


@pytest.mark.parametrize("list_name", ["for_you", "discover", "order_again"])
@pytest.mark.parametrize("limit", [1, 20, 50])
@pytest.mark.parametrize("user_id", [PERSONAL, SHORT, PREFERENCES, CITY_ONLY, UNKNOWN])
async def test_has_the_order_and_length_of_the_ids(
    api: Api, user_id: int, limit: int, list_name: str
) -> None:
    query = {"limit": limit, "list": list_name}
    bare = await api.client.get("/api/recommendations", params=query, headers=api.as_user(user_id))
    document = await detailed(api, user_id, **query)
    assert [item["id"] for item in document["items"]] == bare.json()
    assert document["list"] == list_name
    if document["items"]:
        assert document["items"][0]["source"] == bare.headers["x-recommendation-source"]


async def test_is_joined_with_the_metadata(api: Api) -> None:
    document = await detailed(api, PERSONAL, limit=50)
    assert len(document["items"]) == 50
    for item in document["items"]:
        assert set(item) == {"id", "source", "reason", "restaurant"}
        assert item["restaurant"] == projection(SPEC, item["id"])
    snapshot = api.resources.snapshots.require_active()
    assert document["snapshot_version"] == snapshot.version
    assert document["metadata_version"] == snapshot.manifest.metadata_version
    assert document["generated_at"] == snapshot.manifest.as_dict()["created_at"]


async def test_reasons_name_what_was_ordered(api: Api) -> None:
    document = await detailed(api, SHORT, limit=50)
    by_id = {item["id"]: item for item in document["items"]}
    assert by_id[105]["reason"] == {"code": "ordered-before", "restaurant_ids": [105]}
    assert by_id[102]["reason"] == {"code": "similar-to", "restaurant_ids": [105, 101]}
    # A personal choice without a trace in the similar ones: what is true of it, no more.
    assert by_id[107]["reason"] == {"code": "popular-in-city", "restaurant_ids": []}
    sources = [item["source"] for item in document["items"]]
    assert sources == ["personal"] * 3 + ["popular-city"] * 28 + ["popular"] * 19
    for item in document["items"][3:]:
        code = {"popular-city": "popular-in-city", "popular": "popular"}[item["source"]]
        assert item["reason"] == {"code": code, "restaurant_ids": []}


@pytest.mark.parametrize(
    ("user_id", "code"),
    [(PREFERENCES, "preference"), (CITY_ONLY, "popular-in-city"), (UNKNOWN, "popular")],
)
async def test_reasons_of_users_without_orders(api: Api, user_id: int, code: str) -> None:
    item = (await detailed(api, user_id, limit=1))["items"][0]
    assert item["reason"] == {"code": code, "restaurant_ids": []}


async def test_similar_to_names_at_most_three_that_were_ordered(
    settings: Settings, store: SnapshotStore
) -> None:
    ordered = range(1, 8)
    user = UserSpec("personal", for_you=(9, 8), discover=(9, 8), order_again=tuple(ordered))
    spec = SnapshotSpec(
        restaurants=dict.fromkeys(range(1, 10)),
        users={5: user},
        similar={own: (9,) for own in ordered if own != 2},
    )
    manifest = publish_snapshot(store, spec)
    async with running(settings) as api:
        await api.serves(manifest.version)
        items = (await detailed(api, 5, list="discover"))["items"]
    assert items[0]["reason"] == {"code": "similar-to", "restaurant_ids": [1, 3, 4]}
    assert items[1]["reason"] == {"code": "popular", "restaurant_ids": []}


async def test_similar_to_is_looked_for_in_both_directions(
    settings: Settings, store: SnapshotStore
) -> None:
    user = UserSpec("personal", for_you=(8, 9), discover=(8, 9), order_again=(3, 1, 2))
    spec = SnapshotSpec(
        restaurants=dict.fromkeys(range(1, 10)),
        users={5: user},
        similar={8: (1, 7, 3), 2: (8,), 9: (7,)},
    )
    manifest = publish_snapshot(store, spec)
    async with running(settings) as api:
        await api.serves(manifest.version)
        items = (await detailed(api, 5, list="discover", limit=2))["items"]
    assert items[0]["reason"] == {"code": "similar-to", "restaurant_ids": [3, 1, 2]}
    assert items[1]["reason"] == {"code": "popular", "restaurant_ids": []}


async def test_what_leads_the_new_ones_and_no_popular_list_is_new(
    settings: Settings, store: SnapshotStore
) -> None:
    chosen = (6, 12, 3, 9, 5)
    user = UserSpec("personal", "Lima", for_you=chosen, discover=chosen)
    spec = SnapshotSpec(
        restaurants={i: "Lima" if i <= 6 else "Cusco" for i in range(1, 13)},
        users={5: user},
        popular=(1, 2, 3, 7, 8, 9, 4, 5, 6, 10, 11, 12),
        new=(12, 6, 11, 10, 1, 2, 3, 4, 5, 7, 8, 9),
    )
    manifest = publish_snapshot(store, spec)
    async with running(settings) as api:
        await api.serves(manifest.version)
        items = (await detailed(api, 5, limit=5))["items"]
    assert {item["id"]: item["reason"]["code"] for item in items} == {
        6: "new",
        12: "new",
        3: "popular-in-city",
        9: "popular",
        5: "popular-in-city",  # leads no list: the weakest that is true
    }
    assert all(item["reason"]["restaurant_ids"] == [] for item in items)


async def test_names_with_every_kind_of_character_stay_whole(
    settings: Settings, store: SnapshotStore
) -> None:
    name = 'Zoë\'s "Ramen" <script>alert(1)</script> 拉麺 \\ \u2028 {],"id":1'
    spec = SnapshotSpec(restaurants={1: None, 2: None}, names={1: name})
    manifest = publish_snapshot(store, spec)
    async with running(settings) as api:
        await api.serves(manifest.version)
        items = (await detailed(api, 5))["items"]
    assert [item["restaurant"]["name"] for item in items] == [name, "Restaurant 2"]


async def test_ids_beyond_2_53_keep_their_digits(api: Api) -> None:
    response = await api.client.get(PATH + "?limit=1", headers=api.as_user(PERSONAL))
    assert response.text.count(f'"id":{BEYOND_JAVASCRIPT}') == 2
    assert OSAKA[0] not in [item["id"] for item in response.json()["items"]]


async def test_is_private_and_validated_like_the_ids(api: Api) -> None:
    whole = await api.client.get(PATH, headers=api.as_user(SHORT))
    assert whole.headers["cache-control"] == "private, no-cache"
    assert whole.headers["etag"].endswith('.0.detailed"')
    again = await api.client.get(
        PATH, headers={**api.as_user(SHORT), "If-None-Match": whole.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
