"""Replicas with disks of their own follow the overlay in Redis, whatever that holds or loses."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from redis import Redis

from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_store
from shared.snapshot.overlay import EXCLUSIONS
from shared.snapshot.redis_overlay import OverlayKeys
from tests.api.overlays import Teller, teller_of, until
from tests.api.running import OSAKA, PERSONAL, SHORT, SPEC, Api, running
from tests.services.snapshots import UserSpec, publish_snapshot

LARGE_BYTES = 24 * 1024**2
LISTS = ("for_you", "discover", "order_again")
CLOSED = OSAKA[5]


def settings_of(folder: Path, redis_url: str) -> Settings:
    return load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(folder),
            "DATABASE_URL": f"sqlite:///{folder}/shop.db",
            "REDIS_URL": redis_url,
            "TASTEMATCH_SERVICE_TOKEN": "s" * 40,
            "TASTEMATCH_JWT_SECRET": "j" * 40,
        }
    )


class Shop:
    def __init__(self, manifest: Manifest, replicas: list[Api], teller: Teller) -> None:
        self.manifest = manifest
        self.replicas = replicas
        self.teller = teller

    async def tell(self, revision: int) -> None:
        """Lists of one user, what another hides, a restaurant that closed."""
        lists = UserSpec(
            "personal", "Osaka", for_you=OSAKA[:revision], order_again=OSAKA[:revision]
        )
        self.teller.lists(self.manifest, SPEC, SHORT, lists, revision)
        self.teller.hides(PERSONAL, OSAKA[:revision], revision)
        self.teller.closed(CLOSED, revision=revision)
        await until(lambda: all(self.knows(each, revision) for each in self.replicas))

    def knows(self, api: Api, revision: int) -> bool:
        snapshot = api.resources.snapshots.require_active()
        overlay = api.resources.overlay
        hidden = overlay.of_user(snapshot, PERSONAL).hidden
        lists = overlay.of_user(snapshot, SHORT).revision
        is_told = lists == revision and hidden == {*OSAKA[:revision]}
        return is_told and bool(snapshot.shown.gone)

    async def answers(self, api: Api) -> list[tuple[str, bytes]]:
        urls = [
            f"/api/users/{user_id}/recommendations?list={name}&limit=50"
            for user_id in (SHORT, PERSONAL)
            for name in LISTS
        ]
        found = []
        for url in [*urls, "/api/restaurants/metadata", "/api/lists/popular?limit=50"]:
            response = await api.client.get(url, headers=api.as_service)
            assert response.status_code == 200
            found.append((response.headers["etag"], response.content))
        return found


@pytest.fixture
async def shop(tmp_path: Path, redis_url: str) -> AsyncIterator[Shop]:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    settings = [settings_of(folder, redis_url) for folder in folders]
    async with AsyncExitStack() as stack:
        store = stack.enter_context(closing(open_store(settings[0])))
        manifest = publish_snapshot(store, SPEC)
        replicas = [await stack.enter_async_context(running(each)) for each in settings]
        await asyncio.gather(*(each.serves(manifest.version) for each in replicas))
        teller = stack.enter_context(teller_of(settings[0]))
        yield Shop(manifest, replicas, teller)


async def test_replicas_that_know_the_same_give_the_same(shop: Shop) -> None:
    one, other = shop.replicas
    for revision in (1, 2, 3):
        await shop.tell(revision)
        assert await shop.answers(one) == await shop.answers(other)


async def test_a_redis_that_comes_back_empty_is_followed_on(shop: Shop, redis_url: str) -> None:
    await shop.tell(2)
    before = [await shop.answers(each) for each in shop.replicas]
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    looks = [each.resources.overlay_follower for each in shop.replicas]
    read_at = [each.read_at for each in looks]
    await until(lambda: all(a.read_at > b for a, b in zip(looks, read_at, strict=True)))
    assert [await shop.answers(each) for each in shop.replicas] == before
    await shop.tell(3)
    assert await shop.answers(shop.replicas[0]) == await shop.answers(shop.replicas[1])


async def test_a_record_that_is_far_too_large_is_not_even_fetched(
    shop: Shop, redis_url: str
) -> None:
    await shop.tell(1)
    keys = OverlayKeys("tastematch")
    large = bytes(LARGE_BYTES)
    with Redis.from_url(redis_url) as client:
        for log in (EXCLUSIONS, shop.manifest.version):
            for number in (1, 2):
                place = float(client.zrange(keys.places(log), -1, -1, withscores=True)[0][1]) + 1
                client.zadd(keys.places(log), {f"u{number}": place})
                client.hset(keys.records(log), f"u{number}", large)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await shop.tell(2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < LARGE_BYTES / 1024 / 2
