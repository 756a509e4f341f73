"""The operator's look into one user, in the version that is served and in any other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from shared.db.engine import sync_engine
from shared.db.models import Order, Restaurant, User
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from tests.api.running import CITY_ONLY, OSAKA, PERSONAL, SHORT, SPEC, UNKNOWN, Api, running
from tests.services.snapshots import SnapshotSpec, UserSpec, publish_snapshot
from tests.services.versions import damage

EARLY = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORDERED = [OSAKA[0], OSAKA[2], OSAKA[0]]
HELD = SnapshotSpec(
    restaurants=dict.fromkeys(OSAKA, "Osaka"),
    users={SHORT: UserSpec("personal", "Osaka", for_you=(OSAKA[9],), order_again=(OSAKA[0],))},
)


@pytest.fixture(params=["disk", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, sqlite_url: str) -> Settings:
    variables = {"TASTEMATCH_DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": sqlite_url}
    if request.param == "redis":
        variables["REDIS_URL"] = request.getfixturevalue("redis_url")
    return load_settings(variables)


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    """A snapshot, and a user with three orders."""
    engine = sync_engine(settings)
    with engine.begin() as connection:
        connection.execute(insert(User), [{"id": SHORT}])
        connection.execute(
            insert(Restaurant), [{"id": each, "name": f"Restaurant {each}"} for each in OSAKA]
        )
        connection.execute(
            insert(Order),
            [
                {
                    "id": number,
                    "user_id": SHORT,
                    "restaurant_id": restaurant_id,
                    "order_date": EARLY + timedelta(days=number),
                    "total_amount": 12.5,
                    "rating": 4,
                }
                for number, restaurant_id in enumerate(ORDERED)
            ],
        )
    engine.dispose()
    store = open_store(settings)
    manifest = publish_snapshot(store, SPEC)
    store.close()
    async with running(settings) as started:
        await started.serves(manifest.version)
        yield started


async def explained(api: Api, user_id: int, **query: str | int) -> dict[str, Any]:
    answer = await api.client.get(
        f"/api/users/{user_id}/explain", params=query, headers=api.as_viewer
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    document: dict[str, Any] = answer.json()
    return document


async def test_it_shows_the_orders_and_each_list_with_its_reasons(api: Api) -> None:
    document = await explained(api, SHORT, limit=2)

    assert (document["city"], document["source"], document["is_known"]) == (
        "Osaka",
        "personal",
        True,
    )
    history = document["history"]
    assert [each["restaurant"]["id"] for each in history["items"]] == [OSAKA[0], OSAKA[2]]
    assert history["items"][0] == {
        "id": 2,
        "restaurant": {"id": 101, "name": "Restaurant 101", "image_url": None},
        "order_date": "2026-03-03T12:00:00Z",
        "total_amount": 12.5,
        "rating": 4,
    }
    assert history["has_more"]
    assert document["changes"] == {
        "revision": 0,
        "is_erased": False,
        "new_orders": [],
        "hidden": [],
    }
    for name, shown in document["lists"].items():
        query = {"list": name, "limit": 2}
        address = f"/api/users/{SHORT}/recommendations/detailed"
        answer = await api.client.get(address, params=query, headers=api.as_viewer)
        detailed = answer.json()
        for item in shown["items"]:
            reason = item["reason"]
            names = [f"Restaurant {each}" for each in reason["restaurant_ids"]]
            assert reason.pop("restaurant_names") == names
        assert shown["items"] == detailed["items"]
        assert shown["source"] == answer.headers["x-recommendation-source"]
        assert document["snapshot_version"] == detailed["snapshot_version"]
    assert list(document["lists"]) == ["for_you", "discover", "order_again"]


@pytest.mark.parametrize(("user_id", "known"), [(CITY_ONLY, True), (UNKNOWN, False)])
async def test_users_without_orders_have_no_history(api: Api, user_id: int, known: bool) -> None:
    document = await explained(api, user_id)

    assert document["history"] == {"items": [], "has_more": False}
    assert document["is_known"] == known
    assert document["lists"]["order_again"]["items"] == []
    assert len(document["lists"]["for_you"]["items"]) == 20


async def test_it_shows_what_holds_beside_the_snapshot(api: Api) -> None:
    api.resources.overlay.note_hidden(SHORT, [105], revision=1)

    document = await explained(api, SHORT)

    assert document["changes"]["hidden"] == [105]
    for shown in document["lists"].values():
        assert 105 not in [item["id"] for item in shown["items"]]


async def test_a_held_version_can_be_looked_into_before_it_is_activated(
    api: Api, settings: Settings
) -> None:
    store = open_store(settings)
    held = publish_snapshot(store, HELD, activate=False)
    broken = publish_snapshot(store, HELD, activate=False)
    damage(settings, broken.version)

    for _ in range(2):
        document = await explained(api, SHORT, version=held.version)
        assert document["snapshot_version"] == held.version
        assert document["lists"]["for_you"]["items"][0]["id"] == OSAKA[9]
        active = await explained(api, SHORT)
        assert active["lists"]["for_you"]["items"][0]["id"] == 105
    copies = [path.name for path in settings.snapshots_dir.rglob("20*")]
    assert copies == [active["snapshot_version"]]

    async def refused(version: str) -> tuple[int, str]:
        answer = await api.client.get(
            f"/api/users/{SHORT}/explain", params={"version": version}, headers=api.as_service
        )
        return answer.status_code, answer.json()["code"]

    assert await refused(broken.version) == (409, "snapshot-damaged")
    assert (await explained(api, SHORT, version=held.version))["snapshot_version"] == held.version
    for absent in ("20261125T100000000000Z-0000", "latest", "../../etc"):
        assert await refused(absent) == (404, "snapshot-not-found")
    store.prune(1)  # the active one, and the newest: that is the broken one
    store.close()
    assert await refused(held.version) == (404, "snapshot-not-found")


async def test_it_is_for_operators_alone(api: Api) -> None:
    address = f"/api/users/{PERSONAL}/explain"
    table = (
        (api.as_service, 200),
        (api.as_viewer, 200),
        (api.as_user(PERSONAL), 403),
        ({}, 401),
    )
    for headers, status in table:
        assert (await api.client.get(address, headers=headers)).status_code == status
    for query in ("limit=0", "limit=51", "version=", "list=discover"):
        answer = await api.client.get(f"{address}?{query}", headers=api.as_viewer)
        assert answer.status_code == 422
