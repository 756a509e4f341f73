"""Settings -> the snapshot store and the overlay they ask for. Nothing is opened yet."""

from shared.settings import Settings
from shared.snapshot.overlay import OverlayWriter
from shared.snapshot.store import SnapshotStore


def open_store(settings: Settings) -> SnapshotStore:
    if settings.redis_url is not None:
        from shared.snapshot.redis_store import RedisStore

        return RedisStore(settings.redis_url, namespace=settings.namespace)
    from shared.snapshot.disk_store import DiskStore

    return DiskStore(settings.store_dir, namespace=settings.namespace)


def open_overlay(settings: Settings) -> OverlayWriter:
    if settings.redis_url is not None:
        from shared.snapshot.redis_overlay import RedisOverlay

        return RedisOverlay(settings.redis_url, namespace=settings.namespace)
    from shared.snapshot.disk_overlay import DiskOverlay

    return DiskOverlay(settings.store_dir, namespace=settings.namespace)
