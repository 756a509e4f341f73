"""The gate: what is compared with the active snapshot, and what a held one does to a shop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from sqlalchemy import text

from shared.db.engine import sync_engine
from shared.settings import load_settings
from shared.snapshot.manifest import Manifest
from tests.services.children import wait_until
from tests.services.datasets import two_tastes_dataset
from tests.services.in_process import Done
from tests.services.processes import start_serve
from tests.services.versions import pointed_to
from worker.gate import reasons_to_hold

Env = dict[str, str]
Command = Callable[..., Done]

ACTIVE = Manifest(
    version="20261125T105812345678Z-3fa2",
    created_at=datetime(2026, 11, 25, tzinfo=UTC),
    data_as_of=None,
    algorithm={},
    counts={"restaurants": 7503, "users": 1000, "users_with_personal_lists": 900},
    bytes={},
    checksums={},
    metadata_version="",
    stages=[],
    peak_rss_mb=1.0,
    quality={
        "for_you": {"ndcg_at_20": 0.2, "targets": 200},
        "discover": {"ndcg_at_20": 0.05, "targets": 5000},
    },
)


def changed(*, counts: dict[str, Any] | None = None, **lists: dict[str, Any]) -> Manifest:
    """The active one's manifest with other figures."""
    quality = {name: {**ACTIVE.quality[name], **lists.get(name, {})} for name in ACTIVE.quality}
    return replace(ACTIVE, counts=ACTIVE.counts | (counts or {}), quality=quality)


def reasons(new: Manifest, active: Manifest | None = ACTIVE, max_drop: float = 0.2) -> list[str]:
    return reasons_to_hold(new, active, max_drop=max_drop)


def test_the_same_figures_and_better_ones_are_no_reason() -> None:
    assert reasons(ACTIVE, max_drop=0) == []
    grown = {key: 2 * count for key, count in ACTIVE.counts.items()}
    assert reasons(changed(counts=grown, for_you={"ndcg_at_20": 0.9}), max_drop=0) == []


def test_the_first_snapshot_is_never_held() -> None:
    assert reasons(changed(counts={"restaurants": 0}), active=None, max_drop=0) == []


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (
            changed(counts={"restaurants": 120}),
            "restaurants fell from 7,503 to 120 (98 % > 20 %)",
        ),
        (changed(counts={"users": 799}), "users fell from 1,000 to 799 (20.1 % > 20.0 %)"),
        (
            changed(counts={"users_with_personal_lists": 0}),
            "users with personal lists fell from 900 to 0 (100 % > 20 %)",
        ),
        (
            changed(for_you={"ndcg_at_20": 0.1}),
            "held-out NDCG@20 of for_you fell from 0.2000 to 0.1000 (50 % > 20 %)",
        ),
        (
            changed(discover={"ndcg_at_20": 0.0}),
            "held-out NDCG@20 of discover fell from 0.0500 to 0.0000 (100 % > 20 %)",
        ),
    ],
)
def test_a_reason_has_both_figures(new: Manifest, reason: str) -> None:
    assert reasons(new) == [reason]


def test_each_fall_is_a_reason_of_its_own() -> None:
    new = changed(counts=dict.fromkeys(ACTIVE.counts, 1), for_you={"ndcg_at_20": 0.01})
    assert len(reasons(new)) == 4


def test_a_fall_up_to_the_limit_is_allowed() -> None:
    assert reasons(changed(counts={"users": 800})) == []
    assert reasons(changed(counts={"users": 800}), max_drop=0.19) != []
    assert reasons(changed(counts={"users": 0}), max_drop=1) == []


@pytest.mark.parametrize(
    "unclear",
    [{"targets": 199}, {"targets": None}, {"ndcg_at_20": None}, {"ndcg_at_20": "0.2"}],
)
def test_quality_is_judged_where_both_have_it_by_enough_targets(unclear: dict[str, Any]) -> None:
    """Otherwise a handful of users would decide."""
    bad, unclear_one = changed(for_you={"ndcg_at_20": 0.0}), changed(for_you=unclear)
    assert reasons(bad, active=unclear_one) == []
    assert reasons(changed(for_you={"ndcg_at_20": 0.0, "targets": 199})) == []
    assert reasons(unclear_one) == []
    assert reasons(bad, active=replace(ACTIVE, quality={})) == []
    assert reasons(bad, active=replace(ACTIVE, quality={"for_you": 3})) == []
    assert reasons(replace(ACTIVE, quality={})) == []


def figure_of(figure: float, *interval: Any) -> dict[str, Any]:
    return {"ndcg_at_20": figure, "intervals": {"ndcg_at_20": list(interval)}}


@pytest.mark.parametrize(
    ("before", "after", "is_held"),
    [
        # From one week to the next, two hundred targets of an unchanged shop may fall by a third.
        (figure_of(0.068, 0.045, 0.091), figure_of(0.043, 0.027, 0.061), False),
        (figure_of(0.068, 0.060, 0.076), figure_of(0.043, 0.040, 0.046), True),
        (figure_of(0.068, 0.045, 0.091), {"ndcg_at_20": 0.043}, True),
        (figure_of(0.068, 0.045, 0.091), figure_of(0.043, 0.027), True),
        (figure_of(0.068, 0.045, 0.091), figure_of(0.043, None, "1"), True),
        (figure_of(0.068, 0.045, 0.091), {"ndcg_at_20": 0.043, "intervals": 3}, True),
        # Beyond chance, but by less than the limit.
        (figure_of(0.068, 0.067, 0.069), figure_of(0.060, 0.059, 0.061), False),
    ],
)
def test_a_fall_that_chance_may_have_made_is_no_reason(
    before: dict[str, Any], after: dict[str, Any], is_held: bool
) -> None:
    found = reasons(changed(discover=after), active=changed(discover=before))
    assert bool(found) == is_held


