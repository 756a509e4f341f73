"""The API in-process over a real store: a snapshot of known content, clients with each token."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from api import follower, overlay_follower
from shared.settings import Settings, load_settings
from shared.snapshot.opening import open_store
from shared.snapshot.store import SnapshotStore
from tests.api.overlays import Teller, teller_of
from tests.api.running import ORIGIN, SPEC, Api, client_of, running
from tests.services.databases import sqlite_address
from tests.services.snapshots import publish_snapshot


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """What is logged is looked at where the API runs in a process of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True, scope="module")
def quick_follower() -> Iterator[None]:
    """Looks at the store more often than each second, so that tests need not wait."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(follower, "POLL_SECONDS", 0.05)
        patched.setattr(overlay_follower, "POLL_SECONDS", 0.05)
        yield


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str) -> Settings:
    return _settings(tmp_path / "data", sqlite_url)


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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
) -> AsyncIterator[Api]:
    """One for the whole module, whose tests only read: of SPEC, or what the module names so."""
    folder = tmp_path_factory.mktemp("standing")
    shutil.copyfile(sqlite_template, folder / "tastematch.db")
    settings = _settings(folder / "data", sqlite_address(folder / "tastematch.db"))
    with contextlib.closing(open_store(settings)) as store:
        manifest = publish_snapshot(store, getattr(request.module, "STANDING", SPEC))
    async with running(settings) as started:
        await started.serves(manifest.version)
        yield started


@pytest.fixture
def standing_api(standing: Api) -> Api:
    """It, with a client of the test's own."""
    return replace(standing, client=client_of(standing.app))


@pytest.fixture
async def empty_api(settings: Settings) -> AsyncIterator[Api]:
    """A running API before the first snapshot."""
    async with running(settings) as started:
        yield started


@pytest.fixture
def teller(settings: Settings) -> Iterator[Teller]:
    with teller_of(settings) as opened:
        yield opened


def _settings(data_dir: Path, database_url: str) -> Settings:
    return load_settings(
        {
            "TASTEMATCH_DATA_DIR": str(data_dir),
            "DATABASE_URL": database_url,
            "TASTEMATCH_CORS_ORIGINS": ORIGIN,
        }
    )
