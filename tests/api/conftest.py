"""The API in-process over a real store: a snapshot of known content, clients with each token."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from api import follower, overlay_follower
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.snapshot.store import SnapshotStore
from tests.api.overlays import Teller, teller_of
from tests.api.running import ORIGIN, SPEC, Api, running
from tests.services.snapshots import publish_snapshot


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """What is logged is looked at where the API runs in a process of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def quick_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the store more often than each second, so that tests need not wait."""
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(overlay_follower, "POLL_SECONDS", 0.05)


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str) -> Settings:
    return load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
            "DATABASE_URL": sqlite_url,
            "TASTEMATCH_CORS_ORIGINS": ORIGIN,
        }
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[SnapshotStore]:
    """An empty store, as the API of `settings` sees it."""
    opened = open_store(settings)
    yield opened
    opened.close()


@pytest.fixture
async def api(settings: Settings, store: SnapshotStore) -> AsyncIterator[Api]:
    """A running API that serves a snapshot of SPEC."""
    manifest = publish_snapshot(store, SPEC)
    async with running(settings) as started:
        await started.serves(manifest.version)
        yield started


@pytest.fixture
async def empty_api(settings: Settings) -> AsyncIterator[Api]:
    """A running API before the first snapshot."""
    async with running(settings) as started:
        yield started


@pytest.fixture
def teller(settings: Settings) -> Iterator[Teller]:
    with teller_of(settings) as opened:
        yield opened
