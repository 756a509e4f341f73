"""Settings -> the snapshot store they ask for. Nothing is connected or opened yet."""

from shared.settings import Settings
from shared.snapshot.store import SnapshotStore


def open_store(settings: Settings) -> SnapshotStore:
    if settings.redis_url is not None:
        from shared.snapshot.redis_store import RedisStore

        return RedisStore(settings.redis_url, namespace=settings.namespace)
    from shared.snapshot.disk_store import DiskStore

    return DiskStore(settings.store_dir, namespace=settings.namespace)
