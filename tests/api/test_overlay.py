"""Lists obey what changed since the snapshot: new lists, hidden and closed restaurants, erasure."""

from __future__ import annotations

import random
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import pytest

from shared.settings import Settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.overlay import EXCLUSIONS, UserExclusion, encode_exclusion, user_key
from shared.snapshot.store import SnapshotStore
from tests.api.overlays import Teller, teller_of, until
from tests.api.running import (
    CITY_ONLY,
    OAXACA,
    OSAKA,
    PERSONAL,
    POPULAR,
    PREFERENCES,
    SHORT,
    SPEC,
    UNKNOWN,
    Api,
    running,
)
from tests.api.shop import CENTRES, CUISINES, made_shop, whole_list
from tests.conformance.overlay_engines import DiskOverlayEngine
from tests.services.snapshots import UserSpec, publish_snapshot

LISTS = ("for_you", "discover", "order_again")
ERASED = b'{"form":1,"revision":1,"erased":true,"hidden":[]}'


@pytest.fixture
def manifest(api: Api) -> Manifest:
    return api.resources.snapshots.require_active().manifest


async def asked(api: Api, user_id: int, query: str = "", form: str = "") -> Any:
    url = f"/api/users/{user_id}/recommendations{form}?{query}"
    response = await api.client.get(url, headers=api.as_service)
    assert response.status_code == 200, response.text
    return response.json()


async def tag(api: Api, user_id: int, query: str = "", form: str = "") -> str:
    url = f"/api/users/{user_id}/recommendations{form}?{query}"
    found: str = (await api.client.get(url, headers=api.as_service)).headers["etag"]
    return found


async def pages(api: Api, user_id: int, query: str, *, most: int = 200) -> list[int]:
    """The list to its end, following links."""
    found: list[int] = []
    url = f"/api/users/{user_id}/recommendations?{query}"
    for _ in range(most):
        response = await api.client.get(url, headers=api.as_service)
        assert response.status_code == 200, response.text
        found += response.json()
        if "next" not in response.links:
            return found
        url = response.links["next"]["url"]
    raise AssertionError("the list does not end")


