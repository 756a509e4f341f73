"""Publishers, operators and readers at once; a publisher killed before each of its writes."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.errors import PublishSuperseded, SnapshotNotFound
from shared.snapshot.manifest import encode_manifest
from shared.snapshot.store import CHUNK_BYTES, SnapshotStore
from tests.conformance.snapshot_engines import (
    TINY,
    Builder,
    Built,
    DiskEngine,
    Engine,
    RedisEngine,
    publish,
    read_whole,
    states,
)

REPOSITORY = Path(__file__).resolve().parents[2]
MEDIUM = {"users": 3_000, "lists": CHUNK_BYTES + 77}


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[None]:
    """Repeats `work` in a thread until the block ends; at least once. What it raises is raised."""
    stop = threading.Event()

    def repeat() -> None:
        while True:
            work()
            if stop.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        repeating = pool.submit(repeat)
        try:
            yield
        finally:
            stop.set()
        repeating.result()


def test_a_reader_sees_whole_versions_only(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    publish(store, builder.build(MEDIUM))
    reader, seen = engine.open(), set[str]()

    def read() -> None:
        version = reader.pointer().version
        assert version is not None
        try:
            read_whole(reader, version)
        except SnapshotNotFound:
            # Pruned while it was read: then another one is active already.
            assert reader.pointer().version != version
        else:
            seen.add(version)

    with in_background(read):
        for number in range(15):
            publish(store, builder.build(MEDIUM))
            if number % 3 == 2:
                store.activate(store.versions()[-1].manifest.version, pin=False)
            store.prune(2)
    assert len(seen) > 1
    reader.close()


def test_no_activation_is_lost_beside_publishes(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    first = builder.build(TINY)
    publish(store, first)
    operator, activations = engine.open(), itertools.count()

    def activate() -> None:
        before = operator.pointer().generation
        assert operator.activate(first.version, pin=False).generation > before
        next(activations)

    with in_background(activate):
        outcomes = [publish(store, builder.build(TINY)) for _ in range(25)]

    # Each success moved the pointer by exactly one, and nobody else's success was overwritten.
    assert store.pointer().generation == 1 + next(activations) + outcomes.count("active")
    operator.close()


def test_publishers_at_once_end_in_whole_versions(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    publish(store, builder.build(TINY))
    stores = [engine.open() for _ in range(3)]

    def attempt(one: SnapshotStore, built: Built) -> str:
        try:
            return publish(one, built)
        except PublishSuperseded:
            return "superseded"

    outcomes: list[str] = []
    with ThreadPoolExecutor(len(stores)) as pool:
        for _ in range(10):
            built = [builder.build(MEDIUM) for _ in stores]
            results = list(pool.map(attempt, stores, built))
            assert results != ["superseded"] * len(stores)
            outcomes += results
            complete = states(store)
            for one, result in zip(built, results, strict=True):
                assert (one.version in complete) == (result != "superseded")
            for version in complete:
                read_whole(store, version)
            store.prune(1)
    publish(store, builder.build(TINY))
    store.prune(1)
    leftovers = {version for key in engine.raw() if (version := version_in(key)) is not None}
    assert leftovers == set(states(store))
    for one in stores:
        one.close()


def test_a_publish_that_sweeps_nobody_leaves_the_others_alone(
    engine: Engine, store: SnapshotStore, builder: Builder
) -> None:
    """What an operator imports while a run publishes: both complete."""
    old, running, orphan = (builder.build(MEDIUM) for _ in range(3))
    publish(store, old)
    operator = engine.open()

    def import_old(built: Built) -> None:
        state = operator.publish(
            built.manifest,
            built.parts,
            expected_generation=None,
            activate=False,
            sweep_others=False,
        )
        assert state == "held"

    imported = builder.build(MEDIUM)
    state = store.publish(
        running.manifest,
        running.parts,
        expected_generation=1,
        activate=True,
        check=lambda: import_old(imported),
    )
    assert state == "active"
    assert states(store)[imported.version] == "held"

    # What a killed import of the same version left behind is in nobody's way.
    def die() -> None:
        for key, value in engine.raw().items():
            left_behind[key] = value
        raise KeyboardInterrupt

    left_behind: dict[str, bytes] = {}
    with pytest.raises(KeyboardInterrupt):
        operator.publish(
            orphan.manifest, orphan.parts, expected_generation=None, activate=False, check=die
        )
    for key, value in left_behind.items():
        if orphan.version in key:
            engine.overwrite(key, value)
    import_old(orphan)
    read_whole(store, orphan.version)
    operator.close()


def version_in(key: str) -> str | None:
    return next((word for word in key.split(":") if word.startswith("20") and "Z-" in word), None)


# --- killed -----------------------------------------------------------------------------------


class KilledPublisher:
    """Publishes in processes of their own, which end by themselves or kill themselves."""

    def __init__(self, engine: Engine) -> None:
        assert isinstance(engine, RedisEngine | DiskEngine)
        address = engine.url if isinstance(engine, RedisEngine) else str(engine.folder)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.killed_publish", engine.name, address],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def publish(self, built: Built, *, generation: int, kill_at: int) -> int:
        """Returns the exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        folder = built.parts["lists"].parent
        manifest_file = folder.parent / built.version
        manifest_file.write_bytes(encode_manifest(built.manifest))
        order = json.dumps([str(folder), str(manifest_file), generation, kill_at])
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture
def killed_publisher(engine: Engine) -> Iterator[KilledPublisher]:
    publisher = KilledPublisher(engine)
    yield publisher
    publisher.close()


@pytest.mark.parametrize("has_orphans", [False, True], ids=["clean store", "with orphans"])
def test_killed_before_each_write(
    engine: Engine,
    store: SnapshotStore,
    builder: Builder,
    killed_publisher: KilledPublisher,
    has_orphans: bool,
) -> None:
    """The reader sees the old version or the new one, whole; the next publish sweeps the rest."""
    old = builder.build(TINY)
    publish(store, old)
    for number in itertools.count(1):
        generation = store.pointer().generation
        if has_orphans:
            orphan = builder.build(TINY)
            status = killed_publisher.publish(orphan, generation=generation, kill_at=8)
            assert status == -signal.SIGKILL
            assert any(orphan.version in key for key in engine.raw())
        new = builder.build(TINY)
        status = killed_publisher.publish(new, generation=generation, kill_at=number)

        active = store.pointer().version
        assert active in (old.version, new.version)
        assert set(states(store)) == {old.version, active}
        for version in states(store):
            read_whole(store, version)
        if status == 0:
            assert active == new.version
            break
        assert status == -signal.SIGKILL
        old = builder.build(TINY)
        assert publish(store, old) == "active"
        store.prune(1)
        assert {version_in(key) for key in engine.raw()} - {None} == {old.version}
    assert number > 10
