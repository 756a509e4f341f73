"""A snapshot of any number of users, written by the product's own writers in seconds.

Users are numbered from 1. They share 200 different histories: what a request reads is as long and
lies as far apart as with a million different ones.
"""

from __future__ import annotations

import random
import tempfile
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from shared.snapshot import format as parts
from shared.snapshot.manifest import Manifest, new_version
from shared.snapshot.parts import describe_parts
from shared.snapshot.store import SnapshotStore
from tests.services.snapshots import SnapshotSpec, write_parts

FIRST_RESTAURANT = 100_000
RESTAURANTS = 10_000
CITIES = 20
HISTORIES = 200
FOR_YOU, DISCOVER, ORDER_AGAIN = 30, 20, 5


def publish_users(
    store: SnapshotStore, users: int, *, seed: int = 1, activate: bool = True
) -> Manifest:
    """Publishes it, and returns the manifest. Another `seed` gives everybody other lists."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="tastematch-parts-") as name:
        folder = Path(name)
        metadata_version = write_parts(folder, _without_users())
        _write_users(folder, users, seed)
        sizes, checksums = describe_parts(folder)
        counts = {"restaurants": RESTAURANTS, "users": users, "interactions": 0, "skipped": {}}
        manifest = Manifest(
            version=new_version(now, after=store.newest_version()),
            created_at=now,
            data_as_of=now,
            algorithm={"name": "generated"},
            counts=counts,
            bytes=sizes,
            checksums=checksums,
            metadata_version=metadata_version,
            stages=[],
            peak_rss_mb=1.0,
        )
        store.publish(
            manifest,
            {part: folder / part for part in sizes},
            expected_generation=store.pointer().generation,
            activate=activate,
        )
    return manifest


def restaurant_ids(user_id: int, *, seed: int = 1, limit: int = 20) -> list[int]:
    """What this snapshot says a user should get."""
    head = _histories(seed)[user_id % HISTORIES][:FOR_YOU]
    return [FIRST_RESTAURANT + ordinal for ordinal in head[:limit]]


def _without_users() -> SnapshotSpec:
    chance = random.Random(1)
    ids = range(FIRST_RESTAURANT, FIRST_RESTAURANT + RESTAURANTS)
    return SnapshotSpec(
        restaurants={i: f"City {i % CITIES}" for i in ids},
        similar={i: chance.sample(ids, 20) for i in ids},
    )


def _histories(seed: int) -> list[Sequence[int]]:
    chance = random.Random(seed)
    length = FOR_YOU + DISCOVER + ORDER_AGAIN
    return [chance.sample(range(RESTAURANTS), length) for _ in range(HISTORIES)]


def _write_users(folder: Path, users: int, seed: int) -> None:
    packed = [array("H", history).tobytes() for history in _histories(seed)]
    first, second = FOR_YOU * 2, (FOR_YOU + DISCOVER) * 2
    offsets = array("I", [0])
    with (folder / "lists").open("wb") as file:
        writer = parts.ListsWriter(file, users=users, width=2)
        for user_id in range(1, users + 1):
            record = packed[user_id % HISTORIES]
            offsets.append(writer.append(record[:first], record[first:second], record[second:]))
    with (folder / "users").open("wb") as file:
        parts.write_users(
            file,
            ids=array("q", range(1, users + 1)),
            offsets=offsets,
            cities=array("H", [1 + user_id % CITIES for user_id in range(1, users + 1)]),
            sources=array("B", [parts.SOURCE_PERSONAL]) * users,
        )
