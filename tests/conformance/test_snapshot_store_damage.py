"""Damaged, missing, foreign and hostile values in a store: never trusted, never executed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import SnapshotDamaged, SnapshotNotFound, SnapshotUnsupported, TasteMatchError
from shared.snapshot.layout import Keys
from shared.snapshot.manifest import encode_manifest
from shared.snapshot.store import CHUNK_BYTES, SnapshotStore
from shared.snapshot.verification import verify_parts
from tests.conformance.snapshot_engines import (
    NAMESPACE,
    TINY,
    Builder,
    DiskEngine,
    Engine,
    free_pointer,
    publish,
    read_whole,
    states,
)

KEYS = Keys(NAMESPACE)


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def test_a_flipped_bit_in_a_part_is_found(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    old, new = builder.build(TINY), builder.build()
    publish(store, old)
    publish(store, new)
    store.activate(old.version, pin=False)
    key = KEYS.chunk(new.version, "lists", 1)
    engine.overwrite(key, flipped(engine.raw()[key], 1234, 3))

    with pytest.raises(SnapshotDamaged, match="the part lists"):
        verify_parts(store, store.manifest(new.version))
    with pytest.raises(SnapshotDamaged, match="the part lists"):
        store.activate(new.version, pin=False)
    assert store.pointer() == free_pointer(old.version, 3)
    read_whole(store, old.version)


@pytest.mark.parametrize(
    "damage",
    [
        lambda chunk: chunk[:-1],
        lambda chunk: chunk + b"x",
        lambda chunk: chunk + bytes(CHUNK_BYTES),
        lambda _chunk: b"x",
        lambda _chunk: b"",
    ],
    ids=["shorter", "longer", "far longer", "one byte", "empty"],
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_chunk_of_another_length_is_damage(
    engine: Engine,
    store: SnapshotStore,
    builder: Builder,
    number: int,
    damage: Callable[[bytes], bytes],
) -> None:
    built = builder.build()
    publish(store, built)
    key = KEYS.chunk(built.version, "lists", number)
    engine.overwrite(key, damage(engine.raw()[key]))
    with pytest.raises(SnapshotDamaged):
        list(store.chunks(built.manifest, "lists"))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_chunk_is_damage(
    engine: Engine, store: SnapshotStore, builder: Builder, number: int
) -> None:
    built = builder.build()
    publish(store, built)
    engine.remove(KEYS.chunk(built.version, "lists", number))
    with pytest.raises(SnapshotDamaged, match=f"chunk {number} of the part lists"):
        list(store.chunks(built.manifest, "lists"))


def test_every_flipped_byte_of_a_manifest_is_found(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    old, new = builder.build(TINY), builder.build(TINY)
    publish(store, old)
    publish(store, new)
    key = KEYS.manifest(new.version)
    whole = engine.raw()[key]
    for place in range(0, len(whole), 7):
        engine.overwrite(key, flipped(whole, place, place % 8))
        with pytest.raises(SnapshotDamaged):
            store.manifest(new.version)
    assert states(store) == {old.version: "kept"}
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        engine.overwrite(key, whole[:size])
        with pytest.raises(SnapshotDamaged):
            store.manifest(new.version)
    engine.remove(key)
    with pytest.raises(SnapshotDamaged):
        store.activate(new.version, pin=False)
    store.activate(old.version, pin=False)
    assert states(store) == {old.version: "active"}


def test_a_manifest_of_another_version_or_schema_is_refused(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    old, new = builder.build(TINY), builder.build(TINY)
    publish(store, old)
    publish(store, new)
    engine.overwrite(KEYS.manifest(new.version), encode_manifest(old.manifest))
    with pytest.raises(SnapshotDamaged, match="belongs to another"):
        store.manifest(new.version)

    head, _, body = encode_manifest(new.manifest).partition(b"\n")
    magic, _, digest = head.split(b" ")
    engine.overwrite(KEYS.manifest(new.version), b"%s 9 %s\n%s" % (magic, digest, body))
    with pytest.raises(SnapshotUnsupported):
        store.manifest(new.version)
    assert states(store) == {old.version: "kept"}


def test_every_flipped_byte_of_the_pointer_is_found(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    publish(store, builder.build(TINY))
    whole = engine.raw()[KEYS.pointer]
    damaged = [flipped(whole, place, place % 8) for place in range(len(whole))]
    damaged += [whole[:size] for size in range(1, len(whole))] + [whole + b" ", whole * 50]
    for data in damaged:
        engine.overwrite(KEYS.pointer, data)
        with pytest.raises(SnapshotDamaged):
            store.pointer()
    engine.overwrite(KEYS.pointer, whole)
    assert store.pointer().generation == 1


def test_a_damaged_pointer_is_repaired_by_an_activation(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    first, second = builder.build(TINY), builder.build(TINY)
    publish(store, first)
    publish(store, second)
    engine.overwrite(KEYS.pointer, flipped(engine.raw()[KEYS.pointer], 3))
    with pytest.raises(SnapshotDamaged):
        store.unpin()
    with pytest.raises(SnapshotDamaged):
        store.prune(1)
    assert states(store) == {first.version: "kept", second.version: "kept"}

    # The generation goes on from where it stood: an older run cannot take its place.
    assert store.activate(first.version, pin=False) == free_pointer(first.version, 3)
    assert store.pointer() == free_pointer(first.version, 3)


def test_a_damaged_pointer_is_repaired_by_a_publish_that_found_it_so(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    first, second, third, fourth = (builder.build(TINY) for _ in range(4))
    publish(store, first)
    engine.overwrite(KEYS.pointer, b"tastematch-pointer 1 nonsense")

    state = store.publish(second.manifest, second.parts, expected_generation=1, activate=True)
    assert state == "held"
    with pytest.raises(SnapshotDamaged):
        store.pointer()

    state = store.publish(third.manifest, third.parts, expected_generation=None, activate=True)
    assert state == "active"
    assert store.pointer() == free_pointer(third.version, 2)

    # By now somebody has repaired it.
    state = store.publish(fourth.manifest, fourth.parts, expected_generation=None, activate=True)
    assert state == "held"


def test_a_lost_pointer_is_set_anew(engine: Engine, store: SnapshotStore, builder: Builder) -> None:
    first, second, third = (builder.build(TINY) for _ in range(3))
    publish(store, first)
    publish(store, second)
    engine.remove(KEYS.pointer)
    assert store.pointer().version is None
    assert states(store) == {first.version: "kept", second.version: "kept"}

    state = store.publish(third.manifest, third.parts, expected_generation=2, activate=True)

    assert state == "active"
    assert store.pointer() == free_pointer(third.version, 3)


def test_a_damaged_entry_of_the_version_list_costs_no_version(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    first, second = builder.build(TINY), builder.build(TINY)
    publish(store, first)
    publish(store, second)
    engine.overwrite(KEYS.record(first.version), b"\xff\x00not a number")
    assert states(store) == {first.version: "held", second.version: "active"}
    assert store.activate(first.version, pin=False) == free_pointer(first.version, 3)


def test_a_pointer_to_a_version_that_is_gone(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    built = builder.build(TINY)
    publish(store, built)
    for key in engine.raw():
        if built.version in key and key != KEYS.pointer:
            engine.remove(key)
    if engine.name == "redis":
        engine.remove(KEYS.versions)
    assert store.pointer().version == built.version
    with pytest.raises(SnapshotNotFound):
        store.manifest(built.version)
    assert publish(store, builder.build(TINY)) == "active"


# --- hostile values ---------------------------------------------------------------------------


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_planted_pickle_is_never_executed(
    engine: Engine, store: SnapshotStore, builder: Builder, tmp_path: Path
) -> None:
    trap = tmp_path / "sprung"
    bomb = pickle.dumps(Trap(trap))
    pickle.loads(bomb)
    assert trap.exists(), "the trap works"
    trap.unlink()
    built = builder.build(TINY)
    publish(store, built)
    for key in engine.raw():
        engine.overwrite(key, bomb)
    if isinstance(engine, DiskEngine):
        with engine.connection() as connection, connection:
            connection.execute("UPDATE Cache SET mode = 4")  # diskcache's mark of a pickle
            connection.execute(
                "INSERT INTO Cache (key, raw, mode, value) VALUES (?, 0, 4, ?)", (bomb, bomb)
            )

    use_everything(store, built.version)
    for action in (store.pointer, store.unpin, lambda: store.manifest(built.version)):
        with pytest.raises(SnapshotDamaged):
            action()
    with pytest.raises(SnapshotDamaged):
        list(store.chunks(built.manifest, "lists"))
    repaired = builder.build(TINY)
    state = store.publish(
        repaired.manifest, repaired.parts, expected_generation=None, activate=True
    )
    assert state == "active"
    read_whole(store, repaired.version)
    assert not trap.exists()


def test_a_planted_file_name_is_neither_read_nor_removed(builder: Builder, tmp_path: Path) -> None:
    engine = DiskEngine(tmp_path / "store")
    store = engine.open()
    built = builder.build(TINY)
    publish(store, built)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(900))
    with engine.connection() as connection, connection:
        connection.execute("UPDATE Cache SET mode = 2, value = NULL, filename = '../secret'")

    use_everything(store, built.version)
    with pytest.raises(SnapshotDamaged):
        list(store.chunks(built.manifest, "lists"))
    for _ in range(2):
        publish_anyway = builder.build(TINY)
        store.publish(
            publish_anyway.manifest, publish_anyway.parts, expected_generation=None, activate=True
        )
        store.prune(1)
    assert not any(built.version in key for key in engine.raw())
    assert secret.exists()
    store.close()


def test_a_value_of_any_length_is_read_in_bounded_memory(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    built = builder.build(TINY)
    publish(store, built)
    for key in (
        KEYS.pointer,
        KEYS.manifest(built.version),
        KEYS.chunk(built.version, "lists", 0),
    ):
        engine.overwrite(key, bytes(32 * 1024**2))
    before = peak_bytes(reset=True)
    for action in (store.pointer, lambda: store.manifest(built.version)):
        with pytest.raises(SnapshotDamaged):
            action()
    with pytest.raises(SnapshotDamaged):
        list(store.chunks(built.manifest, "lists"))
    assert peak_bytes() - before < 8 * 1024**2


def test_random_flips_in_the_disk_stores_file(builder: Builder, tmp_path: Path) -> None:
    """SQLite has no checksums of its own: what it returns is right, or refused by ours."""
    engine = DiskEngine(tmp_path / "store")
    store = engine.open()
    built = builder.build({"users": 20_000, "lists": 30_000})
    publish(store, built)
    store.close()
    file = engine.folder / "cache.db"
    whole = file.read_bytes()
    outcomes = {"right": 0, "refused": 0}
    for place in range(0, len(whole), len(whole) // 200):
        for beside in engine.folder.glob("cache.db-*"):
            beside.unlink()
        file.write_bytes(flipped(whole, place, place % 8))
        reader = engine.open()
        try:
            if reader.pointer().version is not None:
                assert reader.manifest(built.version) == built.manifest
                verify_parts(reader, built.manifest)
            outcomes["right"] += 1
        except TasteMatchError:
            outcomes["refused"] += 1
        finally:
            reader.close()
    assert outcomes["refused"] > 100, outcomes


def use_everything(store: SnapshotStore, version: str) -> None:
    """Every way into a store; deliberate errors are fine, anything else is not."""
    actions: list[Callable[[], object]] = [
        store.pointer,
        store.newest_version,
        store.versions,
        store.unpin,
        lambda: store.manifest(version),
        lambda: store.activate(version, pin=True),
        lambda: store.prune(1),
    ]
    for action in actions:
        try:
            action()
        except TasteMatchError:
            continue


def peak_bytes(*, reset: bool = False) -> int:
    """The most that this process held since its start, or since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
