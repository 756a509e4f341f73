"""Replicas follow the overlay: over restarts and switches, in step and out of step."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api import overlay_notes, overlay_records
from api.overlay_notes import Notes
from shared.settings import Settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.overlay import MAX_RECORD_BYTES
from shared.snapshot.store import SnapshotStore
from tests.api.overlays import Teller, refreshed, until
from tests.api.running import OAXACA, OSAKA, PERSONAL, SHORT, SPEC, UNKNOWN, Api, running
from tests.services.snapshots import SnapshotSpec, UserSpec, publish_snapshot

AGAIN = "/api/recommendations?list=order_again"
LISTS = ("for_you", "discover", "order_again")


@pytest.fixture
def manifest(store: SnapshotStore) -> Manifest:
    return publish_snapshot(store, SPEC)


def orders(*restaurant_ids: int) -> UserSpec:
    return UserSpec("personal", "Osaka", for_you=restaurant_ids, order_again=restaurant_ids)


def revision(api: Api, user_id: int) -> int:
    active = api.resources.snapshots.active
    return -1 if active is None else api.resources.overlay.of_user(active, user_id).revision


async def get(api: Api, user_id: int, url: str) -> tuple[str, str, list[int]]:
    """Version, tag and ids."""
    response = await api.client.get(url, headers=api.as_user(user_id))
    assert response.status_code == 200, response.text
    return response.headers["x-snapshot-version"], response.headers["etag"], response.json()


async def everything(api: Api, user_ids: Sequence[int]) -> list[tuple[str, str, list[int]]]:
    urls = [f"/api/recommendations?list={name}&limit=50" for name in LISTS]
    return [await get(api, user_id, url) for user_id in user_ids for url in urls]


async def test_a_restart_with_a_dead_store_obeys_what_was_told(
    settings: Settings, store: SnapshotStore, teller: Teller, manifest: Manifest
) -> None:
    async with running(settings) as api:
        await api.serves(manifest.version)
        for number in range(1, 4):
            teller.lists(manifest, SPEC, SHORT, orders(101, OSAKA[number]), number)
            teller.hides(PERSONAL, [OSAKA[number]], number)
            await until(lambda: revision(api, SHORT) == number)  # noqa: B023
        teller.erased(UNKNOWN, 1)
        teller.closed(113)
        await until(lambda: api.resources.snapshots.require_active().shown.gone)
        expected = await everything(api, (SHORT, PERSONAL, UNKNOWN))
        metadata = (await api.client.get("/api/restaurants/metadata")).content
    store.close()
    teller.writer.close()
    shutil.rmtree(settings.store_dir)
    settings.store_dir.write_text("a file where the store's folder was")
    async with running(settings) as api:
        assert await everything(api, (SHORT, PERSONAL, UNKNOWN)) == expected
        assert (await api.client.get("/api/restaurants/metadata")).content == metadata
        await until(lambda: api.resources.snapshots.status().store == "down")
        assert await everything(api, (SHORT, PERSONAL, UNKNOWN)) == expected
        api.resources.overlay.note_order(SHORT, 103, 9)
        assert (await get(api, SHORT, AGAIN))[2] == [103, 101, OSAKA[3]]


async def test_what_only_this_process_knew_is_known_after_its_restart(
    settings: Settings, teller: Teller, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_notes, "DOUBT_SECONDS", 0.1)
    users = (SHORT, PERSONAL, UNKNOWN)
    async with running(settings) as api:
        await api.serves(manifest.version)
        overlay = api.resources.overlay
        overlay.note_orders([(SHORT, 103, 4), (SHORT, 109, 5)])
        overlay.note_hidden(SHORT, [102], 6)
        overlay.note_erased(PERSONAL, 7)
        overlay.note_order(PERSONAL, 111, 8)
        overlay.note_activity([(105, True, 2)])
        expected = await everything(api, users)
    async with running(settings) as api:
        assert await everything(api, users) == expected
        # Until the worker tells.
        teller.lists(manifest, SPEC, SHORT, orders(113), 6)
        teller.hides(SHORT, [], 7)
        teller.opened(105)
        await until(lambda: revision(api, SHORT) == 6 and not api.resources.overlay.inactive)
        assert (await get(api, SHORT, AGAIN))[2] == [113]
        assert 102 in (await get(api, SHORT, "/api/recommendations?limit=50&city=oaxaca"))[2]
    (left,) = settings.overlay_dir.glob("notes.*")
    left.write_bytes(b'{"form":2,"users":[[1,2]],"restaurants":[]}')
    async with running(settings) as api:
        assert (await get(api, SHORT, AGAIN))[2] == [113]


async def test_two_replicas_of_equal_state_answer_alike_and_one_that_lags_answers_whole(
    settings: Settings, store: SnapshotStore, teller: Teller, manifest: Manifest
) -> None:
    users = (SHORT, PERSONAL)
    async with running(settings) as one, running(settings) as other:
        await asyncio.gather(one.serves(manifest.version), other.serves(manifest.version))
        before = await everything(other, users)
        assert await everything(one, users) == before
        # A write is seen at once where it was taken, and nowhere else.
        one.resources.overlay.note_order(SHORT, 103, 4)
        one.resources.overlay.note_hidden(SHORT, [102], 5)
        assert (await get(one, SHORT, AGAIN))[2] == [103, 105, 101]
        assert await everything(other, users) == before
        # The other one lags for good.
        other.resources.overlay_follower.stop()
        teller.lists(manifest, SPEC, SHORT, orders(103, 105, 101), 5)
        teller.hides(SHORT, [102], 5)
        await until(lambda: not one.resources.overlay.notes.count)
        assert (await get(one, SHORT, AGAIN))[2] == [103, 105, 101]
        assert await everything(other, users) == before
        async with running(settings) as third:
            await until(lambda: revision(third, SHORT) == 5)
            await until(lambda: third.resources.overlay.exclusions)
            assert await everything(third, users) == await everything(one, users)
        # A new snapshot finds it with all that was told before.
        second = publish_snapshot(store, SPEC)
        teller.lists(second, SPEC, PERSONAL, orders(109), 2)
        await asyncio.gather(one.serves(second.version), other.serves(second.version))
        await until(lambda: revision(one, PERSONAL) == 2)
        assert 102 not in (await get(other, SHORT, "/api/recommendations?limit=50"))[2]


async def test_no_list_mixes_versions_or_goes_back_while_snapshots_and_records_come(
    settings: Settings, store: SnapshotStore, teller: Teller
) -> None:
    """Each answer is one list that was told for its version, and revisions only grow."""
    base = SPEC.users[SHORT].order_again
    told: dict[str, list[list[int]]] = {}
    seen: list[tuple[str, list[int]]] = []
    current = publish_snapshot(store, SPEC)
    told[current.version] = [list(base)]
    history = [*base]

    async def read_on(api: Api, stop: asyncio.Event) -> None:
        while not stop.is_set():
            version, _, ids = await get(api, SHORT, f"{AGAIN}&limit=50")
            seen.append((version, ids))
            await asyncio.sleep(0)

    async with running(settings) as api:
        await api.serves(current.version)
        stop = asyncio.Event()
        reader = asyncio.create_task(read_on(api, stop))
        for number in range(1, 25):
            history = [OAXACA[number], *history]
            if number % 6:
                teller.lists(current, SPEC, SHORT, orders(*history), number)
                told[current.version].append(history)
                await asyncio.sleep(0.01)
                continue
            # As a worker does: what changed since is in the log before the version is active.
            held = publish_snapshot(store, SPEC, activate=False)
            teller.lists(held, SPEC, SHORT, orders(*history), number)
            told[held.version] = [history]
            store.activate(held.version, pin=False)
            current = held
            await api.serves(current.version)
        await until(lambda: revision(api, SHORT) == 24)
        stop.set()
        await reader
    assert len({version for version, _ in seen}) == 5
    assert [each for each in seen if each[1] not in told[each[0]]] == []
    lengths = [len(ids) for _, ids in seen]
    assert lengths == sorted(lengths)


async def test_pages_go_on_in_the_lists_they_began_in(
    api: Api, store: SnapshotStore, teller: Teller
) -> None:
    async def next_page(url: str) -> tuple[int, list[int], str | None]:
        response = await api.client.get(url, headers=api.as_user(PERSONAL))
        following = response.links.get("next", {}).get("url")
        return response.status_code, response.json(), following

    url = f"{AGAIN}&limit=2"
    _, _, rest = await next_page(url)
    assert rest is not None
    manifest = api.resources.snapshots.require_active().manifest
    lists = [orders(*OAXACA[number : number + 6]) for number in (0, 10)]
    for number, user in enumerate(lists, 5):
        teller.lists(manifest, SPEC, PERSONAL, user, number)
        await until(lambda: revision(api, PERSONAL) == number)  # noqa: B023
        if number == 5:
            _, found, inner = await next_page(url)
    assert found == [*OAXACA[:2]]
    assert inner is not None
    # The snapshot's own lists, and those that were told in between.
    assert (await next_page(rest))[:2] == (200, [OSAKA[2]])
    assert (await next_page(inner))[:2] == (200, [*OAXACA[2:4]])
    # What must not be shown is not shown there either.
    api.resources.overlay.note_hidden(PERSONAL, [OAXACA[2]], 7)
    api.resources.overlay.note_activity([(OSAKA[2], True, 1)])
    assert (await next_page(inner))[:2] == (200, [*OAXACA[3:5]])
    assert (await next_page(rest))[:2] == (200, [])
    # In a version before the active one too.
    second = publish_snapshot(store, SPEC)
    await api.serves(second.version)
    assert (await next_page(inner))[:2] == (200, [*OAXACA[3:5]])
    assert (await next_page(rest))[:2] == (200, [])
    # Where the lists it began in are not there, a page says so.
    kept = api.resources.snapshots.require_version(manifest.version)
    assert kept.refreshed is not None
    kept.refreshed._older.clear()
    status, problem, _ = await next_page(inner)
    assert (status, problem["code"]) == (410, "version-gone")  # type: ignore[call-overload]


async def test_the_tag_changes_with_what_may_change_the_answer_and_with_nothing_else(
    api: Api, teller: Teller
) -> None:
    manifest = api.resources.snapshots.require_active().manifest
    overlay = api.resources.overlay

    async def tag(user_id: int = SHORT, form: str = "") -> str:
        url = f"/api/recommendations{form}"
        headers = api.as_user(user_id)
        etag = (await api.client.get(url, headers=headers)).headers["etag"]
        again = await api.client.get(url, headers={**headers, "If-None-Match": etag})
        assert again.status_code == 304
        return str(etag)

    quiet, tags = await tag(PERSONAL), [await tag()]
    record = refreshed(SPEC, orders(107), 3)
    teller.writer.append(manifest.version, {f"u{SHORT}": record})
    await until(lambda: revision(api, SHORT) == 3)
    tags.append(await tag())
    teller.writer.append(manifest.version, {f"u{SHORT}": record, f"u{UNKNOWN}": record})
    await until(lambda: revision(api, UNKNOWN) == 3)
    assert await tag() == tags[-1]  # told twice
    overlay.note_order(SHORT, 109, 4)
    tags.append(await tag())
    overlay.note_order(SHORT, 111, 5)
    tags.append(await tag())
    overlay.note_hidden(SHORT, [102], 6)
    tags.append(await tag())
    overlay.note_hidden(SHORT, [102, 104], 7)
    tags.append(await tag())
    overlay.note_hidden(SHORT, [104, 102], 8)
    assert await tag() == tags[-1]
    assert await tag(PERSONAL) == quiet
    overlay.note_activity([(424_242, True, 1)])  # one that the snapshot does not have
    assert (await tag(), await tag(PERSONAL)) == (tags[-1], quiet)
    overlay.note_activity([(101, True, 1)])
    tags.append(await tag())
    assert await tag(PERSONAL) != quiet
    overlay.note_activity([(101, False, 2)])
    overlay.note_activity([(424_242, False, 2)])
    assert (await tag(), await tag(PERSONAL)) == (tags[-2], quiet)
    overlay.note_erased(SHORT, 9)
    tags.append(await tag())
    assert len(set(tags)) == len(tags)
    # The detailed form names the version of the metadata, which follow a moment later.

    def is_whole() -> bool:
        with api.resources.overlay_follower.lock:  # none is under way that was begun before
            return api.resources.snapshots.require_active().shown.is_whole

    await until(is_whole)
    detailed = await tag(PERSONAL, "/detailed")
    teller.closed(OSAKA[0], revision=3)
    await until(lambda: api.resources.snapshots.require_active().shown.gone)
    assert await tag(PERSONAL, "/detailed") != detailed


async def test_orders_are_noted_until_a_snapshot_contains_them(
    api: Api, store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)

    def containing(before: datetime) -> Manifest:
        return publish_snapshot(
            store, SPEC, change_manifest=lambda made: replace(made, changes_since=before)
        )

    api.resources.overlay.note_order(SHORT, 103, 4)
    earlier = containing(now - timedelta(seconds=60))
    await api.serves(earlier.version)
    assert (await get(api, SHORT, AGAIN))[2][0] == 103
    monkeypatch.setattr(overlay_notes, "MIN_SECONDS", 0.0)
    later = containing(datetime.now(UTC) + timedelta(seconds=1))
    await api.serves(later.version)
    await until(lambda: not api.resources.overlay.notes.count)
    assert (await get(api, SHORT, AGAIN))[2] == [105, 101]


def test_notes_are_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_notes, "MAX_NOTES", 20)
    monkeypatch.setattr(overlay_notes, "MAX_HIDDEN_BYTES", 8_000)
    notes = Notes()
    for number in range(100):
        notes.order(number, 1, 1)
        notes.set_inactive(number, True, 1)
    assert sorted(notes.users) == sorted(notes.restaurants) == [*range(80, 100)]
    for number in range(100, 110):
        notes.hide(number, range(300), 1)
    assert sorted(notes.users) == [107, 108, 109]
    for _ in range(1_000):
        notes.order(5, 1, 2)
        notes.order(5, 2, 2)
    assert notes.users[5].orders == (2, 1)


def test_a_note_that_comes_after_the_record_of_its_write_is_needless() -> None:
    clock = [100.0]
    notes = Notes(clock=lambda: clock[0])
    notes.lists_came(1, 7)
    notes.exclusion_came(1, 7)
    notes.order(1, 5, 7)
    notes.hide(1, [5], 6)
    notes.erase(1, 7)
    assert not notes.users
    notes.order(1, 5, 8)
    assert notes.users[1].orders == (5,)
    # Long after, revisions may have begun anew.
    clock[0] += 60
    notes.expire()
    notes.hide(1, [5], 1)
    assert notes.users[1].hidden_ids == {5}


def test_a_record_of_nothing_ends_a_note_when_no_other_record_follows() -> None:
    clock = [100.0]
    notes = Notes(clock=lambda: clock[0])
    notes.set_inactive(7, True, 5)
    notes.set_inactive(8, False, 5)
    notes.restaurant_came(7, None)
    notes.restaurant_came(8, None)
    assert set(notes.restaurants) == {7}
    assert not notes.expire()
    clock[0] += overlay_notes.DOUBT_SECONDS + 1
    assert notes.expire()
    assert not notes.restaurants


async def test_more_records_than_a_replica_takes_do_not_end_it(
    api: Api, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = api.resources.snapshots.require_active().manifest
    monkeypatch.setattr(overlay_records, "MAX_LIVE_BYTES", 1_000_000)
    large = b"TMO1\x01\x02" + bytes(2) + (5).to_bytes(8, "little")
    large += bytes(4) + bytes(MAX_RECORD_BYTES - len(large) - 4)
    teller.lists(manifest, SPEC, SHORT, orders(107), 3)
    await until(lambda: revision(api, SHORT) == 3)
    for number in range(1_000, 1_004):
        teller.writer.append(manifest.version, {f"u{number}": large})
    await until(lambda: manifest.version in api.resources.overlay_follower._full)
    teller.closed(107)
    await until(lambda: api.resources.overlay.inactive == {107})
    assert (await get(api, SHORT, AGAIN))[2] == []
    assert (await get(api, PERSONAL, AGAIN))[2] == [*OSAKA[:3]]


def test_files_of_versions_that_are_gone_are_removed(
    settings: Settings, store: SnapshotStore, teller: Teller
) -> None:
    async def publish_on() -> list[str]:
        async with running(settings) as api:
            for number in range(1, 6):
                spec = SnapshotSpec(restaurants={1: None}, users={})
                manifest = publish_snapshot(store, spec)
                teller.lists(manifest, spec, 1, UserSpec("personal", for_you=(1,)), number)
                store.prune(settings.keep_snapshots)
                await until(lambda: revision(api, 1) == number)  # noqa: B023
        return [each.manifest.version for each in store.versions()]

    kept = asyncio.run(publish_on())
    names = [path.name for path in (settings.data_dir / "overlay").iterdir()]
    logs = {Path(name).stem for name in names if name.startswith("2")}
    assert kept[0] in logs
    assert len(logs) <= len(kept) + 1
