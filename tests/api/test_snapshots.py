"""Snapshots over HTTP: the list, rolling back and forward, the pin, and what outages do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from shared.db.engine import sync_engine
from shared.db.models import Audit
from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest
from tests.api.running import PERSONAL, Api, running
from tests.services.redis import RedisServer
from tests.services.versions import damage, pointed_to, publish_versions

ABSENT = "20261125T100000000000Z-0000"  # fixed: it is part of test names


@pytest.fixture(params=["disk", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, sqlite_url: str) -> Settings:
    variables = {"TASTEMATCH_DATA_DIR": str(tmp_path / "data"), "DATABASE_URL": sqlite_url}
    if request.param == "redis":
        variables["REDIS_URL"] = request.getfixturevalue("redis_url")
    return load_settings(variables)


@pytest.fixture
def versions(settings: Settings) -> list[Manifest]:
    """Three versions, oldest first; the last is active."""
    return publish_versions(settings, 3)


@pytest.fixture
async def api(settings: Settings, versions: list[Manifest]) -> AsyncIterator[Api]:
    async with running(settings) as started:
        await started.serves(versions[-1].version)
        yield started


async def activate(
    api: Api, version: str, body: str | None = None
) -> tuple[int, dict[str, object]]:
    answer = await api.client.post(
        f"/api/snapshots/{version}/activate",
        headers=api.as_service | {"Content-Type": "application/json"},
        content=body,
    )
    return answer.status_code, answer.json()


async def test_the_list_holds_manifests_with_the_newest_first(
    api: Api, versions: list[Manifest]
) -> None:
    for headers in (api.as_service, api.as_viewer):
        answer = await api.client.get("/api/snapshots", headers=headers)
        assert answer.status_code == 200
        document = answer.json()
        assert set(document) == {"items", "next_cursor", "active", "pinned"}
        assert (document["active"], document["pinned"]) == (versions[-1].version, False)
        assert document["next_cursor"] is None
        assert [(item["version"], item["state"]) for item in document["items"]] == [
            (versions[2].version, "active"),
            (versions[1].version, "kept"),
            (versions[0].version, "kept"),
        ]
        newest = dict(document["items"][0])
        assert (newest.pop("state"), newest.pop("pinned")) == ("active", False)
        assert newest == json.loads(json.dumps(versions[2].as_dict()))


async def test_an_empty_store_is_an_empty_list(empty_api: Api) -> None:
    answer = await empty_api.client.get("/api/snapshots", headers=empty_api.as_viewer)

    assert answer.json() == {"items": [], "next_cursor": None, "active": None, "pinned": False}


async def test_rolling_back_and_forward_changes_what_is_served(
    api: Api, settings: Settings, versions: list[Manifest]
) -> None:
    for manifest in (versions[0], versions[2], versions[1]):
        assert await activate(api, manifest.version) == (
            200,
            {"active": manifest.version, "pinned": False},
        )
        assert pointed_to(settings) == (manifest.version, False)
        await api.serves(manifest.version)
        served = await api.client.get("/api/lists/popular")
        assert served.headers["x-snapshot-version"] == manifest.version


@pytest.mark.parametrize("body", [None, "", "{}", '{"pin":false}', ' {"pin" : false}\n'])
async def test_without_a_pin_the_pin_stays_as_it_is(
    api: Api, versions: list[Manifest], body: str | None
) -> None:
    version = versions[0].version
    assert await activate(api, version, body) == (200, {"active": version, "pinned": False})
    await activate(api, version, '{"pin":true}')
    assert await activate(api, version, body) == (200, {"active": version, "pinned": True})


async def test_a_pin_holds_new_snapshots_until_it_is_taken_off(
    api: Api, settings: Settings, versions: list[Manifest]
) -> None:
    pinned = versions[1].version
    assert await activate(api, pinned, '{"pin":true}') == (200, {"active": pinned, "pinned": True})

    (held,) = publish_versions(settings, 1)

    listed = (await api.client.get("/api/snapshots", headers=api.as_viewer)).json()
    states = {item["version"]: item["state"] for item in listed["items"]}
    assert (listed["active"], listed["pinned"]) == (pinned, True)
    assert states[held.version] == "held"
    assert [item["version"] for item in listed["items"] if item["pinned"]] == [pinned]

    answer = await api.client.post("/api/snapshots/unpin", headers=api.as_service)
    assert (answer.status_code, answer.json()) == (200, {"active": pinned, "pinned": False})
    (activated,) = publish_versions(settings, 1)
    assert pointed_to(settings) == (activated.version, False)


@pytest.mark.parametrize(
    "version", [ABSENT, "x", "latest", "%00", "..%2f..%2fetc", ABSENT + "x", "%D9%A3", "a" * 9000]
)
async def test_a_version_that_is_not_there_is_not_found(
    api: Api, settings: Settings, versions: list[Manifest], version: str
) -> None:
    status, problem = await activate(api, version)

    assert status == 404
    assert problem["type"]
    assert pointed_to(settings) == (versions[-1].version, False)


async def test_a_damaged_version_is_a_conflict_and_changes_nothing(
    api: Api, settings: Settings, versions: list[Manifest]
) -> None:
    damage(settings, versions[0].version)

    status, problem = await activate(api, versions[0].version, '{"pin":true}')

    assert (status, problem["code"]) == (409, "snapshot-damaged")
    assert pointed_to(settings) == (versions[-1].version, False)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ('{"pin":1}', "application/json", 422),
        ('{"pin":"true"}', "application/json", 422),
        ('{"pin":null}', "application/json", 422),
        ('{"pin":true,"force":true}', "application/json", 422),
        ('{"pin":true,"pin":false}', "application/json", 400),
        ("[]", "application/json", 400),
        ("true", "application/json", 400),
        ("null", "application/json", 400),
        ("{", "application/json", 400),
        ('{"pin":NaN}', "application/json", 400),
        ('{"pin":' + "9" * 5000 + "}", "application/json", 400),
        ("[" * 60_000, "application/json", 400),
        ('{"a":' * 10_000, "application/json", 400),
        ("\ufeff{}", "application/json", 400),
        ('{"pin":true}', "text/plain", 400),
        ('{"pin":true}', "application/x-www-form-urlencoded", 400),
        ("x" * 70_000, "application/json", 413),
    ],
)
async def test_a_body_that_is_not_as_declared_changes_nothing(
    api: Api,
    settings: Settings,
    versions: list[Manifest],
    body: str,
    content_type: str,
    status: int,
) -> None:
    answer = await api.client.post(
        f"/api/snapshots/{versions[0].version}/activate",
        headers=api.as_service | {"Content-Type": content_type},
        content=body.encode(),
    )

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointed_to(settings) == (versions[-1].version, False)


async def test_a_body_in_utf_16_is_refused(api: Api, versions: list[Manifest]) -> None:
    answer = await api.client.post(
        f"/api/snapshots/{versions[0].version}/activate",
        headers=api.as_service | {"Content-Type": "application/json; charset=utf-16"},
        content='{"pin":true}'.encode("utf-16"),
    )

    assert answer.status_code == 400


async def test_who_may_do_what(api: Api, settings: Settings, versions: list[Manifest]) -> None:
    user, none = api.as_user(PERSONAL), {}
    changing = [f"/api/snapshots/{versions[0].version}/activate", "/api/snapshots/unpin"]
    for path in changing:
        for headers, status in ((api.as_viewer, 403), (user, 403), (none, 401)):
            answer = await api.client.post(path, headers=headers)
            assert answer.status_code == status
    for headers, status in ((user, 403), (none, 401)):
        answer = await api.client.get("/api/snapshots", headers=headers)
        assert answer.status_code == status
    for path in ("/api/snapshots?x=1", "/api/snapshots?limit=5"):
        assert (await api.client.get(path, headers=api.as_service)).status_code == 422
    for path in changing:
        assert (
            await api.client.post(f"{path}?pin=true", headers=api.as_service)
        ).status_code == 422
    assert pointed_to(settings) == (versions[-1].version, False)


async def test_what_was_done_stands_in_the_audit_table(
    api: Api, settings: Settings, versions: list[Manifest]
) -> None:
    version = versions[0].version
    await activate(api, version, '{"pin":true}')
    await api.client.post("/api/snapshots/unpin", headers=api.as_service)
    await activate(api, ABSENT)
    await api.client.get("/api/snapshots", headers=api.as_viewer)

    engine = sync_engine(settings)
    with engine.connect() as connection:
        rows = connection.execute(
            select(Audit.actor, Audit.action, Audit.subject, Audit.detail).order_by(Audit.id)
        ).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [
        ("service", "snapshot.activate", version, {"pin": True}),
        ("service", "snapshots.unpin", version, {}),
    ]


async def test_a_rollback_does_not_wait_for_a_database(
    tmp_path: Path, redis_url: str, free_port: int
) -> None:
    settings = load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(tmp_path),
            "REDIS_URL": redis_url,
            "DATABASE_URL": f"postgres://u@127.0.0.1:{free_port}/shop",
        }
    )
    old, _ = publish_versions(settings, 2)
    async with running(settings) as api:
        assert (await activate(api, old.version))[0] == 200
        assert pointed_to(settings) == (old.version, False)


@pytest.mark.parametrize("state", ["closed", "frozen"])
async def test_a_store_out_of_reach_is_503_and_reads_go_on(
    tmp_path: Path, sqlite_url: str, private_redis: Callable[..., RedisServer], state: str
) -> None:
    server = private_redis()
    settings = load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(tmp_path),
            "DATABASE_URL": sqlite_url,
            "REDIS_URL": server.url(),
        }
    )
    old, new = publish_versions(settings, 2)
    async with running(settings) as api:
        await api.serves(new.version)
        (server.kill if state == "closed" else server.pause)()

        async def refused(method: str, path: str) -> None:
            answer = await api.client.request(method, path, headers=api.as_service)
            assert (answer.status_code, answer.json()["code"]) == (503, "store-unavailable")
            assert int(answer.headers["retry-after"]) > 0

        async with asyncio.timeout(15):
            await asyncio.gather(
                *(refused("GET", "/api/snapshots") for _ in range(10)),
                refused("POST", f"/api/snapshots/{old.version}/activate"),
                refused("POST", "/api/snapshots/unpin"),
            )
        served = await api.client.get("/api/lists/popular")
        assert served.headers["x-snapshot-version"] == new.version
