"""What a store held, for the judgement on what was answered: versions, and told records.

An overlay keeps the newest record of a key alone. A witness inside the store sees each of them as
it is written: MONITOR in Redis, a trigger in SQLite.
"""

from __future__ import annotations

import re
import secrets
import socket
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import orjson
from redis import Redis

from shared.settings import Settings
from shared.snapshot.disk_overlay_file import FILE_NAME
from shared.snapshot.format import KIND_POPULAR, KIND_SIMILAR, Lists, Ragged, Restaurants, Users
from shared.snapshot.opening import open_overlay, open_store
from shared.snapshot.overlay import GONE, decode_refreshed, unseal, user_key
from shared.snapshot.store import SnapshotReader
from tests.services.children import wait_until

PARTS = ("restaurants", "cities", "users", "lists", "popular", "similar")
SOURCES = ("popular", "personal", "preferences")  # by their numbers in the format

_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_SHORT = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}


class Told(NamedTuple):
    """A record as it was written into a log; seconds since 1970."""

    at: float
    log: str
    key: str
    record: bytes


class OwnLists(NamedTuple):
    """What a list of one user begins with, in ids: of a snapshot, or as it was made anew."""

    source: str
    city: int
    for_you: Sequence[int] = ()
    discover: Sequence[int] = ()
    order_again: Sequence[int] = ()


NOBODYS = OwnLists("popular", 0)


class Version:
    """One published version, whole, in ids."""

    def __init__(self, store: SnapshotReader, version: str) -> None:
        manifest = store.manifest(version)
        with tempfile.TemporaryDirectory(prefix="tastematch-parts-") as name:
            folder = Path(name)
            for part in PARTS:
                (folder / part).write_bytes(b"".join(store.chunks(manifest, part)))
            found = {part: (folder / part).read_bytes() for part in PARTS}
            restaurants = Restaurants(memoryview(found["restaurants"]))
            users, lists = Users(memoryview(found["users"])), Lists(folder / "lists")
            self.ids = list(restaurants.ids)
            self.cities = dict(zip(self.ids, restaurants.cities, strict=True))
            self.users: dict[int, OwnLists] = {}
            for user_id in users.ids:
                entry = users.find(user_id)
                assert entry is not None
                rows = lists.read(entry) if entry.source else ((), (), ())
                named = ([self.ids[o] for o in row] for row in rows)
                self.users[user_id] = OwnLists(SOURCES[entry.source], entry.city, *named)
        popular = Ragged(memoryview(found["popular"]), kind=KIND_POPULAR)
        similar = Ragged(memoryview(found["similar"]), kind=KIND_SIMILAR)
        self.popular = [
            [self.ids[o] for o in popular.row(code)]
            for code in range(len(orjson.loads(found["cities"])))
        ]
        self.similar = {
            each: [self.ids[o] for o in similar.row(row)] for row, each in enumerate(self.ids)
        }

    def made_anew(self, record: bytes) -> tuple[int, OwnLists]:
        """Revision and lists of a record in this version's log."""
        user = decode_refreshed(record)
        rows = user.lists if user.source else ((), (), ())
        named = ([self.ids[o] for o in row] for row in rows)
        return user.revision, OwnLists(SOURCES[user.source], user.city, *named)


