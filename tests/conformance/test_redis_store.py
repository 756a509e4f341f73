"""The Redis store when Redis is full, frozen, dead, emptied, read-only, closed or evicting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from shared.errors import PublishSuperseded, StoreFull, StoreUnavailable
from shared.snapshot.layout import Keys
from shared.snapshot.redis_store import RedisStore
from shared.snapshot.store import SnapshotStore
from tests.conformance.snapshot_engines import (
    NAMESPACE,
    SMALL,
    TINY,
    Builder,
    Built,
    RedisEngine,
    free_pointer,
    publish,
    read_whole,
    states,
)
from tests.services.children import unused_port, wait_until
from tests.services.redis import RedisServer

MB = 1_000_000
LARGE = {"lists": 10 * MB, "users": 2 * MB}
StartRedis = Callable[..., RedisServer]


@pytest.fixture
def server(private_redis: StartRedis) -> RedisServer:
    return private_redis()


@pytest.fixture
def store(server: RedisServer) -> Iterator[SnapshotStore]:
    store = RedisStore(server.url(7), namespace=NAMESPACE)
    yield store
    store.close()


def used_memory(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("memory")["used_memory"])


@contextmanager
def unavailable(*, within_seconds: float) -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        yield
    assert time.monotonic() - started < within_seconds
    assert "127.0.0.1" not in caught.value.message


def reads(store: SnapshotStore, built: Built) -> list[Callable[[], object]]:
    return [
        store.pointer,
        store.newest_version,
        store.versions,
        lambda: store.manifest(built.version),
        lambda: next(store.chunks(built.manifest, "lists")),
    ]


# --- full -------------------------------------------------------------------------------------


def test_a_publish_that_cannot_fit_is_refused_before_it_writes(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    old, new = builder.build(TINY), builder.build(LARGE)
    publish(store, old)
    server.set_config("maxmemory", used_memory(server) + 8 * MB)
    progress: list[int] = []

    with pytest.raises(StoreFull, match=r"needs 12\.\d MB.* limit \(maxmemory\) of \d+\.\d MB"):
        store.publish(
            new.manifest,
            new.parts,
            expected_generation=1,
            activate=True,
            on_progress=progress.append,
        )

    assert progress == []
    assert states(store) == {old.version: "active"}
    server.set_config("maxmemory", used_memory(server) + 40 * MB)
    assert publish(store, new) == "active"


@pytest.mark.parametrize("moment", ["in its parts", "before its manifest"])
def test_redis_gets_full_during_a_publish(
    server: RedisServer, store: SnapshotStore, builder: Builder, moment: str
) -> None:
    old, new, newer = builder.build(TINY), builder.build(LARGE), builder.build(LARGE)
    publish(store, old)
    before = used_memory(server)
    threshold = 5 * MB if moment == "in its parts" else 12 * MB

    def fill(written: int) -> None:
        if written >= threshold:
            server.set_config("maxmemory", MB)

    with pytest.raises(StoreFull, match=r"needs 12\.\d MB.* of 1\.0 MB"):
        store.publish(
            new.manifest, new.parts, expected_generation=1, activate=True, on_progress=fill
        )

    wait_until(
        lambda: used_memory(server) < before * 1.05,
        timeout_seconds=20,
        describe="the memory of the half publish",
    )
    assert store.pointer() == free_pointer(old.version, 1)
    assert not any(new.version in key for key in RedisEngine(server.url(7)).raw())
    read_whole(store, old.version)
    server.set_config("maxmemory", 100 * MB)
    assert publish(store, newer) == "active"


@pytest.mark.parametrize("activate", [True, False])
def test_the_last_step_of_a_publish_needs_no_memory(
    server: RedisServer, store: SnapshotStore, builder: Builder, activate: bool
) -> None:
    old, new = builder.build(TINY), builder.build(SMALL)
    publish(store, old)

    state = store.publish(
        new.manifest,
        new.parts,
        expected_generation=1,
        activate=activate,
        check=lambda: server.set_config("maxmemory", MB),
    )

    assert state == ("active" if activate else "held")
    assert states(store)[new.version] == state
    read_whole(store, new.version)


def test_roll_back_unpin_and_prune_need_no_memory(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    built = [builder.build(SMALL) for _ in range(3)]
    for one in built:
        publish(store, one)
    server.set_config("maxmemory", MB)
    with server.client() as client, pytest.raises(Exception, match="maxmemory"):
        client.set("anything", b"x" * 1000)

    assert store.activate(built[0].version, pin=True).is_pinned
    assert store.unpin() == free_pointer(built[0].version, 4)
    assert store.prune(1) == [built[1].version]
    assert states(store) == {built[2].version: "kept", built[0].version: "active"}


def test_a_server_that_evicts_never_shows_half_a_version(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    server.set_config("maxmemory-policy", "allkeys-random")
    new = builder.build(LARGE)

    def fill(written: int) -> None:
        if written >= 11 * MB:
            server.set_config("maxmemory", used_memory(server) - 4 * MB)

    with pytest.raises((StoreUnavailable, PublishSuperseded)) as caught:
        store.publish(
            new.manifest, new.parts, expected_generation=0, activate=True, on_progress=fill
        )
    assert "noeviction" in caught.value.message or isinstance(caught.value, PublishSuperseded)
    assert store.pointer().version is None


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("noeviction", []),
        ("allkeys-lru", ["parts of snapshots, queued jobs"]),
        ("volatile-ttl", ["queued jobs"]),
    ],
)
def test_a_server_that_evicts_is_told_of(
    server: RedisServer, store: SnapshotStore, policy: str, told: list[str]
) -> None:
    server.set_config("maxmemory-policy", policy)
    assert store.hazards() == [
        f"when Redis is full it drops {lost} without a word (maxmemory-policy {policy}): "
        "set noeviction"
        for lost in told
    ]


# --- gone -------------------------------------------------------------------------------------


def test_a_frozen_redis_costs_two_seconds_at_most(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    built = builder.build(TINY)
    publish(store, built)
    fresh = RedisStore(server.url(7), namespace=NAMESPACE)
    server.pause()
    for read in (*reads(store, built), fresh.pointer):
        with unavailable(within_seconds=2.0):
            read()
    server.resume()
    for read in (*reads(store, built), fresh.pointer):
        read()
    fresh.close()


def test_a_dead_redis_and_an_empty_one_after_it(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    built, next_one = builder.build(TINY), builder.build(TINY)
    publish(store, built)
    server.kill()
    for read in reads(store, built):
        with unavailable(within_seconds=1.0):
            read()
    with unavailable(within_seconds=1.0):
        store.publish(next_one.manifest, next_one.parts, expected_generation=1, activate=True)

    server.restart()

    assert store.pointer().version is None
    assert store.versions() == []
    state = store.publish(next_one.manifest, next_one.parts, expected_generation=1, activate=True)
    assert state == "active"
    read_whole(store, next_one.version)


def test_redis_dies_during_a_publish(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    new = builder.build(LARGE)
    with unavailable(within_seconds=3.0):
        store.publish(
            new.manifest,
            new.parts,
            expected_generation=0,
            activate=True,
            on_progress=lambda _written: server.kill(),
        )


@pytest.mark.parametrize("moment", ["in its parts", "at its end"])
def test_redis_is_emptied_during_a_publish(
    server: RedisServer, store: SnapshotStore, builder: Builder, moment: str
) -> None:
    new = builder.build(SMALL)

    def empty(_written: int = 0) -> None:
        with server.client() as client:
            client.flushall()

    with pytest.raises(PublishSuperseded):
        store.publish(
            new.manifest,
            new.parts,
            expected_generation=0,
            activate=True,
            on_progress=empty if moment == "in its parts" else None,
            check=empty,
        )
    assert store.pointer().version is None
    assert RedisEngine(server.url(7)).raw() == {}


# --- refused ----------------------------------------------------------------------------------


def test_a_replica_is_read_and_not_written(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    built = builder.build(TINY)
    publish(store, built)
    with server.client() as client:
        client.replicaof("127.0.0.1", str(unused_port()))
    read_whole(store, built.version)
    with pytest.raises(StoreUnavailable, match="read-only replica"):
        publish(store, builder.build(TINY))
    with pytest.raises(StoreUnavailable, match="read-only replica"):
        store.activate(built.version, pin=True)


def test_keys_of_another_kind_are_refused(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    keys = Keys(NAMESPACE)
    with server.client(7) as client:
        client.rpush(keys.pointer, "a", "list")
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            store.pointer()
        client.delete(keys.pointer)
        client.set(keys.versions, "no hash")
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            publish(store, builder.build(TINY))


def test_a_refused_password_is_not_repeated(server: RedisServer, store: SnapshotStore) -> None:
    server.set_config("requirepass", "the-right-one")
    url = server.url(7).replace("redis://", "redis://:the-wrong-one@")
    for closed in (store, RedisStore(url, namespace=NAMESPACE)):
        with pytest.raises(StoreUnavailable) as caught:
            closed.pointer()
        assert "wrong" not in caught.value.message
        assert "refuses" in caught.value.message
        closed.close()


# --- manners ----------------------------------------------------------------------------------


def test_no_command_holds_the_server(
    server: RedisServer, store: SnapshotStore, builder: Builder, tmp_path: Path
) -> None:
    with server.client() as client:
        client.config_set("slowlog-log-slower-than", 50_000)  # microseconds
        for _ in range(2):
            publish(store, builder.build({"lists": 40 * MB, "users": 5 * MB}))
        store.prune(1)
        assert client.slowlog_get() == []


def test_reads_go_on_beside_thousands_of_foreign_keys(
    server: RedisServer, store: SnapshotStore, builder: Builder
) -> None:
    with server.client(7) as client, client.pipeline(transaction=False) as pipeline:
        for number in range(20_000):
            pipeline.set(f"arq:job:{number}", b"x")
        pipeline.execute()
    first, second = builder.build(TINY), builder.build(TINY)
    publish(store, first)
    publish(store, second)
    assert store.prune(1) == [first.version]
    with Redis.from_url(server.url(7)) as client:
        ours = list(client.scan_iter(match=f"{NAMESPACE}:*", count=5000))
        assert client.dbsize() == 20_000 + len(ours)
    read_whole(store, second.version)
