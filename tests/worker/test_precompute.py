"""A precompute from a real database to what a reader finds in the store."""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from sqlalchemy import text

from shared.db.engine import sync_engine
from shared.settings import load_settings
from shared.snapshot.format import SOURCE_NONE, SOURCE_PERSONAL, SOURCE_PREFERENCES
from shared.snapshot.metadata_history import read_metadata_history
from tastematch.dataset import open_dataset
from tastematch.importer import import_dataset
from tests.services.datasets import two_tastes_dataset, write_dataset
from tests.worker.published import (
    Published,
    open_published,
    precompute_here,
    run_precompute,
    start_precompute,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)

Env = dict[str, str]


@pytest.fixture
def env(sqlite_url: str, tmp_path: Path) -> Env:
    """On SQLite: equal data make equal parts on both databases, as a test of its own says."""
    return {
        "DATABASE_URL": sqlite_url,
        "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
        "HOME": str(tmp_path),
    }


@pytest.fixture
def published(env: Env, tmp_path: Path) -> Callable[[Path], Published]:
    """Imports a data set folder, precomputes, and reads the snapshot back."""

    def run(folder: Path) -> Published:
        load_dataset(env, folder)
        manifest, state = precompute_here(env)
        assert state == "active"
        return open_published(env, tmp_path / "parts" / manifest.version)

    return run


def load_dataset(env: Env, folder: Path) -> None:
    engine = sync_engine(load_settings(env))
    rejected = []
    import_dataset(
        engine,
        open_dataset(folder, now=NOW + timedelta(days=365)),
        on_bad_row=rejected.append,
        on_progress=lambda table: None,
    )
    engine.dispose()
    assert not rejected


def execute(env: Env, *statements: str) -> None:
    engine = sync_engine(load_settings(env))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def small_town(folder: Path, *, restaurants: int = 6) -> Path:
    """User 1 ordered at 1 (twice), 2 and 3; user 2 at 2, 3 and 4; user 3 nowhere."""
    visits = [(1, 1, 0), (1, 1, 9), (1, 2, 1), (1, 3, 2), (2, 2, 3), (2, 3, 4), (2, 4, 5)]
    return write_dataset(
        folder,
        restaurants=[
            {
                "id": i,
                "name": f"Place {i}",
                "cuisine_type": "Thai|Vegan" if i % 2 else "Pizza",
                "price_range": 1 + i % 4,
                "city": "Leipzig" if i <= 4 else "Halle",
            }
            for i in range(1, restaurants + 1)
        ],
        users=[{"id": 1, "city": "Leipzig"}, {"id": 2, "city": "leipzig"}, {"id": 3, "city": None}],
        orders=[
            {
                "id": number,
                "user_id": user,
                "restaurant_id": restaurant,
                "order_date": NOW - timedelta(days=30 - day),
            }
            for number, (user, restaurant, day) in enumerate(visits, start=1)
        ],
    )


def test_lists_keep_repeats_apart_from_discoveries(
    published: Callable[[Path], Published], tmp_path: Path
) -> None:
    found = published(small_town(tmp_path / "set"))
    for_you, discover, order_again = found.lists[1]
    assert order_again[0] == 1
    assert set(order_again) == {1, 2, 3}
    assert discover == [4]
    assert for_you == order_again + discover
    assert found.sources == {1: SOURCE_PERSONAL, 2: SOURCE_PERSONAL, 3: SOURCE_NONE}
    assert set(found.popular[None]) == set(range(1, 7))
    assert set(found.popular["Leipzig"]) == {1, 2, 3, 4}
    assert set(found.popular["Halle"]) == {5, 6}
    assert set(found.similar[4]) == {2, 3}
    assert found.similar[6] == []


def test_two_groups_of_users_get_their_own_kind(
    published: Callable[[Path], Published], tmp_path: Path
) -> None:
    towns = two_tastes_dataset(
        tmp_path / "set", users_per_group=40, restaurants_per_group=25, seed=7
    )
    found = published(towns.folder)
    for users, restaurants in (
        (towns.ramen_users, set(towns.ramen_restaurants)),
        (towns.taco_users, set(towns.taco_restaurants)),
    ):
        of_own_kind = [set(found.lists[user][0][:5]) <= restaurants for user in users]
        assert sum(of_own_kind) >= 0.95 * len(users)


