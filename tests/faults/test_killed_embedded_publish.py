"""A publish into the embedded store that is killed at any of its moments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from shared.settings import Settings, load_settings
from shared.snapshot.disk_cache import open_cache
from shared.snapshot.layout import Keys
from shared.snapshot.opening import open_store
from shared.snapshot.verification import verify_parts
from tests.journeys.shop import write_orders
from tests.services.datasets import two_tastes_dataset
from tests.services.in_process import Done
from tests.worker.published import precompute_here, start_precompute
from tests.worker.test_precompute import load_dataset

KEY_COUNTS = (1, 9)


def kill_in_publish(env: dict[str, str], *, key_count: int) -> None:
    """Runs a precompute and kills it once that many keys of its version are in the store."""
    settings = load_settings(env)
    keys = Keys(settings.namespace)
    with open_cache(settings.store_dir) as cache, start_precompute(env) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line).get("stage") == "publish":
                break
        # The run sweeps first, so what is there before may only become less.
        known = {keys.version_of(name) for name in cache.names()}
        while child.poll() is None:
            versions = [keys.version_of(name) for name in cache.names()]
            if sum(version not in known for version in versions) >= key_count:
                break
        child.kill()


def stored(settings: Settings) -> tuple[str, set[str]]:
    """The active version and the complete ones, every byte of which is verified."""
    store = open_store(settings)
    try:
        entries = store.versions()
        for entry in entries:
            verify_parts(store, entry.manifest)
        version = store.pointer().version
        assert version is not None
        return version, {entry.manifest.version for entry in entries}
    finally:
        store.close()


def versions_with_keys(settings: Settings) -> set[str]:
    """Complete or not."""
    keys = Keys(settings.namespace)
    with open_cache(settings.store_dir) as cache:
        found = {keys.version_of(name) for name in cache.names()}
    return {version for version in found if version is not None}


def test_a_killed_embedded_publish_leaves_old_or_new_whole(
    tastematch: Callable[..., Done], sqlite_url: str, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": sqlite_url,
        "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
        "HOME": str(tmp_path),
    }
    settings = load_settings(env)
    town = two_tastes_dataset(tmp_path / "town", users_per_group=20, seed=13)
    user_id, tacos = town.ramen_users[0], town.taco_restaurants[:3]
    load_dataset(env, town.folder)
    precompute_here(env)
    active, _ = stored(settings)

    def recommended() -> list[int]:
        words = ("--user", str(user_id), "--list", "order_again", "--limit", "50", "--json")
        ids: list[int] = json.loads(tastematch("recommend", *words, env=env).stdout)["ids"]
        return ids

    old = recommended()
    load_dataset(env, write_orders(tmp_path / "news", user_id, tacos, first_id=500_001))

    for key_count in KEY_COUNTS:
        kill_in_publish(env, key_count=key_count)
        before, (active, complete) = active, stored(settings)
        assert active >= before
        assert active == max(complete)
        assert complete <= versions_with_keys(settings)
    assert set(recommended()) in (set(old), {*old, *tacos})

    manifest, _ = precompute_here(env)
    newest, complete = stored(settings)
    assert newest == manifest.version
    assert versions_with_keys(settings) == complete
    assert set(recommended()) == {*old, *tacos}
