"""What every snapshot store does: publish, read, roll back, pin, prune, sweep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.errors import PublishSuperseded, SnapshotDamaged, SnapshotNotFound, TasteMatchError
from shared.snapshot.store import CHUNK_BYTES, Pointer, SnapshotStore
from tests.conformance.snapshot_engines import (
    SMALL,
    TINY,
    Builder,
    Engine,
    free_pointer,
    publish,
    read_whole,
    states,
)

NOTHING = Pointer(version=None, generation=0, is_pinned=False)


def test_a_new_store_is_empty(store: SnapshotStore, builder: Builder) -> None:
    built = builder.build(TINY)
    assert store.pointer() == NOTHING
    assert store.unpin() == NOTHING
    assert store.newest_version() is None
    assert store.versions() == []
    assert store.prune(1) == []
    with pytest.raises(SnapshotNotFound):
        store.manifest(built.version)
    with pytest.raises(SnapshotNotFound):
        list(store.chunks(built.manifest, "lists"))
    with pytest.raises(SnapshotNotFound):
        store.activate(built.version, pin=False)


def test_what_is_published_reads_back(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    built = builder.build()
    progress: list[int] = []

    state = store.publish(
        built.manifest,
        built.parts,
        expected_generation=0,
        activate=True,
        on_progress=progress.append,
    )

    assert state == "active"
    assert progress == sorted(progress)
    assert progress[-1] == sum(SMALL.values())
    for reader in (store, engine.open()):
        assert reader.pointer() == free_pointer(built.version, 1)
        assert reader.newest_version() == built.version
        assert reader.manifest(built.version) == built.manifest
        for part, path in built.parts.items():
            assert b"".join(reader.chunks(built.manifest, part)) == path.read_bytes()
        read_whole(reader, built.version)
        reader.close()
    assert max(map(len, engine.raw().values())) <= CHUNK_BYTES


def test_a_part_that_the_manifest_lacks_is_damage(store: SnapshotStore, builder: Builder) -> None:
    built = builder.build(TINY)
    publish(store, built)
    with pytest.raises(SnapshotDamaged, match="no part trending"):
        list(store.chunks(built.manifest, "trending"))


def test_nothing_shows_before_the_end(store: SnapshotStore, builder: Builder) -> None:
    old, new = builder.build(TINY), builder.build()
    publish(store, old)
    looks = 0

    def look(_written: int = 0) -> None:
        nonlocal looks
        looks += 1
        assert store.pointer() == free_pointer(old.version, 1)
        assert states(store) == {old.version: "active"}
        assert store.newest_version() == old.version
        with pytest.raises(SnapshotNotFound):
            store.manifest(new.version)

    store.publish(
        new.manifest,
        new.parts,
        expected_generation=1,
        activate=True,
        on_progress=look,
        check=look,
    )
    assert looks >= 2
    assert states(store) == {new.version: "active", old.version: "kept"}


def test_a_refused_publish_leaves_nothing(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    publish(store, builder.build(TINY))
    before = engine.raw()

    def refuse() -> None:
        raise TasteMatchError("the job belongs to another worker now")

    refused = builder.build()
    with pytest.raises(TasteMatchError, match="belongs to another"):
        store.publish(
            refused.manifest, refused.parts, expected_generation=1, activate=True, check=refuse
        )
    assert engine.raw() == before


@pytest.mark.parametrize("change", ["longer", "shorter", "other"])
def test_a_file_that_differs_from_its_manifest_is_refused(
    engine: Engine, store: SnapshotStore, builder: Builder, change: str
) -> None:
    publish(store, builder.build(TINY))
    before = engine.raw()
    built = builder.build()
    path = built.parts["lists"]
    content = path.read_bytes()
    path.write_bytes(
        {"longer": content + b"x", "shorter": content[:-1], "other": b"x" + content[1:]}[change]
    )
    with pytest.raises(SnapshotDamaged, match="lists"):
        publish(store, built)
    assert engine.raw() == before


def test_a_version_is_published_once(store: SnapshotStore, builder: Builder) -> None:
    built = builder.build(TINY)
    publish(store, built)
    with pytest.raises(PublishSuperseded):
        publish(store, replace(builder.build(TINY), manifest=built.manifest))
    read_whole(store, built.version)
    assert states(store) == {built.version: "active"}


# --- the pointer ------------------------------------------------------------------------------


def test_a_held_version_is_activated_by_hand(store: SnapshotStore, builder: Builder) -> None:
    first, second = builder.build(TINY), builder.build(TINY)
    assert publish(store, first, activate=False) == "held"
    assert store.pointer() == NOTHING
    assert publish(store, second, activate=True) == "active"
    assert states(store) == {second.version: "active", first.version: "held"}

    assert store.activate(first.version, pin=False) == free_pointer(first.version, 2)

    assert store.pointer() == free_pointer(first.version, 2)
    assert states(store) == {second.version: "kept", first.version: "active"}


def test_a_publish_that_began_before_a_rollback_is_held(
    store: SnapshotStore, builder: Builder
) -> None:
    first, second, third, fourth = (builder.build(TINY) for _ in range(4))
    publish(store, first)
    publish(store, second)
    seen = store.pointer().generation
    store.activate(first.version, pin=False)

    state = store.publish(third.manifest, third.parts, expected_generation=seen, activate=True)

    assert state == "held"
    assert store.pointer() == free_pointer(first.version, 3)
    assert publish(store, fourth) == "active"
    assert states(store) == {
        fourth.version: "active",
        third.version: "held",
        second.version: "kept",
        first.version: "kept",
    }


def test_a_rollback_in_the_last_moment_of_a_publish_wins(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    first, second = builder.build(TINY), builder.build(TINY)
    publish(store, first)
    operator = engine.open()

    state = store.publish(
        second.manifest,
        second.parts,
        expected_generation=1,
        activate=True,
        check=lambda: operator.activate(first.version, pin=False),
    )

    assert state == "held"
    assert store.pointer() == free_pointer(first.version, 2)
    operator.close()


def test_while_pinned_nothing_new_is_activated(store: SnapshotStore, builder: Builder) -> None:
    first, second, third, fourth = (builder.build(TINY) for _ in range(4))
    publish(store, first)
    publish(store, second)

    pinned = store.activate(first.version, pin=True)
    assert pinned == Pointer(first.version, 3, is_pinned=True)
    assert publish(store, third) == "held"
    assert store.pointer() == pinned

    # Without a word on the pin an activation leaves it as it is.
    assert store.activate(second.version, pin=False) == Pointer(second.version, 4, is_pinned=True)

    assert store.unpin() == free_pointer(second.version, 4)
    assert store.pointer() == free_pointer(second.version, 4)
    assert publish(store, fourth) == "active"


def test_activating_the_active_version_counts_as_a_decision(
    store: SnapshotStore, builder: Builder
) -> None:
    first, second = builder.build(TINY), builder.build(TINY)
    publish(store, first)
    assert store.activate(first.version, pin=False) == free_pointer(first.version, 2)
    state = store.publish(second.manifest, second.parts, expected_generation=1, activate=True)
    assert state == "held"