class Stored:
    """All that was published and told by the end of a journey."""

    def __init__(self, settings: Settings, told: Iterable[Told]) -> None:
        store = open_store(settings)
        try:
            self.versions = {
                entry.manifest.version: Version(store, entry.manifest.version)
                for entry in store.versions()
            }
        finally:
            store.close()
        self._anew: dict[tuple[str, str], list[tuple[float, int, OwnLists]]] = {}
        for each in told:
            if each.log in self.versions and each.record != GONE:
                revision, lists = self.versions[each.log].made_anew(each.record)
                of_user = self._anew.setdefault((each.log, each.key), [])
                of_user.append((each.at, revision, lists))

    def lists_of(self, version: str, user_id: int, revision: int, *, by: float) -> list[OwnLists]:
        """All that a user's lists of that revision may have been made of until an instant."""
        if revision == 0:
            return [self.versions[version].users.get(user_id, NOBODYS)]
        anew = self._anew.get((version, user_key(user_id)), [])
        return [lists for at, found, lists in anew if found == revision and at <= by]

    def newer_lists(
        self, version: str, user_id: int, revision: int, *, by: float
    ) -> list[OwnLists]:
        """A user's lists of later revisions in other versions, told until an instant."""
        return [
            lists
            for other in self.versions
            if other != version
            for at, found, lists in self._anew.get((other, user_key(user_id)), [])
            if found > revision and at <= by
        ]

    @property
    def count_of_anew(self) -> int:
        return sum(map(len, self._anew.values()))


class Witness(Protocol):
    def told(self) -> list[Told]:
        """Everything so far, in the order in which it was written."""


@contextmanager
def witness_of(settings: Settings) -> Iterator[Witness]:
    if settings.redis_url is None:
        # The tables are made by the first who asks.
        overlay = open_overlay(settings)
        overlay.logs()
        overlay.close()
        yield _DiskWitness(settings.store_dir / FILE_NAME)
        return
    witness = _RedisWitness(settings.redis_url)
    try:
        yield witness
    finally:
        witness.close()


class _RedisWitness:
    def __init__(self, url: str) -> None:
        self._url = url
        address = urlsplit(url)
        self._mark = b'[%d lua] "HSET"' % int(address.path.strip("/") or 0)
        self._connection = socket.create_connection((address.hostname, address.port or 6379), 10)
        self._connection.sendall(b"MONITOR\r\n")
        assert self._connection.recv(5) == b"+OK\r\n"
        self._connection.settimeout(None)
        self._seen = bytearray()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def told(self) -> list[Told]:
        mark = secrets.token_hex(8)
        with Redis.from_url(self._url) as client:
            client.echo(mark)
        wait_until(
            lambda: mark.encode() in self._seen,
            timeout_seconds=10,
            describe="the server to tell of its last command",
        )
        found = [_told(line) for line in bytes(self._seen).split(b"\r\n") if self._mark in line]
        return [each for each in found if each is not None]

    def close(self) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _listen(self) -> None:
        while piece := self._connection.recv(1 << 20):
            self._seen += piece


class _DiskWitness:
    def __init__(self, path: Path) -> None:
        self._path = path
        note = (
            "INSERT INTO witnessed SELECT (julianday('now') - 2440587.5) * 86400, "
            "name, new.key, new.record FROM logs WHERE number = new.log;"
        )
        with closing(sqlite3.connect(path, timeout=10)) as connection:
            connection.executescript(
                "CREATE TABLE witnessed (at REAL, log TEXT, key TEXT, record BLOB);"
                f"CREATE TRIGGER first_of_a_key AFTER INSERT ON records BEGIN {note} END;"
                f"CREATE TRIGGER next_of_a_key AFTER UPDATE ON records BEGIN {note} END;"
            )

    def told(self) -> list[Told]:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            rows = connection.execute("SELECT * FROM witnessed ORDER BY rowid").fetchall()
        return [Told(at, log, key, unseal(key, sealed)) for at, log, key, sealed in rows]


def _told(line: bytes) -> Told | None:
    """A line of MONITOR: a time, and the words of a command with what is not ASCII escaped."""
    words = [_ESCAPED.sub(_unescaped, word) for word in _WORD.findall(line)]
    if len(words) != 4 or b":overlay:records:" not in words[1] or not words[2]:
        return None
    key = words[2].decode()
    log = words[1].rpartition(b":")[2].decode()
    return Told(float(line.lstrip(b"+").split(b" ", 1)[0]), log, key, unseal(key, words[3]))


def _unescaped(found: re.Match[bytes]) -> bytes:
    name = found[1]
    return bytes.fromhex(name[1:].decode()) if name[:1] == b"x" else _SHORT.get(name, name)
