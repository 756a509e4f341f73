"""What leaves a snapshot store: pruned versions, unfinished publishes; and what stays."""

from __future__ import annotations

import pytest

from shared.errors import PublishSuperseded, SnapshotNotFound
from shared.snapshot.manifest import new_version
from shared.snapshot.store import SnapshotStore
from tests.conformance.snapshot_engines import (
    NAMESPACE,
    TINY,
    Builder,
    Engine,
    free_pointer,
    publish,
    read_whole,
    states,
)


def test_pruning_keeps_the_newest_and_the_active(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    built = [builder.build(TINY) for _ in range(5)]
    for one in built:
        publish(store, one)
    store.activate(built[1].version, pin=False)

    assert store.prune(2) == [built[0].version, built[2].version]

    assert states(store) == {
        built[4].version: "kept",
        built[3].version: "kept",
        built[1].version: "active",
    }
    for one in (built[1], built[3], built[4]):
        read_whole(store, one.version)
    for one in (built[0], built[2]):
        assert not any(one.version in key for key in engine.raw())
        with pytest.raises(SnapshotNotFound):
            store.manifest(one.version)
        with pytest.raises(SnapshotNotFound):
            store.activate(one.version, pin=False)
    assert store.prune(2) == []
    assert store.newest_version() == built[4].version


def test_rollback_to_the_oldest_that_is_kept(store: SnapshotStore, builder: Builder) -> None:
    built = [builder.build(TINY) for _ in range(4)]
    for one in built:
        publish(store, one)
        store.prune(3)
    assert list(states(store)) == [one.version for one in reversed(built[1:])]
    assert store.activate(built[1].version, pin=False).version == built[1].version
    read_whole(store, built[1].version)


def test_a_reader_of_a_pruned_version_is_told(store: SnapshotStore, builder: Builder) -> None:
    old, new = builder.build(), builder.build(TINY)
    publish(store, old)
    chunks = store.chunks(old.manifest, "lists")
    next(chunks)
    publish(store, new)
    store.prune(1)
    with pytest.raises(SnapshotNotFound):
        list(chunks)


@pytest.mark.parametrize("moment", ["in its parts", "at its end"])
def test_a_later_publish_sweeps_an_unfinished_one(
    engine: Engine, store: SnapshotStore, builder: Builder, moment: str
) -> None:
    stalled, later = builder.build(), builder.build(TINY)
    other = engine.open()
    outcomes: list[str] = []

    def overtake(_written: int = 0) -> None:
        if not outcomes:
            outcomes.append(publish(other, later))

    with pytest.raises(PublishSuperseded):
        store.publish(
            stalled.manifest,
            stalled.parts,
            expected_generation=0,
            activate=True,
            on_progress=overtake if moment == "in its parts" else None,
            check=overtake,
        )

    assert outcomes == ["active"]
    assert store.pointer() == free_pointer(later.version, 1)
    assert not any(stalled.version in key for key in engine.raw())
    read_whole(store, later.version)
    other.close()


def test_orphans_are_swept_and_others_left_alone(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    first = builder.build(TINY)
    publish(store, first)
    lost = new_version(first.manifest.created_at, after=None)
    orphans = [f"candidate:{lost}", f"manifest:{lost}", f"part:{lost}:lists:0", f"part:{lost}:x:7"]
    neighbours = ["unknown", f"unknown:{lost}", "part:not-a-version:lists:0", f"parts:{lost}"]
    for name in orphans + neighbours:
        engine.overwrite(f"{NAMESPACE}:snapshot:{name}", b"left behind")
    engine.overwrite(f"other:snapshot:part:{lost}:lists:0", b"of another shop")

    publish(store, builder.build(TINY))

    names = set(engine.raw())
    assert not names & {f"{NAMESPACE}:snapshot:{name}" for name in orphans}
    assert names > {f"{NAMESPACE}:snapshot:{name}" for name in neighbours}
    assert f"other:snapshot:part:{lost}:lists:0" in names
    read_whole(store, first.version)


def test_two_shops_share_one_engine(engine: Engine, builder: Builder) -> None:
    stores = [engine.open("shop"), engine.open("shop.two")]
    built = [builder.build(TINY) for _ in stores]
    for store, one in zip(stores, built, strict=True):
        assert publish(store, one) == "active"
    for store, one in zip(stores, built, strict=True):
        assert states(store) == {one.version: "active"}
        assert store.prune(1) == []
        read_whole(store, one.version)
        store.close()
