"""The diskcache store when its disk is full, its folder locked, closed, damaged or replaced."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import diskcache
import pytest

from shared.errors import SnapshotDamaged, StoreFull, StoreUnavailable, TasteMatchError
from shared.snapshot.disk_cache import RESERVE_BYTES
from shared.snapshot.disk_store import DiskStore
from shared.snapshot.store import SnapshotStore
from tests.conformance.small_disks import fill, small_disk
from tests.conformance.snapshot_engines import (
    NAMESPACE,
    SMALL,
    TINY,
    Builder,
    DiskEngine,
    free_pointer,
    publish,
    read_whole,
    states,
)

MB = 1_000_000
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def engine(tmp_path: Path) -> DiskEngine:
    return DiskEngine(tmp_path / "store")


@pytest.fixture
def store(engine: DiskEngine) -> Iterator[SnapshotStore]:
    store = engine.open()
    yield store
    store.close()


# --- size -------------------------------------------------------------------------------------


def test_more_than_diskcaches_limit_is_kept(
    engine: DiskEngine, store: SnapshotStore, builder: Builder
) -> None:
    """Whatever limit stands in the folder, the default of 1 GB or a smaller one."""
    stock = diskcache.Cache(str(engine.folder), size_limit=10 * MB)
    assert stock.eviction_policy == "least-recently-stored"
    stock.close()
    built = [builder.build({"lists": 12 * MB, "users": MB})]
    built += [builder.describe(built[0].parts["lists"].parent) for _ in range(3)]

    for one in built:
        publish(store, one)
        store.prune(3)

    assert list(states(store)) == [one.version for one in reversed(built[1:])]
    for one in built[1:]:
        read_whole(store, one.version)
    assert store.activate(built[1].version, pin=False).version == built[1].version


def test_the_file_stops_growing_and_shrinks_with_the_data(
    engine: DiskEngine, store: SnapshotStore, builder: Builder
) -> None:
    file, sizes = engine.folder / "cache.db", []
    for _ in range(6):
        publish(store, builder.build({"lists": 12 * MB}))
        store.prune(1)
        sizes.append(file.stat().st_size)
    assert sizes[-1] <= sizes[1] * 1.05 < 30 * MB
    for _ in range(2):
        publish(store, builder.build(TINY))
        store.prune(1)
    assert file.stat().st_size < 8 * MB


def test_everything_is_in_one_private_file(
    engine: DiskEngine, store: SnapshotStore, builder: Builder
) -> None:
    publish(store, builder.build())
    store.prune(1)
    assert engine.folder.stat().st_mode & 0o777 == 0o700
    names = {path.name for path in engine.folder.iterdir()}
    assert names <= {"cache.db", "cache.db-wal", "cache.db-shm", "reserve"}


# --- full -------------------------------------------------------------------------------------


def test_a_publish_that_cannot_fit_is_refused_before_it_writes(
    tmp_path: Path, builder: Builder
) -> None:
    old, new = builder.build(TINY), builder.build({"lists": 30 * MB})
    with small_disk(tmp_path / "disk", 24) as disk:
        store, progress = DiskStore(disk / "store", namespace=NAMESPACE), list[int]()
        publish(store, old)
        with pytest.raises(StoreFull, match=r"needs 3\d\.\d MB; free .*: \d+\.\d MB"):
            store.publish(
                new.manifest,
                new.parts,
                expected_generation=1,
                activate=True,
                on_progress=progress.append,
            )
        assert progress == []
        assert states(store) == {old.version: "active"}
        store.close()


def test_the_disk_gets_full_during_a_publish(tmp_path: Path, builder: Builder) -> None:
    older, old, new, newer = (builder.build({"lists": 5 * MB}) for _ in range(4))
    with small_disk(tmp_path / "disk", 40) as disk:
        engine = DiskEngine(disk / "store")
        store = engine.open()
        publish(store, older)
        publish(store, old)

        with pytest.raises(StoreFull, match=r"needs 11\.\d MB"):
            store.publish(
                new.manifest,
                new.parts,
                expected_generation=2,
                activate=True,
                on_progress=lambda written: fill(disk / "ballast") if written > MB else None,
            )

        # The one that is there is whole, for this process and for one that starts now.
        for reader in (store, engine.open()):
            assert reader.pointer() == free_pointer(old.version, 2)
            assert states(reader) == {old.version: "active", older.version: "kept"}
            read_whole(reader, old.version)
            reader.close()
        assert not any(new.version in key for key in engine.raw())

        # Full to the last byte: an operator rolls back, and pruning frees what it removes.
        fill(disk / "more ballast")
        assert store.activate(older.version, pin=False) == free_pointer(older.version, 3)
        store.activate(old.version, pin=False)
        assert store.prune(1) == [older.version]
        assert states(store) == {old.version: "active"}

        (disk / "ballast").unlink()
        assert publish(store, newer) == "active"
        read_whole(store, newer.version)
        assert (disk / "store" / "reserve").stat().st_size == RESERVE_BYTES
        store.close()


def test_a_store_opens_on_a_full_disk(tmp_path: Path, builder: Builder) -> None:
    old, new = builder.build({"lists": 3 * MB}), builder.build({"lists": 3 * MB})
    with small_disk(tmp_path / "disk", 32) as disk:
        engine = DiskEngine(disk / "store")
        store = engine.open()
        publish(store, old)
        publish(store, new)
        store.close()
        fill(disk / "ballast")

        fresh = engine.open()
        assert fresh.pointer() == free_pointer(new.version, 2)
        read_whole(fresh, new.version)
        assert fresh.prune(1) == [old.version]
        fresh.close()


LIMITED = """
    import json, resource, signal, sys
    from pathlib import Path
    from shared.errors import StoreFull
    from shared.snapshot.manifest import decode_manifest
    from tests.conformance.snapshot_engines import DiskEngine

    folder, parts, manifest = map(Path, sys.argv[1:])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = (folder / "cache.db").stat().st_size + 2_000_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    new = decode_manifest(manifest.read_bytes(), version=manifest.name)
    store = DiskEngine(folder).open()
    try:
        store.publish(
            new, {name: parts / name for name in new.bytes}, expected_generation=1, activate=True
        )
    except StoreFull as error:
        print(error.message)
