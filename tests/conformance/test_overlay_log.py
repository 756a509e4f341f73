"""What every overlay does: append, read on, replace, forget; emptied, full, damaged or gone."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from redis import Redis

from shared.errors import SnapshotDamaged, StoreFull, StoreUnavailable
from shared.snapshot.disk_overlay import DiskOverlay
from shared.snapshot.disk_overlay_file import FILE_NAME
from shared.snapshot.overlay import (
    ENTRY_BYTES,
    EXCLUSIONS,
    GONE,
    MAX_RECORD_BYTES,
    READ_BYTES,
    SEAL_BYTES,
    Entry,
    OverlayReader,
    OverlayWriter,
)
from shared.snapshot.redis_overlay import RedisOverlay
from tests.conformance.overlay_engines import (
    NAMESPACE,
    DiskOverlayEngine,
    OverlayEngine,
    RedisOverlayEngine,
)
from tests.conformance.small_disks import fill, small_disk
from tests.services.redis import RedisServer

VERSION = "20261125T105812345678Z-3fa2"
MB = 1_000_000
StartRedis = Callable[..., RedisServer]


@pytest.fixture(params=["redis", "disk"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> OverlayEngine:
    if request.param == "redis":
        return RedisOverlayEngine(request.getfixturevalue("redis_url"))
    return DiskOverlayEngine(tmp_path / "store")


@pytest.fixture
def overlay(engine: OverlayEngine) -> Iterator[OverlayWriter]:
    with closing(engine.open()) as overlay:
        yield overlay


def everything(overlay: OverlayReader, log: str, *, after: int = 0) -> list[Entry]:
    """Reads as a replica does: on and on until nothing comes."""
    entries: list[Entry] = []
    while found := overlay.read(log, after=after, limit=1000):
        entries += found
        after = found[-1].place
    return entries


def records(overlay: OverlayReader, log: str, *, after: int = 0) -> list[tuple[str, bytes]]:
    return [(entry.key, entry.record) for entry in everything(overlay, log, after=after)]


def test_a_new_overlay_is_empty(overlay: OverlayWriter) -> None:
    assert overlay.read(EXCLUSIONS, after=0, limit=10) == []
    assert overlay.logs() == []
    assert overlay.size_bytes(VERSION) == 0
    overlay.remove(VERSION, ["u1"])
    overlay.drop(VERSION)
    assert overlay.logs() == []


def test_readers_get_what_came_after_what_they_know(
    engine: OverlayEngine, overlay: OverlayWriter
) -> None:
    before = time.time_ns() // 1000
    first = overlay.append(VERSION, {"u2": b"two", "u1": b"\0\xff" * 500})
    second = overlay.append(VERSION, {"u3": GONE})
    assert before < first < second < before + 60 * MB

    with closing(engine.open()) as reader:
        for each in (overlay, reader):
            assert records(each, VERSION) == [("u2", b"two"), ("u1", b"\0\xff" * 500), ("u3", GONE)]
            assert records(each, VERSION, after=first) == [("u3", GONE)]
            assert records(each, VERSION, after=second) == []
            (one,) = each.read(VERSION, after=0, limit=1)
            assert one.key == "u2"
            assert records(each, VERSION, after=one.place)[0][0] == "u1"
            assert each.read(VERSION, after=first - 1, limit=5)[0].place == first


def test_only_the_newest_record_of_a_key_is_kept(overlay: OverlayWriter) -> None:
    known = overlay.append(VERSION, {"u1": b"old", "u2": b"old"})
    overlay.append(VERSION, {"u3": b"new", "u1": b"newer"})
    assert records(overlay, VERSION) == [("u2", b"old"), ("u3", b"new"), ("u1", b"newer")]
    assert records(overlay, VERSION, after=known) == [("u3", b"new"), ("u1", b"newer")]


def test_logs_and_shops_are_apart(engine: OverlayEngine, overlay: OverlayWriter) -> None:
    with closing(engine.open("other")) as other:
        overlay.append(VERSION, {"u1": b"lists"})
        overlay.append(EXCLUSIONS, {"u1": b"hidden"})
        other.append(VERSION, {"u1": b"theirs"})
        other.append("20261125T105812345678Z-0000", {"u1": b"theirs"})

        overlay.drop(VERSION)

        assert overlay.logs() == [EXCLUSIONS]
        assert records(overlay, EXCLUSIONS) == [("u1", b"hidden")]
        assert records(overlay, VERSION) == []
        assert other.logs() == ["20261125T105812345678Z-0000", VERSION]
        assert records(other, VERSION) == [("u1", b"theirs")]


def test_places_grow_whatever_was_taken_away(overlay: OverlayWriter) -> None:
    last = overlay.append(VERSION, {f"u{number}": b"record" for number in range(500)})
    ways: list[Callable[[], None]] = [
        lambda: overlay.remove(VERSION, [f"u{number}" for number in range(10, 1500)]),
        lambda: overlay.remove(VERSION, [f"u{number}" for number in range(10)]),
        lambda: overlay.drop(VERSION),
    ]
    for take_away in ways:
        take_away()
        place = overlay.append(VERSION, {"u7": b"after"})
        assert place > last
        assert [entry.key for entry in everything(overlay, VERSION, after=last)] == ["u7"]
        last = place
    assert records(overlay, VERSION) == [("u7", b"after")]


def test_the_size_is_that_of_what_is_kept(overlay: OverlayWriter) -> None:
    beside = SEAL_BYTES + ENTRY_BYTES
    overlay.append(VERSION, {"u1": b"x" * 100, "u22": b"x" * 50})
    assert overlay.size_bytes(VERSION) == 2 + 100 + 3 + 50 + 2 * beside
    overlay.append(VERSION, {"u1": b"x" * 7, "r1": GONE})
    assert overlay.size_bytes(VERSION) == 2 + 7 + 3 + 50 + 2 + 3 * beside
    overlay.remove(VERSION, ["u22", "u333"])
    assert overlay.size_bytes(VERSION) == 2 + 7 + 2 + 2 * beside
    overlay.drop(VERSION)
    assert overlay.size_bytes(VERSION) == 0


def test_no_answer_is_larger_than_its_bound(overlay: OverlayWriter) -> None:
    large = {f"u{number}": bytes([number]) * MAX_RECORD_BYTES for number in range(20)}
    for key, record in large.items():
        overlay.append(VERSION, {key: record})
    answer = overlay.read(VERSION, after=0, limit=1000)
    assert READ_BYTES / 2 < sum(len(entry.record) for entry in answer) <= READ_BYTES
    assert records(overlay, VERSION) == list(large.items())

    overlay.append(EXCLUSIONS, {f"u{number}": b"" for number in range(1000)})
    overlay.append(EXCLUSIONS, {f"r{number}": b"" for number in range(1000)})
    assert len(overlay.read(EXCLUSIONS, after=0, limit=5000)) == 1000
    assert len(everything(overlay, EXCLUSIONS)) == 2000


def test_a_store_that_lost_all_is_followed_on(
    engine: OverlayEngine, overlay: OverlayWriter
) -> None:
    last = overlay.append(VERSION, {f"u{number}": b"record" for number in range(100)})
    engine.clear()
    assert overlay.read(VERSION, after=0, limit=10) == []
    assert overlay.size_bytes(VERSION) == 0
    overlay.append(VERSION, {"u5": b"again"})
    assert records(overlay, VERSION, after=last) == [("u5", b"again")]


def test_nothing_is_missed_while_many_write(engine: OverlayEngine, overlay: OverlayWriter) -> None:
    def write(writer: int) -> None:
        with closing(engine.open()) as own:
            for number in range(40):
                both = f"{writer}/{number}".encode()
                own.append(VERSION, {f"u{writer}": both, "u99": both, f"r{writer}": both})

    known: dict[str, bytes] = {}
    last = 0
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, writer) for writer in range(4)]
        is_over = False
        while not is_over:
            is_over = all(each.done() for each in writing)
            for entry in everything(overlay, VERSION, after=last):
                assert entry.place > last
                last = entry.place
                known[entry.key] = entry.record
    for each in writing:
        each.result()
    ends = {f"{kind}{writer}": f"{writer}/39".encode() for kind in "ur" for writer in range(4)}
    assert known.pop("u99") in ends.values()
    assert known == ends
    places = [entry.place for entry in everything(overlay, VERSION)]
    assert len(set(places)) == len(places) == 9


# --- damaged ----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["flipped", "cut", "empty", "longer", "foreign", "huge"])
def test_damage_is_told_until_it_is_replaced(
    engine: OverlayEngine, overlay: OverlayWriter, change: str
) -> None:
    known = overlay.append(VERSION, {"u1": b"a record"})
    overlay.append(VERSION, {"u2": b"a record"})
    overlay.append(EXCLUSIONS, {"u2": b"a record"})
    sealed = engine.stored(VERSION, "u2")
    damaged = {
        "flipped": sealed[:-1] + bytes([sealed[-1] ^ 4]),
        "cut": sealed[:-1],
        "empty": b"",
        "longer": sealed + b"\0",
        "foreign": engine.stored(VERSION, "u1"),
        "huge": bytes(MAX_RECORD_BYTES + 5),
    }
    engine.overwrite(VERSION, "u2", damaged[change])

    with pytest.raises(SnapshotDamaged):
        overlay.read(VERSION, after=0, limit=10)
    assert overlay.read(VERSION, after=0, limit=1)[0].place == known
    assert records(overlay, EXCLUSIONS) == [("u2", b"a record")]
    overlay.append(VERSION, {"u2": b"another"})
    assert records(overlay, VERSION) == [("u1", b"a record"), ("u2", b"another")]


@pytest.mark.parametrize("lost", ["places", "records"])
def test_half_a_log_counts_as_lost(redis_url: str, lost: str) -> None:
    """What a server does that evicts."""
    engine = RedisOverlayEngine(redis_url)
    with closing(engine.open()) as overlay, Redis.from_url(redis_url) as client:
        last = overlay.append(VERSION, {"u1": b"a", "u2": b"b"})
        client.delete(getattr(engine.keys, lost)(VERSION))
        assert overlay.read(VERSION, after=0, limit=10) == []
        assert overlay.append(VERSION, {"u3": b"c"}) > last
        assert records(overlay, VERSION) == [("u3", b"c")]
        assert overlay.size_bytes(VERSION) == 2 + 1 + SEAL_BYTES + ENTRY_BYTES


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    with closing(DiskOverlay(tmp_path, namespace=NAMESPACE)) as overlay:
        with pytest.raises(SnapshotDamaged):
            overlay.read(VERSION, after=0, limit=1)
        with pytest.raises(SnapshotDamaged):
            overlay.append(VERSION, {"u1": b""})
        (tmp_path / FILE_NAME).unlink()
        overlay.append(VERSION, {"u1": b""})
        assert records(overlay, VERSION) == [("u1", b"")]


# --- full -------------------------------------------------------------------------------------


def test_a_full_redis_writes_a_batch_whole_or_not_at_all(private_redis: StartRedis) -> None:
    server = private_redis()
    with closing(RedisOverlay(server.url(3), namespace=NAMESPACE)) as overlay:
        last = overlay.append(VERSION, {f"u{number}": b"x" * 100 for number in range(10)})
        overlay.append(EXCLUSIONS, {"u1": b"x"})
        size = overlay.size_bytes(VERSION)
        server.set_config("maxmemory", MB)

        with pytest.raises(StoreFull):
            overlay.append(VERSION, {"u1": b"y" * 100, "u77": b"y"})
        with pytest.raises(StoreFull):
            overlay.append("20261125T105812345678Z-0000", {"u1": b"y"})

        assert everything(overlay, VERSION)[-1].place == last
        assert overlay.size_bytes(VERSION) == size
        assert overlay.logs() == [VERSION, EXCLUSIONS]
        overlay.remove(VERSION, ["u1", "u2"])
        assert len(everything(overlay, VERSION)) == 8
        overlay.drop(VERSION)
        assert overlay.logs() == [EXCLUSIONS]
        server.set_config("maxmemory", 0)
        overlay.append(VERSION, {"u1": b"y"})
        assert records(overlay, VERSION) == [("u1", b"y")]


def test_a_full_disk_writes_a_batch_whole_or_not_at_all(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        overlay = DiskOverlay(disk / "store", namespace=NAMESPACE)
        other = f"{VERSION[:-1]}0"
        overlay.append(other, {f"u{number}": b"x" * 10_000 for number in range(100)})
        last = overlay.append(VERSION, {f"u{number}": b"x" * 1_000 for number in range(100)})
        fill(disk / "ballast")
        with pytest.raises(StoreFull):
            overlay.append(VERSION, {f"u{number}": b"y" * 400_000 for number in range(40)})
        overlay.close()

        entries = everything(overlay, VERSION)
        assert [entry.place for entry in entries][-1] == last
        assert {entry.record for entry in entries} == {b"x" * 1_000}
        overlay.drop(other)
        assert overlay.logs() == [VERSION]
        overlay.append(VERSION, {"u7": b"y" * 10_000})
        overlay.close()


# --- gone -------------------------------------------------------------------------------------


@contextmanager
def unavailable(*, within_seconds: float) -> Iterator[None]:
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        yield
    assert time.monotonic() - started < within_seconds


def test_a_frozen_and_a_dead_redis(private_redis: StartRedis) -> None:
    server = private_redis()
    with closing(RedisOverlay(server.url(), namespace=NAMESPACE)) as overlay:
        last = overlay.append(VERSION, {"u1": b"x"})
        server.pause()
        with unavailable(within_seconds=2.5):
            overlay.read(VERSION, after=0, limit=1)
        server.resume()
        assert records(overlay, VERSION) == [("u1", b"x")]
        server.kill()
        calls: list[Callable[[], object]] = [
            lambda: overlay.read(VERSION, after=0, limit=1),
            lambda: overlay.append(VERSION, {"u1": b"x"}),
            lambda: overlay.size_bytes(VERSION),
            lambda: overlay.remove(VERSION, ["u1"]),
            lambda: overlay.drop(VERSION),
            overlay.logs,
        ]
        for call in calls:
            with unavailable(within_seconds=1.0):
                call()
        server.restart()
        assert overlay.append(VERSION, {"u1": b"y"}) > last


def test_a_locked_file_is_read_and_not_waited_for(tmp_path: Path) -> None:
    engine = DiskOverlayEngine(tmp_path / "store")
    with closing(engine.open()) as overlay:
        overlay.append(VERSION, {"u1": b"x"})
        connection = engine.connection()
        connection.isolation_level = None
        connection.execute("BEGIN IMMEDIATE")
        with unavailable(within_seconds=4.0):
            overlay.append(VERSION, {"u1": b"y"})
        with closing(engine.open()) as reader:
            assert records(reader, VERSION) == [("u1", b"x")]
        connection.close()
        overlay.append(VERSION, {"u1": b"y"})
        assert records(overlay, VERSION) == [("u1", b"y")]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with closing(DiskOverlay(tmp_path / "store", namespace=NAMESPACE)) as overlay:
        with pytest.raises(StoreUnavailable) as caught:
            overlay.read(VERSION, after=0, limit=1)
        assert str(tmp_path) not in caught.value.message


def test_a_dropped_log_gives_its_room_back(tmp_path: Path) -> None:
    engine = DiskOverlayEngine(tmp_path / "store")
    with closing(engine.open()) as overlay:
        overlay.append(EXCLUSIONS, {"u1": b"x"})
        for start in range(0, 4000, 1000):
            overlay.append(VERSION, {f"u{start + n}": b"x" * 5_000 for n in range(1000)})
        file = tmp_path / "store" / FILE_NAME
        overlay.drop(VERSION)
        assert file.stat().st_size < MB
        assert file.parent.stat().st_mode & 0o777 == 0o700
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT count(*) FROM records").fetchone() == (1,)
        assert records(overlay, EXCLUSIONS) == [("u1", b"x")]
