"""Replicas forget what is no longer told, and keep nothing of users who were erased."""

from __future__ import annotations

import contextlib
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api import overlay, overlay_erasing, overlay_notes, overlay_reading, overlay_records
from api.overlay_files import Record
from api.overlay_records import RecordFile, RecordsFull
from shared.settings import Settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.overlay import EXCLUSIONS, GONE, WHOLE, UserExclusion, encode_exclusion
from shared.snapshot.store import SnapshotStore
from tests.api.overlays import Teller, refreshed, until
from tests.api.running import (
    CITY_ONLY,
    OSAKA,
    PERSONAL,
    PREFERENCES,
    SHORT,
    SPEC,
    Api,
    running,
)
from tests.services.snapshots import UserSpec, publish_snapshot


@pytest.fixture
def sweeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole log is read again without a rest."""
    monkeypatch.setattr(overlay_reading, "SWEEP_SECONDS", 0.0)


def contains_all_until_now(store: SnapshotStore) -> Manifest:
    now = datetime.now(UTC)
    return publish_snapshot(
        store, SPEC, change_manifest=lambda made: replace(made, changes_since=now)
    )


async def swept(api: Api) -> None:
    """All of the log was read, from now on."""
    sweep = api.resources.overlay_follower.sweep
    ended = sweep.ended
    await until(lambda: sweep.ended >= ended + 2)


def states(api: Api) -> tuple[bool, bool, frozenset[int], frozenset[int]]:
    snapshot, asked = api.resources.snapshots.require_active(), api.resources.overlay
    of = {each: asked.of_user(snapshot, each) for each in SPEC.users}
    erased = of[SHORT].is_erased, of[CITY_ONLY].is_erased
    return (*erased, of[PERSONAL].hidden, of[PREFERENCES].hidden)


@pytest.mark.usefixtures("sweeping")
async def test_what_left_the_log_while_a_replica_was_away_holds_no_longer(
    settings: Settings, store: SnapshotStore, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_notes, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(overlay_notes, "LATER_SECONDS", 0.0)
    first = publish_snapshot(store, SPEC)
    kept, noted = frozenset({OSAKA[0]}), frozenset({OSAKA[1]})
    async with running(settings) as api:
        await api.serves(first.version)
        teller.closed(105)
        teller.erased(SHORT, 3)
        teller.hides(PERSONAL, sorted(kept), 1)
        # The worker tells of these and forgets them while nobody is there to hear it.
        api.resources.overlay.note_erased(CITY_ONLY, 5)
        api.resources.overlay.note_hidden(PREFERENCES, noted, 9)
        await until(lambda: states(api) == (True, True, kept, noted))
        await until(lambda: api.resources.overlay.inactive == {105})
    teller.writer.remove(EXCLUSIONS, ["r105", f"u{SHORT}"])
    teller.writer.append(EXCLUSIONS, {WHOLE: GONE})
    async with running(settings) as api:
        # What is served was made before that was told.
        await swept(api)
        assert states(api) == (True, True, kept, noted)
        assert api.resources.overlay.inactive == {105}
        # A log that is not whole says nothing by what it lacks.
        teller.writer.remove(EXCLUSIONS, [WHOLE])
        second = contains_all_until_now(store)
        await api.serves(second.version)
        store.prune(1)
        await swept(api)
        assert states(api) == (True, True, kept, noted)
        assert api.resources.overlay.inactive == {105}
        # A user of an id that was forgotten begins at 1.
        teller.hides(PREFERENCES, [], 1)
        teller.writer.append(EXCLUSIONS, {WHOLE: GONE})
        await until(lambda: states(api) == (False, False, kept, frozenset()))
        await until(lambda: not api.resources.overlay.inactive)
        # What closed since is not in the snapshot.
        teller.closed(107)
        await until(lambda: api.resources.overlay.inactive == {107})
        teller.writer.remove(EXCLUSIONS, ["r107"])
        await swept(api)
        assert api.resources.overlay.inactive == {107}
    async with running(settings) as api:
        assert states(api) == (False, False, kept, frozenset())
        assert api.resources.overlay.inactive == {107}


@pytest.mark.usefixtures("sweeping")
async def test_what_is_read_again_casts_no_doubt_on_a_note(
    api: Api, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_notes, "DOUBT_SECONDS", 0.0)
    teller.closed(105)
    await until(lambda: api.resources.overlay.inactive == {105})
    teller.opened(105)
    await until(lambda: not api.resources.overlay.inactive)
    api.resources.overlay.note_activity([(105, True, 3)])
    await swept(api)
    assert api.resources.overlay.inactive == {105}
    teller.opened(105)
    await until(lambda: not api.resources.overlay.inactive)


async def test_a_full_replica_goes_on_and_takes_what_finds_room_later(
    api: Api, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_records, "MAX_SUBJECTS", 2)
    monkeypatch.setattr("api.overlay_follower.SWEEP_AGAIN_SECONDS", 0.0)

    def inactive() -> frozenset[int]:
        return api.resources.overlay.inactive

    await until(lambda: api.resources.overlay_follower.sweep.ended)  # the next is far off
    teller.closed(105, 107, 109)
    await until(lambda: inactive() == {105, 107})
    teller.closed(107, revision=22)  # takes no room
    teller.opened(105)
    await until(lambda: inactive() == {107, 109})


def test_what_takes_the_place_of_a_record_needs_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_records, "MAX_LIVE_BYTES", 2_000)
    monkeypatch.setattr(overlay_records, "MAX_SUBJECTS", 3)
    folder = tmp_path / "overlay"
    for is_refused in (False, True):
        if is_refused:
            folder = tmp_path / "file"
            folder.write_text("no folder")
            monkeypatch.setattr(overlay_records, "MAX_HELD_BYTES", 1_600)
        file = RecordFile(folder, EXCLUSIONS)
        for number in range(200):
            file.append([Record(number, "user", number % 3, b"%200d" % number)])
        with pytest.raises(RecordsFull):
            file.append([Record(900, "user", 3, b"short")])
        with pytest.raises(RecordsFull):
            file.append([Record(900, "user", 2, bytes(1_900))])
        file.append([Record(901, "user", 1, b""), Record(902, "user", 3, b"short")])
        found = [file.data(each) for each in range(4)]
        assert found == [b"%200d" % 198, None, b"%200d" % 197, b"short"]


async def test_lists_of_an_erased_user_leave_the_disk(
    settings: Settings, store: SnapshotStore, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay_erasing, "CLEAN_SECONDS", 0.0)

    def on_disk(record: bytes) -> list[str]:
        found = []
        for path in settings.overlay_dir.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # a file on its way to another's name
                if record in path.read_bytes():
                    found.append(path.name)
        return found

    manifest = publish_snapshot(store, SPEC)
    lists = [UserSpec("personal", "Osaka", for_you=OSAKA[:count]) for count in (3, 5)]
    secrets = [refreshed(SPEC, each, number) for number, each in enumerate(lists, 1)]
    hides = b'"hidden":[%d,%d]' % OSAKA[:2]
    async with running(settings) as api:
        await api.serves(manifest.version)
        overlay_, snapshot = api.resources.overlay, api.resources.snapshots.require_active()
        for number, each in enumerate(lists, 1):
            for user_id in (SHORT, PERSONAL):
                teller.lists(manifest, SPEC, user_id, each, number)
            await until(lambda: overlay_.of_user(snapshot, SHORT).revision == number)  # noqa: B023
            await until(lambda: overlay_.of_user(snapshot, PERSONAL).revision == number)  # noqa: B023
        teller.hides(SHORT, OSAKA[:2], 3)
        await until(lambda: overlay_.of_user(snapshot, SHORT).hidden)
        assert all(map(on_disk, (*secrets, hides)))
        other = publish_snapshot(store, SPEC)
        await api.serves(other.version)
        # That of a version that is kept, too.
        teller.erased(SHORT, 4)
        await until(lambda: not on_disk(secrets[0]) and not on_disk(hides))
        assert on_disk(secrets[1])  # of another user
        assert api.resources.snapshots.require_version(manifest.version).refreshed is not None
        # And of one who was erased and came back before this replica heard of it.
        again = UserExclusion(9, False, frozenset(), erased_at=int(time.time()) + 1)
        teller.writer.append(EXCLUSIONS, {f"u{PERSONAL}": encode_exclusion(again)})
        await until(lambda: not on_disk(secrets[1]))


async def test_closed_restaurants_of_every_open_snapshot_are_made_ready_for_requests(
    api: Api, store: SnapshotStore, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = api.resources.snapshots.require_active()
    second = publish_snapshot(store, SPEC)
    await api.serves(second.version)
    assert api.resources.snapshots.require_version(first.version) is first
    teller.closed(105, 424_242)
    ordinal = first.restaurants.ordinal_of(105)
    await until(lambda: first.gone.ordinals == {ordinal})  # though nobody asked
    # Whatever changes, and however much of it at once, it is as if it were made anew.
    monkeypatch.setattr(overlay, "MAX_STEP_IDS", 6)
    chance, asked = random.Random(8), api.resources.overlay
    for revision in range(2, 60):
        ids = chance.sample(sorted(SPEC.restaurants), chance.choice((1, 2, 9)))
        asked.note_activity((each, chance.random() < 0.5, revision) for each in ids)
        if chance.random() < 0.6:
            ordinals = {first.restaurants.ordinal_of(each) for each in asked.inactive} - {None}
            assert asked.gone_in(first).ordinals == ordinals
            assert bool(asked.gone_in(first).tag) == bool(ordinals)
            active = api.resources.snapshots.require_active()
            assert asked.gone_in(active).tag == asked.gone_in(first).tag
