"""An API with a snapshot, and nothing behind it: killed, or frozen so that it never answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from shared.db.migration import migrate
from shared.settings import load_settings
from tests.journeys.shop import LISTS, Api, running_api
from tests.services.datasets import TwoTastes, two_tastes_dataset
from tests.services.in_process import Done
from tests.services.postgres import PostgresServer
from tests.services.processes import start_worker, wait_until
from tests.services.redis import RedisServer
from tests.worker.test_precompute import load_dataset

SERVICE_TOKEN = "service-token-of-a-shop-that-loses-its-servers"
TOLD_SECONDS = 6.0  # until /ready names what is down; alone it may take 2.5
RESTART_SECONDS = 8.0  # from the start of an API until it serves from its local copy
HEALED_SECONDS = 10.0  # from the return of a server until it is used again
REFUSED_SECONDS = 3.0  # what a trigger may take to be refused
UNKNOWN_USER = 999_999

Env = dict[str, str]


@pytest.fixture
def town(tmp_path: Path) -> TwoTastes:
    return two_tastes_dataset(tmp_path / "town", users_per_group=20, seed=3)


def environment(database_url: str, redis: RedisServer, tmp_path: Path) -> Env:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis.url(),
        "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
        "TASTEMATCH_PRECOMPUTE_CRON": "",
        "TASTEMATCH_SERVICE_TOKEN": SERVICE_TOKEN,
        "TASTEMATCH_JWT_SECRET": "a secret that outlives every server of the shop",
    }


def read_everything(api: Api, town: TwoTastes) -> dict[str, tuple[bytes, str]]:
    """What readers get on every snapshot route, with its entity tag; anything but 200 fails."""
    users = (*town.ramen_users[:3], *town.taco_users[:3], UNKNOWN_USER)
    paths = [
        f"/api/users/{user_id}/recommendations?list={name}&limit=50"
        for user_id, name in product(users, LISTS)
    ]
    paths += [
        f"/api/users/{users[0]}/recommendations/detailed",
        "/api/restaurants/metadata",
        f"/api/restaurants/{town.ramen_restaurants[0]}/similar",
        "/api/lists/popular",
        "/api/lists/popular?city=Oaxaca",
    ]
    found = {}
    for path in paths:
        answer = api.as_service(path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        found[path] = (answer.content, answer.headers.get("ETag", ""))
    return found


def tells_what_is_down(api: Api, *, seconds: float = TOLD_SECONDS, **expected: str) -> None:
    def is_told() -> bool:
        answer = api.get("/ready")
        assert answer.status_code == 200, answer.text
        document = answer.json()
        return document["status"] == "degraded" and expected.items() <= document["checks"].items()

    wait_until(
        is_told, timeout_seconds=seconds, describe=lambda: f"{expected} in /ready of the API"
    )


@contextmanager
def serving_within(seconds: float, env: Env, *, port: int) -> Iterator[Api]:
    """An API that is started anew and serves lists in that time."""
    started = time.monotonic()
    with running_api(env, service_token=SERVICE_TOKEN, port=port) as api:
        assert api.version() is not None, "its first answer is from the local copy"
        assert time.monotonic() - started < seconds
        yield api


def test_reads_go_on_when_worker_redis_and_postgres_are_killed(
    private_redis: Callable[..., RedisServer],
    private_postgres: Callable[..., PostgresServer],
    town: TwoTastes,
    tmp_path: Path,
) -> None:
    redis, postgres = private_redis(), private_postgres()
    env = environment(postgres.create_database(), redis, tmp_path)
    migrate(load_settings(env))
    load_dataset(env, town.folder)
    with (
        start_worker(env=env, ready="queue.connected") as worker,
        running_api(env, service_token=SERVICE_TOKEN) as api,
    ):
        version = api.precomputed()
        before = read_everything(api, town)
        assert api.get("/ready").json()["status"] == "ready"

        worker.kill()
        redis.kill()
        postgres.kill()
        assert read_everything(api, town) == before
        tells_what_is_down(api, store="down", database="down")
        assert read_everything(api, town) == before
        assert api.get("/health").status_code == 200
        refused = api.post("/api/jobs/precompute")
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0

        api.child.kill()
        with serving_within(RESTART_SECONDS, env, port=api.port) as restarted:
            assert restarted.version() == version
            assert read_everything(restarted, town) == before
            tells_what_is_down(restarted, store="down", database="down")

            redis.restart()  # empty: it kept nothing
            postgres.restart()
            tells_what_is_down(restarted, seconds=HEALED_SECONDS, store="empty", database="ok")
            assert read_everything(restarted, town) == before
            with start_worker(env=env, ready="queue.connected"):
                assert restarted.precomputed() > version
                wait_until(
                    lambda: restarted.get("/ready").json()["status"] == "ready",
                    timeout_seconds=HEALED_SECONDS,
                    describe=lambda: restarted.get("/ready").text,
                )


def test_a_frozen_redis_slows_no_reader_and_refuses_triggers_at_once(
    private_redis: Callable[..., RedisServer],
    postgres_url: str,
    town: TwoTastes,
    tastematch: Callable[..., Done],
    tmp_path: Path,
) -> None:
    redis = private_redis()
    env = environment(postgres_url, redis, tmp_path)
    load_dataset(env, town.folder)
    assert tastematch("precompute", env=env).returncode == 0
    with running_api(env, service_token=SERVICE_TOKEN) as api:
        wait_until(api.version, timeout_seconds=RESTART_SECONDS, describe="the first snapshot")
        before = read_everything(api, town)

        redis.pause()
        refused_at = time.monotonic()
        refused = api.post("/api/jobs/precompute")
        assert time.monotonic() - refused_at < REFUSED_SECONDS
        assert (refused.status_code, refused.json()["code"]) == (503, "queue-unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        read_at = time.monotonic()
        assert read_everything(api, town) == before
        assert time.monotonic() - read_at < 0.1 * len(before)
        tells_what_is_down(api, store="down", database="ok")
        assert api.get("/health").status_code == 200
        assert api.as_service("/api/jobs").json()["items"][0]["origin"] == "cli"

        redis.resume()
        wait_until(
            lambda: api.post("/api/jobs/precompute").status_code == 202,
            timeout_seconds=HEALED_SECONDS,
            describe="a trigger to be accepted again",
        )