"""


def test_a_process_that_may_not_write_more(
    engine: DiskEngine, store: SnapshotStore, builder: Builder, tmp_path: Path
) -> None:
    """What a quota does; needs no rights."""
    from shared.snapshot.manifest import encode_manifest

    old, new, newer = builder.build(TINY), builder.build({"lists": 5 * MB}), builder.build(TINY)
    publish(store, old)
    manifest = tmp_path / new.version
    manifest.write_bytes(encode_manifest(new.manifest))
    child = subprocess.run(
        [
            *(sys.executable, "-c", textwrap.dedent(LIMITED)),
            *(engine.folder, new.parts["lists"].parent, manifest),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert child.stderr == ""
    assert child.stdout.startswith("the disk is full: the snapshot needs")
    assert states(store) == {old.version: "active"}
    read_whole(store, old.version)
    assert publish(store, newer) == "active"
    assert not any(new.version in key for key in engine.raw())


# --- locked -----------------------------------------------------------------------------------


def test_a_locked_store_is_read_and_not_waited_for(
    engine: DiskEngine, store: SnapshotStore, builder: Builder
) -> None:
    built = builder.build(TINY)
    publish(store, built)
    with engine.connection() as connection:
        connection.execute("BEGIN IMMEDIATE")
        read_whole(store, built.version)
        fresh = engine.open()
        for action in (fresh.pointer, lambda: publish(store, builder.build(TINY))):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match="locked"):
                action()
            assert time.monotonic() - started < 6
        connection.execute("ROLLBACK")
    assert fresh.pointer() == free_pointer(built.version, 1)
    assert publish(store, builder.build(TINY)) == "active"
    fresh.close()


def test_a_store_opens_while_others_write(
    engine: DiskEngine, store: SnapshotStore, builder: Builder
) -> None:
    publish(store, builder.build(TINY))
    stop = threading.Event()
    writer = engine.open()

    def write() -> None:
        while not stop.is_set():
            publish(writer, builder.build({"lists": 3 * MB}))
            writer.prune(1)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(10):
                fresh = engine.open()
                assert fresh.pointer().version is not None
                fresh.close()
        finally:
            stop.set()
        writing.result()
    writer.close()


def test_threads_share_a_store(engine: DiskEngine, store: SnapshotStore, builder: Builder) -> None:
    built = builder.build(SMALL)
    publish(store, built)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_whole(store, built.version), range(40)))


# --- unusable ---------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    store = DiskStore(tmp_path / "store", namespace=NAMESPACE)
    with pytest.raises(StoreUnavailable) as caught:
        store.pointer()
    assert str(tmp_path) not in caught.value.message


def test_a_database_that_is_none(engine: DiskEngine, builder: Builder) -> None:
    engine.folder.mkdir()
    (engine.folder / "cache.db").write_bytes(b"no database" * 1000)
    store = engine.open()
    with pytest.raises(SnapshotDamaged):
        store.pointer()
    with pytest.raises(SnapshotDamaged):
        store.publish(
            (built := builder.build(TINY)).manifest,
            built.parts,
            expected_generation=None,
            activate=True,
        )
    # What the documents advise: remove the folder. No process has to start anew.
    shutil.rmtree(engine.folder)
    assert publish(store, builder.build(TINY)) == "active"
    store.close()


def test_a_folder_replaced_under_a_running_process(
    engine: DiskEngine, store: SnapshotStore, builder: Builder
) -> None:
    publish(store, builder.build(TINY))
    shutil.rmtree(engine.folder)
    other, built = engine.open(), builder.build(TINY)
    assert other.pointer().version is None
    publish(other, built)
    assert store.pointer() == free_pointer(built.version, 1)
    other.close()


def test_every_way_in_survives_a_database_without_its_tables(
    engine: DiskEngine, store: SnapshotStore, builder: Builder
) -> None:
    built = builder.build(TINY)
    publish(store, built)
    with closing(sqlite3.connect(engine.folder / "cache.db")) as connection:
        connection.execute("DROP TABLE Cache")
    for action in (store.pointer, store.versions, lambda: publish(store, built)):
        with pytest.raises(TasteMatchError):
            action()
