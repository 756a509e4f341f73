"""Somebody rolls back while a precompute goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.settings import load_settings
from shared.snapshot.opening import open_store
from shared.snapshot.store import SnapshotStore
from tests.worker.published import precompute_here
from tests.worker.test_precompute import load_dataset, small_town

Env = dict[str, str]


@pytest.fixture(params=["disk", "redis"])
def env(request: pytest.FixtureRequest, sqlite_url: str, tmp_path: Path) -> Env:
    env = {"DATABASE_URL": sqlite_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    if request.param == "redis":
        env["REDIS_URL"] = request.getfixturevalue("redis_url")
    load_dataset(env, small_town(tmp_path / "set"))
    return env


@contextmanager
def opened(env: Env) -> Iterator[SnapshotStore]:
    store = open_store(load_settings(env))
    try:
        yield store
    finally:
        store.close()


def test_a_run_that_began_before_does_not_undo_it(env: Env) -> None:
    first, _ = precompute_here(env)
    second, _ = precompute_here(env)
    with opened(env) as store:
        done: list[str] = []

        def tell(event: dict[str, Any]) -> None:
            if event.get("stage") == "lists" and not done:
                store.activate(first.version, pin=False)
                done.append("lists")

        third, state = precompute_here(env, tell=tell)

        assert (done, state) == (["lists"], "held")
        assert store.pointer().version == first.version
        states = {entry.manifest.version: entry.state for entry in store.versions()}
        assert states == {
            third.version: "held",
            second.version: "kept",
            first.version: "active",
        }
