"""Writes while what stands behind them dies: nothing confirmed is lost, and lists follow.

One shop of two replicas goes through all of it, as starting one takes longer than most faults.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.db.migration import migrate
from shared.settings import load_settings
from shared.snapshot.opening import open_overlay
from shared.snapshot.overlay import EXCLUSIONS, restaurant_key, user_key
from shared.tokens import issue_user_token
from tests.journeys.history import Client, History, Reading, clients
from tests.journeys.judgement import Judgement
from tests.journeys.shop import LISTS, Api, running_api
from tests.journeys.stored import Stored, witness_of
from tests.services.children import Child, wait_until
from tests.services.datasets import TwoTastes, two_tastes_dataset
from tests.services.postgres import PostgresServer
from tests.services.processes import start_worker
from tests.services.redis import RedisServer
from tests.worker.test_precompute import load_dataset

SERVICE_TOKEN = "service-token-of-a-shop-that-takes-orders-in-any-case"
FOLLOW_SECONDS = 20.0  # from the return of what was dead; whoever waits for it may rest for 5
REFUSED_SECONDS = 3.0
LOOKS = 3  # of a replica at its store
KILLED_AFTER = 20  # orders

Env = dict[str, str]


@dataclass(slots=True)
class Shop:
    """Redis keeps what it has over a kill, as the one of a shop should."""

    town: TwoTastes
    redis: RedisServer
    postgres: PostgresServer
    envs: tuple[Env, Env]
    apis: list[Api]
    stack: ExitStack
    history: History

    def start_api(self, place: int) -> None:
        port = self.apis[place].port if place < len(self.apis) else None
        api = running_api(self.envs[place], service_token=SERVICE_TOKEN, port=port)
        self.apis[place : place + 1] = [self.stack.enter_context(api)]

    def start_worker(self) -> Child:
        return self.stack.enter_context(start_worker(env=self.envs[0], ready="queue.connected"))

    def asking(self, stack: ExitStack) -> tuple[Client, Client]:
        settings = load_settings(self.envs[0])
        one, other = stack.enter_context(clients(self.apis, settings, self.history))
        return one, other

    def precomputed(self) -> str:
        version = self.apis[0].precomputed()
        self.apis[1].follows(version)
        return version


@pytest.fixture
def shop(
    private_redis: type[RedisServer], private_postgres: type[PostgresServer], tmp_path: Path
) -> Iterator[Shop]:
    redis = private_redis(arguments=["--appendonly", "yes", "--appendfsync", "always"])
    postgres = private_postgres()
    env = {
        "DATABASE_URL": postgres.create_database(),
        "REDIS_URL": redis.url(),
        "TASTEMATCH_PRECOMPUTE_CRON": "",
        "TASTEMATCH_KEEP_SNAPSHOTS": "20",
        "TASTEMATCH_SERVICE_TOKEN": SERVICE_TOKEN,
        "TASTEMATCH_JWT_SECRET": "a secret that outlives every server of the shop",
    }
    one, other = (env | {"TASTEMATCH_DATA_DIR": str(tmp_path / name)} for name in ("one", "other"))
    town = two_tastes_dataset(tmp_path / "town", users_per_group=25, seed=23)
    migrate(load_settings(one))
    load_dataset(one, town.folder)
    with ExitStack() as stack:
        yield Shop(town, redis, postgres, (one, other), [], stack, History())


def test_writes_outlive_whatever_dies(shop: Shop) -> None:
    worker = shop.start_worker()
    for place in range(2):
        shop.start_api(place)
    shop.precomputed()
    users = iter(shop.town.ramen_users)
    _with_a_dead_queue(shop, [next(users), next(users)])
    worker.kill()
    _with_a_dead_worker(shop, [next(users), next(users)])
    _with_a_dead_database(shop, next(users))
    _killed_after_its_answers(shop, shop.town.taco_users[:KILLED_AFTER])
    _with_an_emptied_redis(shop, next(users))
    _with_a_replica_that_stops(shop, [next(users), next(users)])


def _with_a_dead_queue(shop: Shop, users: Sequence[int]) -> None:
    shop.redis.kill()
    with ExitStack() as stack:
        pair = shop.asking(stack)
        placed = _ordered(pair, users)
        for client, user_id in zip(pair, users, strict=True):
            assert client.hide(user_id, hidden := client.read("discover", user_id).ids[0]) == 204
            assert hidden not in client.read("discover", user_id).ids
        shop.redis.restart()
        _both_follow(pair, placed)


def _with_a_dead_worker(shop: Shop, users: Sequence[int]) -> None:
    with ExitStack() as stack:
        pair = shop.asking(stack)
        placed = _ordered(pair, users)
        shop.start_worker()
        _both_follow(pair, placed)


def _with_a_dead_database(shop: Shop, user_id: int) -> None:
    api = shop.apis[0]
    settings = load_settings(shop.envs[0])
    token = issue_user_token(settings, user_id=user_id, ttl_seconds=600, now=time.time())
    with ExitStack() as stack:
        pair = shop.asking(stack)
        before = [client.read(what, user_id) for client in pair for what in LISTS]
        shop.postgres.kill()
        writes = [
            (token, "POST", "/api/orders", {"restaurant_id": before[0].ids[0]}),
            (token, "GET", "/api/orders", None),
            (token, "PUT", "/api/preferences", {"cuisines": ["Ramen"]}),
            (token, "PUT", f"/api/preferences/hidden/{before[0].ids[0]}", None),
            (SERVICE_TOKEN, "PATCH", f"/api/restaurants/{before[0].ids[0]}", {"is_active": False}),
            (SERVICE_TOKEN, "DELETE", f"/api/users/{user_id}", None),
        ]

        def refused(write: tuple[str, str, str, object]) -> tuple[httpx.Response, float]:
            bearer, method, path, document = write
            fields = {"Authorization": f"Bearer {bearer}"}
            with httpx.Client(base_url=api.url, headers=fields, timeout=15) as http:
                begun = time.monotonic()
                return http.request(method, path, json=document), time.monotonic() - begun

        with ThreadPoolExecutor(len(writes)) as pool:
            answers = list(pool.map(refused, writes))
        for answer, seconds in answers:
            assert answer.status_code == 503, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "database-unavailable"
            assert int(answer.headers["Retry-After"]) > 0
            assert seconds < REFUSED_SECONDS, answer.request
        after = [client.read(what, user_id) for client in pair for what in LISTS]
        assert [each.content for each in after] == [each.content for each in before]

        shop.postgres.restart()
        wait_until(
            lambda: pair[0].read("orders", user_id).status == 200,
            timeout_seconds=FOLLOW_SECONDS,
            describe="the database to be used again",
        )
        _both_follow(pair, _ordered(pair[:1], [user_id]))


def _killed_after_its_answers(shop: Shop, users: Sequence[int]) -> None:
    with ExitStack() as stack:
        pair = shop.asking(stack)
        placed = _ordered(pair[:1] * len(users), users)
        shop.apis[0].child.kill()
    shop.start_api(0)
    with ExitStack() as stack:
        pair = shop.asking(stack)
        for user_id, restaurant_id in placed.items():
            for client in pair:
                assert client.read("orders", user_id).ids[0] == restaurant_id
        _both_follow(pair, placed)


def _with_a_replica_that_stops(shop: Shop, users: Sequence[int]) -> None:
    """It goes on with what it had and then has what was told: never something of both."""
    settings = load_settings(shop.envs[0])
    popular = shop.apis[0].get("/api/lists/popular?limit=50").json()
    with witness_of(settings) as witness, ExitStack() as stack:
        first = shop.precomputed()  # all that is told of it is witnessed
        one, other = shop.asking(stack)
        watched = [*users, *shop.town.taco_users[:2]]

        def look() -> None:
            for user_id in watched:
                other.read_user(user_id)
            other.read("metadata")
            other.read("popular")

        shop.history.readings.clear()
        look()
        shop.apis[1].child.pause()
        _ordered([one] * 2, users)
        assert one.close(popular[0]) == 200
        second = shop.apis[0].precomputed()
        _ordered([one] * 2, users)
        assert one.hide(users[0], popular[2]) == 204
        resumed = time.time()
        shop.apis[1].child.resume()

        def has_all() -> bool:
            look()
            for user_id in users:
                one.read_user(user_id)
            newest = {
                (reading.replica, reading.what, reading.subject): reading
                for reading in shop.history.readings
            }
            return all(
                newest[0, what, user].content == newest[1, what, user].content
                and newest[1, what, user].version == second
                for what in LISTS
                for user in users
            )

        wait_until(has_all, timeout_seconds=FOLLOW_SECONDS, describe="the replica to catch up")
        told = witness.told()
    # What happened while it stood still it can know from then on.
    heard = [each._replace(ended=max(each.ended, resumed)) for each in shop.history.changes]
    at_it = [reading for reading in shop.history.readings if reading.replica == 1]
    complaints = Judgement(History(at_it, heard), Stored(settings, told)).complaints()
    assert not complaints, "\n".join(complaints[:5])
    assert {reading.version for reading in at_it if reading.what in LISTS} == {first, second}


def _with_an_emptied_redis(shop: Shop, user_id: int) -> None:
    with ExitStack() as stack:
        pair = shop.asking(stack)
        popular = pair[0].read("popular").ids
        closed, hidden = popular[0], pair[0].read("for_you", user_id).ids[1]
        assert pair[0].close(closed) == 200
        assert pair[1].hide(user_id, hidden) == 204

        def obeys(client: Client) -> bool:
            lists = [client.read(what, user_id).ids for what in LISTS]
            return closed not in client.read("popular").ids and all(
                closed not in ids and hidden not in ids for ids in lists
            )

        wait_until(
            lambda: all(map(obeys, pair)), timeout_seconds=FOLLOW_SECONDS, describe="exclusions"
        )
        with shop.redis.client() as client:
            client.flushall()
        overlay = open_overlay(load_settings(shop.envs[0]))
        stack.callback(overlay.close)

        def told_anew() -> bool:
            assert all(map(obeys, pair))
            keys = {entry.key for entry in overlay.read(EXCLUSIONS, after=0, limit=1_000)}
            return {user_key(user_id), restaurant_key(closed)} <= keys

        wait_until(told_anew, timeout_seconds=FOLLOW_SECONDS, describe="the worker to tell anew")
        for _ in range(LOOKS):
            assert all(map(obeys, pair))
        shop.apis[1].child.kill()
    # Nothing of its own tells it what is excluded.
    shutil.rmtree(Path(shop.envs[1]["TASTEMATCH_DATA_DIR"]) / "overlay")
    shop.start_api(1)
    with ExitStack() as stack:
        pair = shop.asking(stack)
        assert obeys(pair[1])
        _ordered(pair, [user_id] * 2)


def _ordered(asking: Sequence[Client], users: Sequence[int]) -> dict[int, int]:
    """Each user orders something new from the replica at the same place, which knows it at once;
    returns the restaurant by user."""
    placed = {}
    for client, user_id in zip(asking, users, strict=True):
        restaurant_id = client.read("discover", user_id).ids[3]
        assert client.order(user_id, restaurant_id) == 201
        assert client.read("order_again", user_id).ids[0] == restaurant_id
        assert restaurant_id not in client.read("discover", user_id).ids
        placed[user_id] = restaurant_id
    return placed


def _both_follow(pair: Sequence[Client], placed: dict[int, int]) -> None:
    """Both replicas have the same lists, of which the one that took no order only heard."""

    def read(user_id: int) -> list[list[Reading]]:
        return [[client.read(what, user_id) for what in LISTS] for client in pair]

    def is_followed(user_id: int) -> bool:
        one, other = read(user_id)
        is_equal = [(x.etag, x.content) for x in one] == [(x.etag, x.content) for x in other]
        return is_equal and placed[user_id] in one[2].ids and placed[user_id] not in one[1].ids

    for user_id in placed:
        wait_until(
            lambda: is_followed(user_id),  # noqa: B023
            timeout_seconds=FOLLOW_SECONDS,
            describe=lambda: "\n".join(str(x) for row in read(user_id) for x in row),  # noqa: B023
        )
