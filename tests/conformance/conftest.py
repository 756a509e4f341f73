"""Each snapshot test runs on every engine: a real Redis, and diskcache in a folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.snapshot.store import SnapshotStore
from tests.conformance.snapshot_engines import Builder, DiskEngine, Engine, RedisEngine


@pytest.fixture(params=["redis", "disk"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "redis":
        return RedisEngine(request.getfixturevalue("redis_url"))
    return DiskEngine(tmp_path / "store")


@pytest.fixture
def store(engine: Engine) -> Iterator[SnapshotStore]:
    store = engine.open()
    yield store
    store.close()


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "scratch")