def test_renaming_users_renames_their_lists(env: Env, tmp_path: Path) -> None:
    ids = [1000 + 7 * n for n in range(40)]
    lists = []
    for turn, numbers in enumerate((ids, ids[::-1])):
        towns = two_tastes_dataset(
            tmp_path / f"set{turn}",
            users_per_group=20,
            restaurants_per_group=15,
            seed=3,
            user_ids=numbers,
        )
        execute(env, "DELETE FROM orders", "DELETE FROM users")
        load_dataset(env, towns.folder)
        precompute_here(env)
        found = open_published(env, tmp_path / f"parts{turn}")
        lists.append([found.lists[u] for u in (*towns.ramen_users, *towns.taco_users)])
    assert lists[0] == lists[1]


def test_inactive_restaurants_are_nowhere_and_come_back(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    execute(env, "UPDATE restaurants SET is_active = false WHERE id = 2")
    precompute_here(env)
    found = open_published(env, tmp_path / "without")
    everywhere = [*found.popular.values(), *found.similar.values()]
    everywhere += [ids for lists in found.lists.values() for ids in lists]
    assert all(2 not in ids for ids in everywhere)
    assert 2 not in [row["id"] for row in found.metadata["restaurants"]]
    assert 2 not in found.restaurants

    execute(env, "UPDATE restaurants SET is_active = true WHERE id = 2")
    precompute_here(env)
    again = open_published(env, tmp_path / "with")
    assert 2 in again.lists[1][2]
    assert again.manifest.metadata_version != found.manifest.metadata_version


def test_a_run_carries_on_which_metadata_changed(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    first, _ = precompute_here(env)
    execute(
        env,
        "UPDATE restaurants SET name = 'Renamed' WHERE id = 2",
        "UPDATE restaurants SET is_active = false WHERE id = 6",
    )
    second, _ = precompute_here(env)
    part = open_published(env, tmp_path / "parts").parts["metadata_history"]
    history = read_metadata_history(memoryview(part))
    assert history.versions == [first.metadata_version, second.metadata_version]
    assert bytes(history.changed_at) == bytes([0, 1, 0, 0, 0])
    assert (list(history.removed_ids), bytes(history.removed_at)) == ([6], bytes([1]))


def test_preferences_decide_for_users_without_orders(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    execute(
        env,
        "INSERT INTO preferences (user_id, cuisines, price_ranges, city)"
        """ VALUES (3, '["thai"]', '[]', 'Leipzig'), (1, '["pizza"]', '[]', NULL)""",
    )
    precompute_here(env)
    found = open_published(env, tmp_path / "parts")
    assert found.sources == {1: SOURCE_PERSONAL, 2: SOURCE_PERSONAL, 3: SOURCE_PREFERENCES}
    assert set(found.lists[3][0]) == {1, 3}


def test_metadata_in_all_encodings_is_the_same_document(
    published: Callable[[Path], Published], tmp_path: Path
) -> None:
    found = published(small_town(tmp_path / "set"))
    identity = found.parts["metadata"]
    assert gzip.decompress(found.parts["metadata.gz"]) == identity
    assert brotli.decompress(found.parts["metadata.br"]) == identity
    assert zstandard.ZstdDecompressor().decompress(found.parts["metadata.zst"]) == identity
    assert found.metadata["kind"] == "full"
    assert found.metadata["version"] == found.manifest.metadata_version
    assert found.metadata["restaurants"][0] == {
        "id": 1,
        "name": "Place 1",
        "cuisine_type": "Thai|Vegan",
        "rating": None,
        "price_range": 2,
        "city": "Leipzig",
        "image_url": None,
    }


def test_equal_data_make_equal_parts_on_both_databases(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    folder = small_town(tmp_path / "set")
    parts = []
    for number, url in enumerate((sqlite_url, postgres_url, sqlite_url)):
        env = {
            "DATABASE_URL": url,
            "TASTEMATCH_DATA_DIR": str(tmp_path / f"data{number}"),
            "HOME": str(tmp_path),
        }
        load_dataset(env, folder)
        precompute_here(env)
        parts.append(open_published(env, tmp_path / f"parts{number}").parts)
    assert parts[0] == parts[1] == parts[2]


def test_manifest_tells_what_was_read_and_left_out(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    execute(
        env,
        "UPDATE restaurants SET name = ' ' WHERE id = 6",
        "INSERT INTO orders (id, user_id, restaurant_id, order_date)"
        " VALUES (90, 1, 5, '9999-01-01 00:00:00')",
    )
    outcome = run_precompute(env)
    assert outcome.exit_status == 0, outcome.log
    manifest = outcome.last["manifest"]
    told = [event for event in outcome.events[:-1] if event["event"] != "progress"]
    assert told == [{"event": "published", "version": manifest["version"]}]
    assert manifest["counts"]["users"] == 3
    assert manifest["counts"]["orders"] == 7
    assert manifest["counts"]["interactions"] == 6
    assert manifest["counts"]["restaurants"] == 5
    assert manifest["counts"]["skipped"] == {
        "rows": 2,
        "reasons": {"orders dated in the future": 1, "restaurants without a name": 1},
    }
    assert manifest["data_as_of"].startswith((NOW - timedelta(days=21)).strftime("%Y-%m-%dT%H"))
    found = open_published(env, tmp_path / "parts")
    for name, data in found.parts.items():
        assert manifest["bytes"][name] == len(data)
        assert manifest["checksums"][name] == hashlib.sha256(data).hexdigest()
    stages = [stage["name"] for stage in manifest["stages"]]
    assert stages == ["extract", "matrix", "quality", "ranking", "lists", "projection"]


def test_progress_never_goes_back(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    events: list[dict[str, Any]] = []
    precompute_here(env, tell=events.append)
    told = [event["progress"] for event in events if event["event"] == "progress"]
    assert told == sorted(told)
    assert 0 <= told[0] <= told[-1] <= 1


@pytest.mark.parametrize("restaurants", [1, 3])
def test_a_tiny_catalogue_makes_short_lists(
    published: Callable[[Path], Published], tmp_path: Path, restaurants: int
) -> None:
    found = published(
        write_dataset(
            tmp_path / "set",
            restaurants=[{"id": i, "name": f"Place {i}"} for i in range(1, restaurants + 1)],
            users=[{"id": 9}],
            orders=[{"id": 1, "user_id": 9, "restaurant_id": 1, "order_date": NOW}],
        )
    )
    others = list(range(2, restaurants + 1))
    assert found.lists[9] == ([1, *others], others, [1])
    assert sorted(found.popular[None]) == list(range(1, restaurants + 1))
    assert found.similar[1] == []


def test_users_without_any_order_in_the_data(
    published: Callable[[Path], Published], tmp_path: Path
) -> None:
    found = published(
        write_dataset(
            tmp_path / "set",
            restaurants=[{"id": 2**63 - 1, "name": "Last"}],
            users=[{"id": 0}, {"id": 2**63 - 1}],
            orders=[],
        )
    )
    assert found.restaurants == [2**63 - 1]
    assert found.sources == {0: SOURCE_NONE, 2**63 - 1: SOURCE_NONE}
    assert found.manifest.data_as_of is None


def test_an_empty_database_is_refused_with_a_reason(env: Env) -> None:
    outcome = run_precompute(env)
    assert outcome.exit_status == 1
    assert outcome.last["event"] == "error"
    assert "no active restaurants" in outcome.last["error"]
    assert outcome.last["kind"] == "JobFailed"


def test_not_activated_is_held(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    first, _ = precompute_here(env)
    held = run_precompute(env, "--no-activate").last
    assert held["state"] == "held"
    assert open_published(env, tmp_path / "parts").manifest.version == first.version


def test_a_damaged_pointer_is_set_anew(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    assert precompute_here(env)[1] == "active"
    database = Path(env["TASTEMATCH_DATA_DIR"]) / "store" / "cache.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE Cache SET value = x'00' WHERE key = 'tastematch:snapshot:pointer'"
        )

    repaired, state = precompute_here(env)

    assert state == "active"
    assert open_published(env, tmp_path / "parts").manifest.version == repaired.version


def test_the_child_ends_when_its_parent_does(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    with start_precompute(env) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["event"] == "progress"
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) in (0, 1)


def test_scratch_of_killed_runs_is_swept(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    left = Path(env["TASTEMATCH_DATA_DIR"]) / "scratch" / "999999999-left"
    left.mkdir(parents=True)
    (left / "lists").write_bytes(b"half")
    precompute_here(env)
    assert list(left.parent.iterdir()) == []


def test_plan_prints_and_does_nothing(env: Env, tmp_path: Path) -> None:
    load_dataset(env, small_town(tmp_path / "set"))
    outcome = run_precompute(env, "--plan")
    assert outcome.exit_status == 0
    assert outcome.last["plan"]["head_length"] == 6  # no more restaurants than there are
    assert outcome.last["counts"] == {"users": 3, "restaurants": 6, "orders": 7}
    assert not (Path(env["TASTEMATCH_DATA_DIR"]) / "store").exists()