def test_what_users_see_first_may_not_fall_even_by_chance() -> None:
    before, after = figure_of(0.21, 0.15, 0.27), figure_of(0.15, 0.10, 0.20)
    assert reasons(changed(for_you=after), active=changed(for_you=before)) != []


def test_judged_users_stand_for_targets_that_are_not_counted() -> None:
    def manifest(figure: float, users: int) -> Manifest:
        return replace(
            ACTIVE, quality={"for_you": {"ndcg_at_20": figure, "users": users, "baseline": {}}}
        )

    assert reasons(manifest(0.1, 200), active=manifest(0.2, 200)) != []
    assert reasons(manifest(0.1, 199), active=manifest(0.2, 200)) == []


def test_counts_that_a_manifest_lacks_are_not_compared() -> None:
    assert reasons(replace(ACTIVE, counts={})) == []
    assert reasons(ACTIVE, active=replace(ACTIVE, counts={"users": "many", "restaurants": 0})) == []


# --- by the commands -----------------------------------------------------------------------------


@pytest.fixture(params=["sqlite-disk", "postgresql-redis"])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Env:
    """An empty shop."""
    shop = {
        "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
        "TASTEMATCH_SERVICE_TOKEN": "service-token-of-the-test",
    }
    if request.param == "sqlite-disk":
        shop["DATABASE_URL"] = request.getfixturevalue("sqlite_url")
    else:
        shop["DATABASE_URL"] = request.getfixturevalue("postgres_url")
        shop["REDIS_URL"] = request.getfixturevalue("redis_url")
    return shop


def keep_only(env: Env, *, restaurants: int, users: int) -> None:
    """Deletes all others, with their orders."""
    engine = sync_engine(load_settings(env))
    with engine.begin() as connection:
        for table, count in (("restaurants", restaurants), ("users", users)):
            kept = f"(SELECT id FROM {table} ORDER BY id LIMIT {count})"
            own = f"{table.removesuffix('s')}_id"
            connection.execute(text(f"DELETE FROM orders WHERE {own} NOT IN {kept}"))
            connection.execute(text(f"DELETE FROM {table} WHERE id NOT IN {kept}"))
    engine.dispose()


def precomputed(tastematch: Command, env: Env) -> dict[str, Any]:
    done = tastematch("precompute", "--json", env=env)
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads(done.stdout)
    return manifest


@pytest.mark.parametrize("env", ["postgresql-redis"], indirect=True)
def test_a_shop_that_lost_its_data_keeps_its_lists(
    tastematch: Command, env: Env, tmp_path: Path
) -> None:
    towns = two_tastes_dataset(tmp_path / "set", users_per_group=60, restaurants_per_group=60)
    assert tastematch("import", towns.folder, env=env).returncode == 0
    whole = precomputed(tastematch, env)
    assert (whole["state"], whole["held_because"]) == ("active", [])

    bearer = {"Authorization": f"Bearer {env['TASTEMATCH_SERVICE_TOKEN']}"}
    with start_serve(env=env) as serving, Client(base_url=serving.url, headers=bearer) as api:
        keep_only(env, restaurants=60, users=40)
        done = tastematch("precompute", env=env)

        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        version = lines[0].split()[1]
        assert lines[0].startswith(f"snapshot {version} is held: 40 users, 60 restaurants")
        for name, left in (("users", 40), ("restaurants", 60)):
            fell = f"  held because {name} fell from {whole['counts'][name]:,} to {left} ("
            assert any(line.startswith(fell) for line in lines), lines
        assert f"  to serve it: tastematch snapshots activate {version}" in lines
        listed = api.get("/api/snapshots").json()
        assert (listed["active"], listed["items"][0]["state"]) == (whole["version"], "held")
        assert len(listed["items"][0]["held_because"]) >= 2
        assert listed["items"][1]["held_because"] == []
        (job,) = api.get("/api/jobs?limit=1").json()["items"]
        assert (job["state"], job["snapshot_version"]) == ("succeeded", version)
        assert served(api) == whole["version"]

        again = precomputed(tastematch, env)
        assert again["state"] == "held", "compared with the active one, not with the held one"

        assert tastematch("snapshots", "activate", version, env=env).returncode == 0
        wait_until(
            lambda: served(api) == version, timeout_seconds=10, describe="the switch by hand"
        )


def served(api: Client) -> str:
    return api.get("/api/lists/popular").headers["x-snapshot-version"]


@pytest.mark.parametrize("env", ["sqlite-disk"], indirect=True)
def test_only_what_would_be_served_is_compared_and_only_below_a_limit_of_one(
    tastematch: Command, env: Env, tmp_path: Path
) -> None:
    towns = two_tastes_dataset(tmp_path / "set", users_per_group=20, restaurants_per_group=20)
    assert tastematch("import", towns.folder, env=env).returncode == 0
    first = precomputed(tastematch, env)
    keep_only(env, restaurants=3, users=1)

    held = json.loads(tastematch("precompute", "--no-activate", "--json", env=env).stdout)

    assert (held["state"], held["held_because"]) == ("held", [])
    assert pointed_to(load_settings(env)) == (first["version"], False)

    left = precomputed(tastematch, env | {"TASTEMATCH_MAX_QUALITY_DROP": "1"})

    assert (left["state"], left["held_because"]) == ("active", [])
    assert left["counts"]["restaurants"] == 3
