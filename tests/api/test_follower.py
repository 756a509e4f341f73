"""The local copy follows the store, and outlives everything that may happen to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from api import follower as follower_module
from api import local_copies
from shared.errors import SnapshotDamaged, SnapshotUnsupported, StoreUnavailable
from shared.settings import Settings
from shared.snapshot.layout import Keys, encode_pointer
from shared.snapshot.manifest import Manifest, new_version
from shared.snapshot.opening import open_store
from shared.snapshot.parts import describe_parts
from shared.snapshot.store import Pointer, SnapshotStore
from tests.api.overlays import until
from tests.api.running import PERSONAL, SPEC, Api, follower_of, running
from tests.conformance.snapshot_engines import DiskEngine
from tests.services.snapshots import (
    SnapshotSpec,
    UserSpec,
    publish_snapshot,
)

LISTS = "/api/recommendations"


def spec_of(restaurant_id: int) -> SnapshotSpec:
    """A snapshot in which everything is one restaurant: an answer tells where it comes from."""
    user = UserSpec("personal", for_you=(restaurant_id,), order_again=(restaurant_id,))
    return SnapshotSpec(restaurants={restaurant_id: None}, users={PERSONAL: user})


async def served(api: Api) -> tuple[str, list[int]]:
    response = await api.client.get(LISTS, headers=api.as_user(PERSONAL))
    assert response.status_code == 200
    return response.headers["x-snapshot-version"], response.json()


def copies(settings: Settings) -> list[str]:
    return sorted(os.listdir(settings.snapshots_dir))


# --- taking versions up -----------------------------------------------------------------------


async def test_the_first_snapshot_is_taken_up_within_five_seconds(
    empty_api: Api, store: SnapshotStore
) -> None:
    assert (await empty_api.client.get("/ready")).status_code == 503
    manifest = publish_snapshot(store, SPEC)
    await empty_api.serves(manifest.version, timeout_seconds=5)
    assert (await served(empty_api))[0] == manifest.version


async def test_versions_are_swapped_without_a_restart_and_never_mixed(
    empty_api: Api, store: SnapshotStore
) -> None:
    published = {}
    seen: list[tuple[str, list[int]]] = []
    manifest = publish_snapshot(store, spec_of(1))
    published[manifest.version] = [1]
    await empty_api.serves(manifest.version)

    async def read_on(stop: asyncio.Event) -> None:
        while not stop.is_set():
            seen.append(await served(empty_api))
            await asyncio.sleep(0)

    stop = asyncio.Event()
    reader = asyncio.create_task(read_on(stop))
    for number in (2, 3, 4):
        manifest = publish_snapshot(store, spec_of(number))
        published[manifest.version] = [number]
        await empty_api.serves(manifest.version)
    stop.set()
    await reader
    assert all(published[version] == ids for version, ids in seen)
    assert [version for version, _ in seen] == sorted(version for version, _ in seen)
    assert {version for version, _ in seen} >= set(sorted(published)[:3])


async def test_a_rollback_is_followed_as_any_other_move(
    empty_api: Api, store: SnapshotStore
) -> None:
    first = publish_snapshot(store, spec_of(1))
    await empty_api.serves(first.version)
    second = publish_snapshot(store, spec_of(2))
    await empty_api.serves(second.version)
    store.activate(first.version, pin=True)
    await empty_api.serves(first.version)
    assert await served(empty_api) == (first.version, [1])
    store.activate(second.version, pin=False)
    await empty_api.serves(second.version)
    assert await served(empty_api) == (second.version, [2])


async def test_a_version_that_is_held_is_not_taken_up(api: Api, store: SnapshotStore) -> None:
    active = api.resources.snapshots.require_active().version
    publish_snapshot(store, spec_of(1), activate=False)
    before = api.resources.snapshots._heard_at
    await until(lambda: api.resources.snapshots._heard_at > before + 0.5)
    assert (await served(api))[0] == active


async def test_as_many_copies_are_kept_as_the_store_keeps(
    empty_api: Api, store: SnapshotStore
) -> None:
    kept = empty_api.settings.keep_snapshots
    versions = []
    for number in range(1, kept + 3):
        versions.append(publish_snapshot(store, spec_of(number)).version)
        await empty_api.serves(versions[-1])
    await until(lambda: copies(empty_api.settings) == [*versions[-kept:], "current"])


async def test_the_copy_of_a_pruned_version_goes(empty_api: Api, store: SnapshotStore) -> None:
    versions = []
    for number in range(1, 4):
        versions.append(publish_snapshot(store, spec_of(number)).version)
        await empty_api.serves(versions[-1])
    store.prune(1)
    await until(lambda: copies(empty_api.settings) == [versions[-1], "current"])


async def test_a_request_that_holds_the_old_version_finishes_on_it(
    empty_api: Api, store: SnapshotStore
) -> None:
    first = publish_snapshot(store, SPEC)
    await empty_api.serves(first.version)
    held = empty_api.resources.snapshots.require_active()
    for number in (1, 2, 3):
        await empty_api.serves(publish_snapshot(store, spec_of(number)).version)
    await until(lambda: first.version not in copies(empty_api.settings))
    entry = held.users.find(PERSONAL)
    assert entry is not None
    assert len(held.lists.read(entry).order_again) == 3
    assert bytes(held.projection(0)).startswith(b'{"id":101,')


# --- what is damaged --------------------------------------------------------------------------


def damage(settings: Settings, manifest: Manifest, part: str) -> None:
    """Flips one bit of a part where the store keeps it."""
    engine = DiskEngine(settings.store_dir)
    key = Keys(settings.namespace).chunk(manifest.version, part, 0)
    data = engine.raw()[key]
    engine.overwrite(key, data[:-1] + bytes([data[-1] ^ 1]))


def point_to(settings: Settings, manifest: Manifest, *, generation: int) -> None:
    """Moves the pointer as `activate` does, which itself refuses a damaged version."""
    pointer = encode_pointer(Pointer(manifest.version, generation, is_pinned=False))
    DiskEngine(settings.store_dir).overwrite(Keys(settings.namespace).pointer, pointer)


async def refuses(api: Api, version: str) -> str:
    """Waits until the version is refused; returns what `/ready` says of it."""
    await until(lambda: version in (api.resources.snapshots.status().problem or ""))
    ready = await api.client.get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    problem: str = ready.json()["checks"]["snapshot"]["problem"]
    assert version not in copies(api.settings)
    return problem


async def recovers(api: Api, store: SnapshotStore) -> None:
    """With the next version, and nothing is wrong any more."""
    better = publish_snapshot(store, spec_of(4))
    await api.serves(better.version)
    assert api.resources.snapshots.status().problem is None


@pytest.mark.parametrize(
    "part", ["restaurants", "users", "lists", "metadata", "metadata.br", "cities"]
)
async def test_a_damaged_version_is_refused_and_the_old_one_kept(
    api: Api, store: SnapshotStore, part: str
) -> None:
    good = await served(api)
    bad = publish_snapshot(store, spec_of(1), activate=False)
    damage(api.settings, bad, part)
    point_to(api.settings, bad, generation=store.pointer().generation + 1)
    assert f"part {part} differs from its checksum" in await refuses(api, bad.version)
    assert await served(api) == good
    await recovers(api, store)


async def test_a_process_that_has_nothing_serves_the_version_before_a_damaged_one(
    settings: Settings, store: SnapshotStore
) -> None:
    held = publish_snapshot(store, spec_of(0))
    before = publish_snapshot(store, spec_of(1))
    bad = publish_snapshot(store, spec_of(2))
    publish_snapshot(store, spec_of(3), activate=False)
    damage(settings, held, "lists")
    damage(settings, bad, "lists")
    async with running(settings) as api:
        await api.serves(before.version)
        assert bad.version in await refuses(api, bad.version)
        await recovers(api, store)


async def test_where_no_version_can_be_read_nobody_is_told_that_there_is_none(
    settings: Settings, store: SnapshotStore
) -> None:
    damage(settings, publish_snapshot(store, spec_of(1)), "lists")
    async with running(settings) as api:
        await until(lambda: api.resources.snapshots.status().problem)
        for path in ("/ready", "/api/restaurants/metadata"):
            answer = await api.client.get(path)
            assert answer.status_code == 503
            assert "cannot be read" in answer.text


async def test_a_version_without_a_part_is_refused(api: Api, store: SnapshotStore) -> None:
    def without_similar(manifest: Manifest) -> Manifest:
        sizes = {name: size for name, size in manifest.bytes.items() if name != "similar"}
        sums = {name: sum_ for name, sum_ in manifest.checksums.items() if name != "similar"}
        return replace(manifest, bytes=sizes, checksums=sums)

    good = await served(api)
    bad = publish_snapshot(store, spec_of(1), change_manifest=without_similar)
    assert "names no part similar" in await refuses(api, bad.version)
    assert await served(api) == good


async def test_parts_that_contradict_each_other_are_refused(
    api: Api, store: SnapshotStore, tmp_path: Path
) -> None:
    """Every checksum is right, but the restaurants are those of another snapshot."""
    good = await served(api)
    other = local_copies.fetch(
        store, publish_snapshot(store, spec_of(1), activate=False), tmp_path / "other"
    )
    whole = publish_snapshot(store, SPEC, activate=False)
    mixed = local_copies.fetch(store, whole, tmp_path / "mixed")
    shutil.copy(other / "restaurants", mixed / "restaurants")
    (mixed / "manifest").unlink()
    sizes, sums = describe_parts(mixed)
    version = new_version(whole.created_at, after=whole.version)
    manifest = replace(whole, version=version, bytes=sizes, checksums=sums)
    store.publish(
        manifest,
        {part: mixed / part for part in sizes},
        expected_generation=store.pointer().generation,
        activate=True,
    )
    assert "different numbers of restaurants" in await refuses(api, version)
    assert await served(api) == good


async def test_every_flipped_byte_of_a_local_copy_is_noticed(
    settings: Settings, store: SnapshotStore
) -> None:
    """At a start without the store: a damaged copy is never served."""
    manifest = publish_snapshot(store, spec_of(1))
    folder = local_copies.fetch(store, manifest, settings.snapshots_dir)
    flipped = 0
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in range(0, len(whole), 1 + len(whole) // 64):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises((SnapshotDamaged, SnapshotUnsupported)):
                local_copies.open_verified(folder, public_vary=b"")
            flipped += 1
        path.write_bytes(whole[:-1])
        with pytest.raises(SnapshotDamaged):
            local_copies.open_verified(folder, public_vary=b"")
        path.write_bytes(whole)
    assert flipped > 300
    assert local_copies.open_verified(folder, public_vary=b"").version == manifest.version


async def test_a_damaged_copy_is_fetched_again(settings: Settings, store: SnapshotStore) -> None:
    manifest = publish_snapshot(store, SPEC)
    folder = local_copies.fetch(store, manifest, settings.snapshots_dir)
    (folder / "lists").write_bytes(b"nonsense")
    async with running(settings) as api:
        await api.serves(manifest.version)
        assert len((await served(api))[1]) == 20


# --- without the store ------------------------------------------------------------------------


async def test_a_restart_serves_at_once_with_the_store_gone(
    settings: Settings, store: SnapshotStore
) -> None:
    manifest = publish_snapshot(store, SPEC)
    async with running(settings) as api:
        await api.serves(manifest.version)
        expected = await served(api)
    store.close()
    shutil.rmtree(settings.store_dir)
    settings.store_dir.write_text("a file where the store's folder was")
    async with running(settings) as api:
        assert await served(api) == expected
        await until(lambda: api.resources.snapshots.status().store == "down")
        ready = await api.client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"]["store"] == "down"
        assert await served(api) == expected


async def test_the_version_served_last_is_opened_first(
    settings: Settings, store: SnapshotStore
) -> None:
    """After a rollback the newest copy is not the one to serve."""
    first = publish_snapshot(store, spec_of(1))
    async with running(settings) as api:
        await api.serves(first.version)
        second = publish_snapshot(store, spec_of(2))
        await api.serves(second.version)
        store.activate(first.version, pin=True)
        await api.serves(first.version)
        await until(lambda: local_copies.current_version(settings.snapshots_dir) == first.version)
    follower = follower_of(settings, store)
    follower.open_local()
    assert follower.require_active().version == first.version


async def test_a_store_that_comes_back_empty_changes_nothing(
    settings: Settings, store: SnapshotStore
) -> None:
    manifest = publish_snapshot(store, SPEC)
    async with running(settings) as api:
        await api.serves(manifest.version)
    store.close()
    shutil.rmtree(settings.store_dir)
    fresh = open_store(settings)
    async with running(settings) as api:
        assert (await served(api))[0] == manifest.version
        await until(lambda: api.resources.snapshots.status().store == "empty")
        ready = await api.client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        again = publish_snapshot(fresh, spec_of(1))
        await api.serves(again.version)
        assert api.resources.snapshots.status().store == "ok"
    fresh.close()


class _Interrupted:
    """A real store whose chunks break off after some of them, as a cut connection would."""

    def __init__(self, store: SnapshotStore, *, after: int) -> None:
        self._store = store
        self._left = after
        self.pointer = store.pointer
        self.manifest = store.manifest
        self.close = store.close

    def chunks(self, manifest: Manifest, part: str) -> object:
        for chunk in self._store.chunks(manifest, part):
            if self._left == 0:
                raise StoreUnavailable("cut")
            self._left -= 1
            yield chunk


def test_a_copy_that_breaks_off_anywhere_leaves_nothing(
    settings: Settings, store: SnapshotStore
) -> None:
    manifest = publish_snapshot(store, SPEC)
    broken = 0
    while True:
        interrupted = _Interrupted(store, after=broken)
        try:
            local_copies.fetch(interrupted, manifest, settings.snapshots_dir)  # type: ignore[arg-type]
        except StoreUnavailable:
            assert os.listdir(settings.snapshots_dir) == []
            broken += 1
        else:
            break
    assert broken >= len(local_copies.REQUIRED_PARTS)
    assert os.listdir(settings.snapshots_dir) == [manifest.version]


def test_a_store_that_fails_is_asked_again_ever_more_slowly(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 1.0)

    class Down:
        def pointer(self) -> object:
            raise StoreUnavailable("down")

    follower = follower_of(settings, Down())  # type: ignore[arg-type]
    delays = [follower._step() for _ in range(40)]
    assert follower.status().store == "down"
    assert all(0.5 <= delay <= 3.0 for delay in delays)
    assert max(delays[5:]) > 2.0


# --- the folder -------------------------------------------------------------------------------


def test_leftovers_are_swept_but_not_what_is_being_copied(settings: Settings) -> None:
    folder = settings.snapshots_dir
    for name in (".incoming-old-1", ".removing-old-2", ".incoming-new-3"):
        (folder / name).mkdir(parents=True)
        (folder / name / "lists").write_bytes(b"x")
    long_ago = time.time() - 3600
    os.utime(folder / ".incoming-old-1", (long_ago, long_ago))
    with local_copies._incoming_folder(folder, "v") as copying:
        os.utime(copying, (long_ago, long_ago))
        local_copies.sweep(folder)
        assert sorted(os.listdir(folder)) == sorted([".incoming-new-3", copying.name])


async def test_a_full_disk_keeps_the_old_version(
    api: Api, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = await served(api)
    usage = shutil.disk_usage(api.settings.snapshots_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1_000))
    publish_snapshot(store, spec_of(1))
    await until(lambda: api.resources.snapshots.status().problem)
    assert "of disk" in str(api.resources.snapshots.status().problem)
    assert await served(api) == good
    assert (await api.client.get("/ready")).json()["status"] == "degraded"


async def test_two_processes_share_the_folder(settings: Settings, store: SnapshotStore) -> None:
    async with running(settings) as one, running(settings) as other:
        for number in range(1, 4):
            version = publish_snapshot(store, spec_of(number)).version
            await asyncio.gather(one.serves(version), other.serves(version))
            assert await served(one) == await served(other) == (version, [number])
    assert all(not name.startswith(".") for name in copies(settings))
