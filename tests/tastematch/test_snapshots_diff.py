"""`tastematch snapshots diff`: what two versions would show, compared for every user."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.local_copies import fetch, open_verified
from api.serving import LISTS, serve
from shared.settings import Settings, load_settings
from shared.snapshot.manifest import Manifest
from shared.snapshot.opening import open_store
from shared.snapshot.store import SnapshotStore
from tests.services.in_process import Done
from tests.services.processes import run_tastematch
from tests.services.snapshots import SnapshotSpec, UserSpec, publish_snapshot
from tests.services.versions import damage

Command = Callable[..., Done]
Env = dict[str, str]


@pytest.fixture(params=["disk", "redis"])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Env:
    folder = {"TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    if request.param == "redis":
        return folder | {"REDIS_URL": request.getfixturevalue("redis_url")}
    return folder


@pytest.fixture
def settings(env: Env) -> Settings:
    return load_settings(env)


@contextmanager
def opened(settings: Settings) -> Iterator[SnapshotStore]:
    store = open_store(settings)
    try:
        yield store
    finally:
        store.close()


def publish(
    settings: Settings, *specs: SnapshotSpec, figures: Sequence[dict[str, Any]] = ({}, {})
) -> list[Manifest]:
    def with_figures(number: int) -> Callable[[Manifest], Manifest]:
        return lambda manifest: replace(manifest, quality=figures[number])

    with opened(settings) as store:
        return [
            publish_snapshot(store, spec, change_manifest=with_figures(number))
            for number, spec in enumerate(specs)
        ]


def difference(tastematch: Command, env: Env, a: Manifest, b: Manifest) -> dict[str, Any]:
    done = tastematch("snapshots", "diff", a.version, b.version, "--json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def random_shop(chance: random.Random, restaurants: Sequence[int]) -> SnapshotSpec:
    """Heads of all lengths, users of every source, cities with and without restaurants."""
    cities = ("Leipzig", "Halle", None)

    def user() -> UserSpec:
        ranked = chance.sample(restaurants, len(restaurants))
        ordered = ranked[: chance.randrange(0, 25)]
        if not ordered:
            return UserSpec(city=chance.choice(cities))
        return UserSpec(
            source="personal",
            city=chance.choice(cities),
            for_you=ranked[: chance.choice([0, 5, 19, 20, 30])],
            discover=ranked[30 : 30 + chance.choice([0, 3, 20])],
            order_again=ordered,
        )

    return SnapshotSpec(
        restaurants={each: chance.choice(cities) for each in restaurants},
        popular=chance.sample(restaurants, len(restaurants)),
        users={user_id: user() for user_id in chance.sample(range(1, 90), 60)},
    )


def answered(
    settings: Settings, manifest: Manifest, folder: Path, users: Sequence[int]
) -> list[list[list[int]]]:
    """What the API answers to each of the users, list by list."""
    with opened(settings) as store:
        snapshot = open_verified(fetch(store, manifest, folder), public_vary=b"")
    ids = snapshot.restaurants.ids
    return [
        [
            [ids[o] for o in serve(snapshot, user_id, list_name=name, limit=20).ordinals]
            for name in LISTS
        ]
        for user_id in users
    ]


@pytest.mark.parametrize("seed", range(2))
def test_the_figures_are_those_of_what_the_api_answers(
    tastematch: Command, env: Env, settings: Settings, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    first = random_shop(chance, range(1, 61))
    second = random_shop(chance, range(11, 71))
    kept = {user: first.users[user] for user in list(first.users)[:20]}

    def known(ids: Sequence[int]) -> list[int]:
        return [each for each in ids if each in second.restaurants]

    clean = {
        user: replace(
            spec,
            for_you=known(spec.for_you),
            discover=known(spec.discover),
            order_again=known(spec.order_again),
        )
        for user, spec in kept.items()
    }
    second = replace(second, users={**second.users, **clean})
    a, b = publish(settings, first, second)

    found = difference(tastematch, env, a, b)

    users = sorted({*first.users, *second.users})
    overlaps: dict[str, list[float]] = {name: [] for name in LISTS}
    affected: dict[str, int] = dict.fromkeys(LISTS, 0)
    any_affected = 0
    for sides in zip(*(answered(settings, m, tmp_path, users) for m in (a, b)), strict=True):
        any_affected += sides[0] != sides[1]
        for name, of_a, of_b in zip(LISTS, *sides, strict=True):
            affected[name] += of_a != of_b
            longer = max(len(of_a), len(of_b))
            overlaps[name].append(len({*of_a} & {*of_b}) / longer if longer else 1.0)
    assert found["users"]["compared"] == len(users)
    assert found["users"]["only_in_a"] == len(first.users.keys() - second.users.keys())
    assert found["users"]["only_in_b"] == len(second.users.keys() - first.users.keys())
    assert found["restaurants"] == {"only_in_a": 10, "only_in_b": 10}
    assert found["users_affected"] == any_affected > 0
    for name in LISTS:
        mean = sum(overlaps[name]) / len(users)
        assert 0 < mean < 1
        assert found["lists"][name]["users_affected"] == affected[name]
        assert found["lists"][name]["mean_overlap_top_20"] == pytest.approx(mean, abs=1e-6)
    assert found["mean_overlap_top_20"] == found["lists"]["for_you"]["mean_overlap_top_20"]


def test_only_who_changed_is_affected(tastematch: Command, env: Env, settings: Settings) -> None:
    shop = random_shop(random.Random(7), range(1, 41))
    user_id, before = next((u, spec) for u, spec in shop.users.items() if len(spec.for_you) >= 19)
    swapped = [before.for_you[1], before.for_you[0], *before.for_you[2:]]
    users = {**shop.users, user_id: replace(before, for_you=swapped)}
    a, b = publish(settings, shop, replace(shop, users=users))

    found = difference(tastematch, env, a, b)

    assert found["users_affected"] == found["lists"]["for_you"]["users_affected"] == 1
    assert found["mean_overlap_top_20"] == 1.0
    assert found["lists"]["discover"] == {"users_affected": 0, "mean_overlap_top_20": 1.0}
    same = difference(tastematch, env, a, a)
    assert (same["users_affected"], same["mean_overlap_top_20"]) == (0, 1.0)


def test_a_person_reads_counts_and_quality_side_by_side(env: Env, settings: Settings) -> None:
    shop = random_shop(random.Random(1), range(1, 41))
    figures: list[dict[str, Any]] = [
        {"for_you": {"ndcg_at_20": 0.25, "baseline": {"ndcg_at_20": 0.1}}},
        {"for_you": {"ndcg_at_20": 0.125, "mrr": 0.5}, "discover": None},
    ]
    fewer = replace(shop, users=dict(list(shop.users.items())[:30]))
    a, b = publish(settings, shop, fewer, figures=figures)

    done = run_tastematch("snapshots", "diff", a.version, b.version, env=env)

    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:2] == [f"a: {a.version}", f"b: {b.version}"]
    assert "users only in a: 30, only in b: 0" in lines
    assert "users 60 30" in lines
    assert "for_you ndcg_at_20 0.2500 0.1250" in lines
    assert "for_you mrr - 0.5000" in lines
    assert not any("baseline" in line for line in lines)


def test_versions_without_users_have_no_mean(
    tastematch: Command, env: Env, settings: Settings
) -> None:
    a, b = publish(
        settings, *(SnapshotSpec(restaurants=dict.fromkeys(range(1, n))) for n in (3, 4))
    )
    found = difference(tastematch, env, a, b)
    assert (found["users_affected"], found["mean_overlap_top_20"]) == (0, None)
    assert (
        "users affected: 0 of 0"
        in tastematch("snapshots", "diff", a.version, b.version, env=env).stdout.splitlines()
    )


def test_what_cannot_be_compared_is_one_line(
    tastematch: Command, env: Env, settings: Settings
) -> None:
    shop = random_shop(random.Random(1), range(1, 41))
    a, b = publish(settings, shop, shop)
    for other in ("20261125T100000000000Z-0000", "../../etc/passwd"):
        done = tastematch("snapshots", "diff", a.version, other, env=env)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    for part in ("lists", "popular"):
        damage(settings, b.version, part=part)
        done = tastematch("snapshots", "diff", a.version, b.version, env=env)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