def _flat(pairs: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [
        (key, str(each))
        for key, value in pairs
        for each in (value if isinstance(value, list) else [value])
    ]


def known(api: Api, user_id: int, manifest: Manifest, revision: int) -> bool:
    snapshot = api.resources.snapshots.require_active()
    assert snapshot.version == manifest.version
    return api.resources.overlay.of_user(snapshot, user_id).revision == revision


def hidden(api: Api, user_id: int) -> frozenset[int]:
    snapshot = api.resources.snapshots.require_active()
    return api.resources.overlay.of_user(snapshot, user_id).hidden


# --- lists that the worker made anew ----------------------------------------------------------


async def test_new_lists_stand_in_the_place_of_the_snapshots(
    api: Api, teller: Teller, manifest: Manifest
) -> None:
    user = UserSpec(
        "personal", "Oaxaca", for_you=(102, 103), discover=(104,), order_again=(103, 106)
    )
    users = (PERSONAL, PREFERENCES, UNKNOWN)
    before = {user_id: await tag(api, user_id, "limit=1") for user_id in users}
    for user_id in users:
        teller.lists(manifest, SPEC, user_id, user, revision=7)
    await until(lambda: all(known(api, user_id, manifest, 7) for user_id in users))
    for user_id in users:
        assert (await asked(api, user_id, "limit=4"))[:2] == [102, 103]
        assert await asked(api, user_id, "list=order_again") == [103, 106]
        discovered = await asked(api, user_id, "list=discover&limit=50")
        assert discovered[0] == 104
        assert not {103, 106} & {*discovered}
        assert set(discovered[1:29]) == {*OAXACA} - {104, 106}
        response = await api.client.get(
            "/api/recommendations?limit=1", headers=api.as_user(user_id)
        )
        assert response.headers["x-recommendation-source"] == "personal"
        assert f".{manifest.version}.7-" in response.headers["etag"]
        assert response.headers["etag"] != before[user_id]
    # Nobody else is concerned.
    assert await asked(api, SHORT, "limit=3") == [105, 102, 107]


async def test_the_newest_revision_counts_in_whatever_order_records_come(
    api: Api, teller: Teller, manifest: Manifest
) -> None:
    first, second = (
        UserSpec("personal", "Osaka", for_you=(each,), order_again=(each,)) for each in (109, 111)
    )
    teller.lists(manifest, SPEC, PERSONAL, second, revision=9)
    await until(lambda: known(api, PERSONAL, manifest, 9))
    teller.lists(manifest, SPEC, PERSONAL, first, revision=8)  # a worker that was stopped
    teller.lists(manifest, SPEC, SHORT, first, revision=1)
    await until(lambda: known(api, SHORT, manifest, 1))
    assert await asked(api, PERSONAL, "list=order_again") == [111]


async def test_records_that_are_not_of_the_version_are_not_served(
    api: Api, teller: Teller, manifest: Manifest
) -> None:
    good = UserSpec("personal", "Osaka", for_you=(109,), order_again=(109,))
    larger = replace(SPEC, restaurants={**SPEC.restaurants, 2**53 + 5: "Zagreb"})
    foreign = replace(good, for_you=(2**53 + 5,))
    before = {user_id: await asked(api, user_id) for user_id in (PERSONAL, SHORT, CITY_ONLY)}
    teller.writer.append(
        manifest.version,
        {
            f"u{PERSONAL}": b"\xff" * 100,
            f"u{SHORT}": b"TMO1" + bytes(12) + b"\x05\x00",
            f"r{101}": b"x",
            "w7": b"x",
            "u00000000000000000000001": b"x",
            f"u{2**63}": b"x",
        },
    )
    teller.lists(manifest, larger, CITY_ONLY, foreign, revision=3)
    teller.lists(manifest, larger, PREFERENCES, replace(good, city="Zagreb"), revision=3)
    teller.writer.append("exclusions", {f"u{SHORT}": b'{"form":2}', "r101": b"[]", "q": b""})
    teller.lists(manifest, SPEC, UNKNOWN, good, revision=3)
    await until(lambda: known(api, UNKNOWN, manifest, 3))
    for user_id, ids in before.items():
        assert await asked(api, user_id) == ids
    teller.hides(UNKNOWN, [109], 4)
    await until(lambda: hidden(api, UNKNOWN))
    assert 109 not in await asked(api, UNKNOWN)
    assert 101 in await asked(api, UNKNOWN, "limit=50")


async def test_a_damaged_record_does_not_hold_up_what_comes_behind_it(
    api: Api, teller: Teller, settings: Settings
) -> None:
    engine = DiskOverlayEngine(settings.store_dir)
    with teller_of(settings) as quiet:
        quiet.writer.append("exclusions", {f"u{number}": ERASED for number in range(50)})
        for key in ("u7", "u8", "u30"):
            engine.overwrite("exclusions", key, b"damaged")
        quiet.hides(SHORT, [105], 1)
    await until(lambda: hidden(api, SHORT) == {105})


# --- what must not be shown -------------------------------------------------------------------


async def test_hidden_restaurants_are_in_no_list_whatever_the_filter_and_on_no_page(
    settings: Settings, store: SnapshotStore, teller: Teller
) -> None:
    """Against lists that are worked out without any of the product's shortcuts."""
    shop, chance = made_shop(), random.Random(5)
    publish_snapshot(store, shop)
    latitude, longitude = CENTRES["Osaka"]
    queries: list[dict[str, Any]] = [
        {},
        {"cuisine": ["bar", "tacos"]},
        {"city": ["osaka"]},
        {"price_range": [2, 3]},
        {"near": f"{latitude},{longitude}", "radius_km": 20},
        {"exclude": ",".join(map(str, list(shop.restaurants)[:50]))},
        {"cuisine": [CUISINES[0]], "city": ["Oaxaca"], "price_range": [1]},
    ]
    async with running(settings) as api:
        await until(lambda: api.resources.snapshots.active)
        users = chance.sample(list(shop.users), 6)
        hides = {}
        for number, user_id in enumerate(users):
            own = list(shop.users[user_id].for_you)
            hides[user_id] = {*chance.sample(list(shop.restaurants), 40), *own[:3]}
            if number % 2:
                api.resources.overlay.note_hidden(user_id, hides[user_id], 1)
            else:
                teller.hides(user_id, sorted(hides[user_id]), 1)
        await until(lambda: all(hidden(api, each) == hides[each] for each in users))
        closed = set(chance.sample(list(shop.restaurants), 10))
        api.resources.overlay.note_activity((each, True, 1) for each in closed)
        for user_id in users:
            for filters in queries:
                for name in LISTS:
                    expected = [
                        each
                        for each in whole_list(shop, user_id, name, filters)
                        if each not in hides[user_id] | closed
                    ]
                    pairs = [(key, filters[key]) for key in filters]
                    query = str(httpx.QueryParams([("list", name), ("limit", "37"), *_flat(pairs)]))
                    assert await pages(api, user_id, query) == expected


async def test_a_closed_restaurant_is_in_no_answer(
    api: Api, teller: Teller, manifest: Manifest
) -> None:
    """105 is in the lists of PERSONAL, is ordered by SHORT, and 102 is similar to it."""
    paths = [
        f"/api/users/{user_id}/recommendations{form}?list={name}&limit=50"
        for user_id in (PERSONAL, SHORT, UNKNOWN)
        for form in ("", "/detailed")
        for name in LISTS
    ]
    paths += ["/api/lists/popular?limit=50", "/api/lists/new?limit=50&city=Osaka"]
    paths += ["/api/lists/trending?limit=50&cuisine=ramen", "/api/restaurants/101/similar"]
    paths += ["/api/restaurants/metadata", "/api/restaurants/metadata?ids=105,102,103"]

    async def answers() -> dict[str, tuple[bytes, str]]:
        found = {}
        for path in paths:
            response = await api.client.get(path, headers=api.as_service)
            assert response.status_code == 200
            found[path] = response.content, response.headers["etag"]
        return found

    before = await answers()
    assert any(b"102" in body for body, _ in before.values())
    teller.closed(102, 105, 999)
    snapshot = api.resources.snapshots.require_active()
    await until(lambda: len(snapshot.shown.gone) == 2)
    during = await answers()
    for path, (body, etag) in during.items():
        assert not re.search(rb"\b(102|105)\b", body.split(b"restaurant/")[0]), path
        assert etag != before[path][1]
        assert len(body) <= len(before[path][0])
    for restaurant_id in (102, 105):
        similar = await api.client.get(f"/api/restaurants/{restaurant_id}/similar")
        assert similar.status_code == 404
    teller.opened(102, 105)
    await until(lambda: not snapshot.shown.gone)
    after = await answers()
    assert after == before
    assert (await api.client.get("/api/restaurants/105/similar")).json() == [102, 103]


async def test_an_erased_user_is_an_unknown_user(
    api: Api, teller: Teller, manifest: Manifest
) -> None:
    lists = SPEC.users[PERSONAL]
    teller.lists(manifest, SPEC, SHORT, lists, revision=3)
    await until(lambda: known(api, SHORT, manifest, 3))
    tags = {user_id: await tag(api, user_id) for user_id in (PERSONAL, SHORT)}
    teller.erased(SHORT, 4)
    api.resources.overlay.note_order(PERSONAL, 101, 8)
    api.resources.overlay.note_hidden(PERSONAL, [102], 9)
    api.resources.overlay.note_erased(PERSONAL, 10)
    snapshot = api.resources.snapshots.require_active()
    await until(lambda: api.resources.overlay.of_user(snapshot, SHORT).is_erased)
    for user_id in (PERSONAL, SHORT):
        for name in LISTS:
            for form in ("", "/detailed"):
                query = f"list={name}&limit=50"
                found = await asked(api, user_id, query, form)
                unknown = await asked(api, UNKNOWN, query, form)
                if form:
                    found.pop("next_cursor"), unknown.pop("next_cursor")
                assert found == unknown
        assert await tag(api, user_id) != tags[user_id]
        response = await api.client.get("/api/recommendations", headers=api.as_user(user_id))
        assert response.headers["x-recommendation-source"] == "popular"
    # Who comes back has what came since, and nothing from before.
    teller.lists(manifest, SPEC, SHORT, UserSpec("personal", for_you=(107,), order_again=(107,)), 5)
    await until(lambda: known(api, SHORT, manifest, 5))
    assert await asked(api, SHORT, "list=order_again") == [107]


async def test_what_a_snapshot_holds_of_an_erased_user_stays_void_when_the_id_comes_back(
    api: Api, store: SnapshotStore, teller: Teller
) -> None:
    """Until a snapshot that was made after the erasure is served."""
    erased_at = int(time.time())
    before = await asked(api, SHORT, "limit=3")
    back = UserExclusion(5, False, frozenset(), erased_at)
    teller.writer.append(EXCLUSIONS, {user_key(SHORT): encode_exclusion(back)})
    snapshot = api.resources.snapshots.require_active()
    await until(lambda: api.resources.overlay.of_user(snapshot, SHORT).is_erased)
    assert await asked(api, SHORT, "limit=3") == await asked(api, UNKNOWN, "limit=3") != before
    for since, shown in ((erased_at, UNKNOWN), (erased_at + 1, SHORT)):
        instant = datetime.fromtimestamp(since, UTC)
        made = publish_snapshot(
            store, SPEC, change_manifest=partial(replace, changes_since=instant)
        )
        await api.serves(made.version)
        expected = before if shown == SHORT else await asked(api, shown, "limit=3")
        assert await asked(api, SHORT, "limit=3") == expected


# --- what this process took itself ------------------------------------------------------------


async def test_a_new_order_is_in_the_lists_at_once_until_the_worker_tells(
    api: Api, teller: Teller, manifest: Manifest
) -> None:
    overlay = api.resources.overlay
    for_you = await asked(api, PERSONAL, "limit=50")
    assert OAXACA[0] in await asked(api, PERSONAL, "list=discover&limit=50")
    for revision, restaurant_id in enumerate((OAXACA[0], OSAKA[2], OAXACA[1]), 5):
        overlay.note_order(PERSONAL, restaurant_id, revision)
    again = [OAXACA[1], OSAKA[2], OAXACA[0], *OSAKA[:2]]
    assert await asked(api, PERSONAL, "list=order_again") == again
    assert not {*OAXACA[:2]} & {*await pages(api, PERSONAL, "list=discover&limit=50")}
    assert await asked(api, PERSONAL, "limit=50") == for_you
    for limit in (1, 2, 4):
        assert await pages(api, PERSONAL, f"list=order_again&limit={limit}") == again
        detailed = await asked(api, PERSONAL, f"list=order_again&limit={limit}", "/detailed")
        assert [item["reason"]["code"] for item in detailed["items"]] == ["ordered-before"] * limit
    assert await asked(api, PERSONAL, "list=order_again&city=oaxaca") == [OAXACA[1], OAXACA[0]]
    # Records of earlier writes change nothing of that.
    user = SPEC.users[PERSONAL]
    teller.lists(manifest, SPEC, PERSONAL, user, revision=6)
    await until(lambda: known(api, PERSONAL, manifest, 6))
    assert await asked(api, PERSONAL, "list=order_again") == again
    user = replace(user, order_again=(OAXACA[1], *OSAKA[:3]))
    teller.lists(manifest, SPEC, PERSONAL, user, revision=7)
    await until(lambda: known(api, PERSONAL, manifest, 7))
    assert await asked(api, PERSONAL, "list=order_again") == [OAXACA[1], *OSAKA[:3]]
    await until(lambda: not overlay.notes.users)


async def test_a_first_order_of_somebody_the_snapshot_does_not_know(api: Api) -> None:
    api.resources.overlay.note_orders([(UNKNOWN, 101, 1), (UNKNOWN, 424_242, 2)])
    response = await api.client.get(
        "/api/recommendations?list=order_again", headers=api.as_user(UNKNOWN)
    )
    assert response.json() == [101]
    assert response.headers["x-recommendation-source"] == "personal"
    assert 101 not in await pages(api, UNKNOWN, "list=discover&limit=50")
    assert (await asked(api, UNKNOWN, "limit=50")) == list(POPULAR[:50])


async def test_notes_hold_until_a_record_of_their_revision_or_a_later_one(
    api: Api, teller: Teller
) -> None:
    overlay = api.resources.overlay
    overlay.note_hidden(SHORT, [105, 102], 6)
    teller.hides(SHORT, [107], 5)  # told of an earlier write
    teller.hides(PERSONAL, [OSAKA[0]], 1)
    await until(lambda: hidden(api, PERSONAL) == {OSAKA[0]})
    assert hidden(api, SHORT) == {102, 105}
    overlay.note_hidden(SHORT, [], 7)  # takes back all of it
    assert (await asked(api, SHORT, "limit=3")) == [105, 102, 107]
    teller.hides(SHORT, [109], 8)  # through another replica
    await until(lambda: hidden(api, SHORT) == {109})
    assert SHORT not in overlay.notes.users
    overlay.note_activity([(105, True, 3)])
    assert 105 not in await asked(api, SHORT)
    overlay.note_activity([(105, False, 4)])
    assert 105 in await asked(api, SHORT)
    teller.closed(105, revision=5)
    await until(lambda: overlay.inactive == {105})
    assert 105 not in await asked(api, SHORT)
    assert not overlay.notes.count
