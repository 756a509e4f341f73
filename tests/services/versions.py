"""Published versions for tests that care for which there are, not for what is in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared.settings import Settings
from shared.snapshot.layout import Keys
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_store
from tests.services.snapshots import SnapshotSpec, publish_snapshot

FIRST = datetime(2026, 11, 25, 10, tzinfo=UTC)
SPEC = SnapshotSpec(restaurants=dict.fromkeys(range(1, 7), "Leipzig"))


def publish_versions(settings: Settings, count: int, *, activate: bool = True) -> list[Manifest]:
    """Publishes that many versions, created an hour apart, and returns them oldest first."""
    store = open_store(settings)
    try:
        return [
            publish_snapshot(
                store, SPEC, created_at=FIRST + timedelta(hours=number), activate=activate
            )
            for number in range(count)
        ]
    finally:
        store.close()


def pointed_to(settings: Settings) -> tuple[str | None, bool]:
    """The version that is active in the store, and whether it is pinned."""
    store = open_store(settings)
    try:
        pointer = store.pointer()
        return pointer.version, pointer.is_pinned
    finally:
        store.close()


def damage(settings: Settings, version: str, *, part: str = "metadata") -> None:
    """Changes one byte of a stored chunk."""
    key = Keys(settings.namespace).chunk(version, part, 0)
    if settings.redis_url is not None:
        from redis import Redis

        with Redis.from_url(settings.redis_url) as client:
            assert client.exists(key)
            client.setrange(key, 7, b"!")
        return
    from shared.snapshot.disk_cache import open_cache

    with open_cache(settings.store_dir) as cache:
        chunk = cache.get(key)
        cache.set(key, chunk[:7] + b"!" + chunk[8:])
