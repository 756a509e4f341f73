"""What was confirmed stays shown over a switch of versions, forward and back, whatever the worker
has told of the new one by then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import brotli
import orjson
import pytest

from api import overlay_showing
from api.local_copies import fetch
from api.local_snapshot import LocalSnapshot
from api.overlay import Overlay
from api.overlay_follower import OverlayFollower
from api.serving import serve
from shared.settings import Settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_overlay
from shared.snapshot.store import SnapshotStore
from tests.api.overlays import Teller, until
from tests.api.running import PERSONAL, SHORT, SPEC, UNKNOWN, Api, running
from tests.services.snapshots import UserSpec, publish_snapshot

METADATA = "/api/restaurants/metadata"
OWN = list(SPEC.users[SHORT].order_again)
TOLD = UserSpec("personal", "Osaka", for_you=(103, 105), order_again=(103, *OWN))
CLOSED = 113


async def again(api: Api, user_id: int = SHORT, name: str = "order_again") -> list[int]:
    url = f"/api/recommendations?list={name}&limit=50"
    response = await api.client.get(url, headers=api.as_user(user_id))
    assert response.status_code == 200, response.text
    ids: list[int] = response.json()
    return ids


async def told(api: Api, user_id: int, revision: int) -> None:
    def has_come() -> bool:
        lists = api.resources.snapshots.require_active().refreshed
        found = None if lists is None else lists.find(user_id)
        return found is not None and found.user.revision == revision

    await until(has_come)


async def metadata(api: Api) -> tuple[int, set[int]]:
    """Status, and which restaurants are in it."""
    response = await api.client.get(METADATA)
    document = orjson.loads(response.content)
    return response.status_code, {each["id"] for each in document.get("restaurants", ())}


async def test_an_order_told_before_the_switch_stays(
    settings: Settings, store: SnapshotStore, teller: Teller
) -> None:
    first = publish_snapshot(store, SPEC)
    async with running(settings) as api:
        await api.serves(first.version)
        api.resources.overlay.note_order(SHORT, 103, 5)
        teller.lists(first, SPEC, SHORT, TOLD, 5)
        await until(lambda: not api.resources.overlay.notes.count)
        second = publish_snapshot(store, SPEC)
        await api.serves(second.version)
        assert await again(api) == [103, *OWN]
        assert 103 not in await again(api, name="discover")


async def test_an_order_told_within_the_switch_stays(
    settings: Settings, store: SnapshotStore, teller: Teller
) -> None:
    """The log of the version before is read while the new one is made ready."""
    overlay = Overlay(settings.overlay_dir)
    overlay.open()
    follower = OverlayFollower(settings, overlay, open_overlay(settings))

    def opened(manifest: Manifest) -> LocalSnapshot:
        folder = fetch(store, manifest, settings.snapshots_dir, on_chunk=lambda: None)
        snapshot = LocalSnapshot(folder, manifest, public_vary=b"Origin")
        follower.prepare(snapshot)
        return snapshot

    first = publish_snapshot(store, SPEC)
    follower.now_shown(opened(first))
    follower.start()
    try:
        overlay.note_order(SHORT, 103, 5)
        second = opened(publish_snapshot(store, SPEC))
        assert overlay.of_user(second, SHORT).ordered
        teller.lists(first, SPEC, SHORT, TOLD, 5)
        await until(lambda: not overlay.notes.count)
        for _ in range(2):  # before and after the new one is the one that is followed
            changes = overlay.of_user(second, SHORT)
            served = serve(second, SHORT, list_name="order_again", limit=9, changes=changes)
            assert [second.restaurants.ids[each] for each in served.ordinals] == [103, *OWN]
            follower.now_shown(second)
    finally:
        follower.stop()


async def test_a_roll_back_keeps_what_another_process_took_until_the_worker_told_it_anew(
    settings: Settings, store: SnapshotStore, teller: Teller
) -> None:
    first = publish_snapshot(store, SPEC)
    async with running(settings) as api:
        await api.serves(first.version)
        second = publish_snapshot(store, SPEC)
        await api.serves(second.version)
        for user_id in (SHORT, PERSONAL, UNKNOWN):
            teller.lists(second, SPEC, user_id, TOLD, 5)
            await told(api, user_id, 5)
        store.activate(first.version, pin=False)
        await api.serves(first.version)
        assert await again(api) == [103, *OWN]
        assert 103 not in await again(api, name="discover")
        assert await again(api, UNKNOWN) == [103, *OWN]
        assert await again(api, PERSONAL) == list(SPEC.users[PERSONAL].order_again)
        # What is newer than either, what is hidden, and who is erased.
        api.resources.overlay.note_order(SHORT, 107, 6)
        assert await again(api) == [107, 103, *OWN]
        api.resources.overlay.note_hidden(SHORT, [103], 7)
        assert await again(api) == [107, *OWN]
        api.resources.overlay.note_erased(UNKNOWN, 6)
        assert await again(api, UNKNOWN) == []
        teller.erased(PERSONAL, 6)
        await until(lambda: api.resources.overlay.exclusions.keys)  # type: ignore[union-attr]
        assert await again(api, PERSONAL) == []
        # Told of this version, too.
        teller.lists(first, SPEC, SHORT, UserSpec("personal", "Osaka", order_again=(109,)), 7)
        await told(api, SHORT, 7)
        assert await again(api) == [109]
        # And forward again: what the other version knows now.
        store.activate(second.version, pin=False)
        await api.serves(second.version)
        assert await again(api) == [109, *OWN]


async def test_a_snapshot_that_contains_what_was_told_is_served_as_it_is(
    settings: Settings, store: SnapshotStore, teller: Teller
) -> None:
    first = publish_snapshot(store, SPEC)
    async with running(settings) as api:
        await api.serves(first.version)
        teller.lists(first, SPEC, SHORT, TOLD, 5)
        await told(api, SHORT, 5)
        later = datetime.now(UTC) + timedelta(seconds=1)
        second = publish_snapshot(
            store, SPEC, change_manifest=lambda made: replace(made, changes_since=later)
        )
        await api.serves(second.version)
        assert await again(api) == OWN


async def test_metadata_that_cannot_be_cut_hold_up_no_version_and_show_nothing_closed(
    settings: Settings,
    store: SnapshotStore,
    teller: Teller,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no coder today")

    broken = pytest.MonkeyPatch()
    request.addfinalizer(broken.undo)
    first = publish_snapshot(store, SPEC)
    shown = set(SPEC.restaurants) - {CLOSED}
    async with running(settings) as api:
        await api.serves(first.version)
        teller.closed(CLOSED)
        await until(lambda: api.resources.snapshots.require_active().shown.gone)
        right = await metadata(api)
        assert right == (200, shown)
        second = publish_snapshot(store, SPEC, activate=False)
        broken.setattr(brotli, "Compressor", fails)
        store.activate(second.version, pin=False)
        await api.serves(second.version)
        store.activate(first.version, pin=False)
        await api.serves(first.version)
        assert await metadata(api) == right
        fields = (await api.client.get(METADATA)).headers
        lists = await api.client.get("/api/recommendations", headers=api.as_user(SHORT))
        assert lists.headers["x-snapshot-version"] == first.version
        assert lists.headers["x-metadata-version"] == fields["x-metadata-version"]
    monkeypatch.setattr(overlay_showing, "MAX_REST_SECONDS", 0.1)
    async with running(settings) as api:
        # There is nothing that was right before.
        assert (await metadata(api))[0] == 503
        assert CLOSED not in await again(api, name="for_you")
        broken.undo()
        await until(lambda: not api.resources.snapshots.require_active().shown.is_interim)
        assert await metadata(api) == right
