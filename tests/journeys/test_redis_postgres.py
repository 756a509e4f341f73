"""PostgreSQL, Redis, the arq worker and two API processes: one shop on several machines."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import httpx
import pytest

from tests.journeys.shop import LISTS, Api, command, running_api, write_orders
from tests.services.datasets import TwoTastes, two_tastes_dataset
from tests.services.postgres import PostgresDatabases
from tests.services.processes import start_worker
from tests.services.redis import RedisDatabases

SERVICE_TOKEN = "service-token-of-a-shop-on-several-machines"
TRIGGERS = 20


@dataclass(frozen=True, slots=True)
class Shop:
    """Both APIs have a data folder of their own and follow the same Redis."""

    town: TwoTastes
    apis: tuple[Api, Api]
    env: dict[str, str]
    first_version: str

    @property
    def api(self) -> Api:
        return self.apis[0]

    def published(self) -> str:
        """Runs a precompute, which both APIs then serve."""
        version = self.api.precomputed()
        self.apis[1].follows(version)
        return version

    def activate(self, version: str) -> None:
        """Asks one API, which both then obey."""
        answer = self.api.post(f"/api/snapshots/{version}/activate", {"pin": False})
        assert answer.status_code == 200, answer.text
        for api in self.apis:
            api.follows(version)


@pytest.fixture(scope="module")
def shop(
    postgres: PostgresDatabases,
    redis_server: RedisDatabases,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    """A shop after its first snapshot. The tests leave it running, whatever it serves."""
    folder = tmp_path_factory.mktemp("shop")
    town = two_tastes_dataset(folder / "town", users_per_group=30, seed=5)
    with ExitStack() as stack:
        database_url = postgres.create_database()
        stack.callback(postgres.drop_database, database_url)
        env = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_server.fresh_url(),
            "TASTEMATCH_PRECOMPUTE_CRON": "",
            "TASTEMATCH_KEEP_SNAPSHOTS": "20",
            "TASTEMATCH_SERVICE_TOKEN": SERVICE_TOKEN,
            "TASTEMATCH_JWT_SECRET": "a secret that all machines of the shop share",
        }
        command(env, "migrate")
        command(env, "import", town.folder)
        stack.enter_context(start_worker(env=env, ready="queue.connected"))
        apis = [
            stack.enter_context(
                running_api(
                    env | {"TASTEMATCH_DATA_DIR": str(folder / name)}, service_token=SERVICE_TOKEN
                )
            )
            for name in ("first", "second")
        ]
        first_version = apis[0].precomputed()
        apis[1].follows(first_version)
        yield Shop(town, (apis[0], apis[1]), env, first_version)


def test_equal_data_make_the_lists_of_the_embedded_default(shop: Shop, tmp_path: Path) -> None:
    env = {"TASTEMATCH_DATA_DIR": str(tmp_path / "data")}
    users = [*shop.town.ramen_users[:5], *shop.town.taco_users[:5], 999_999]
    shop.activate(shop.first_version)  # of the data set alone
    for words in (("migrate",), ("import", shop.town.folder), ("precompute",)):
        command(env, *words)
    with running_api(env, service_token=command(env, "token", "--service")) as embedded:
        embedded.follows(json.loads(command(env, "snapshots", "--json"))["active"])
        for user_id, list_name in product(users, LISTS):
            answers = [api.user_list(user_id, list_name) for api in (embedded, *shop.apis)]
            assert {answer.status_code for answer in answers} == {200}
            assert answers[0].content == answers[1].content == answers[2].content
        assert len(embedded.user_list(users[0], "order_again").json()) > 1
        path = "/api/restaurants/metadata"
        embedded_metadata, metadata = (api.get(path) for api in (embedded, shop.api))
        assert embedded_metadata.content == metadata.content
        assert embedded_metadata.headers["ETag"] == metadata.headers["ETag"]


def test_a_token_of_one_machine_is_good_on_every_other(shop: Shop) -> None:
    user_id = shop.town.taco_users[0]
    token = command(shop.env, "token", "--user", str(user_id))
    answers = [api.get("/api/recommendations", token=token) for api in shop.apis]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"]


def test_new_orders_and_a_rollback_reach_every_api(shop: Shop, tmp_path: Path) -> None:
    user_id = shop.town.ramen_users[0]
    old = shop.first_version
    shop.activate(old)
    before = shop.api.user_list(user_id, "order_again")
    tacos = shop.town.taco_restaurants[:3]
    command(shop.env, "import", write_orders(tmp_path / "news", user_id, tacos, first_id=900_001))
    new = shop.published()
    for api in shop.apis:
        answer = api.user_list(user_id, "order_again")
        assert answer.headers["X-Snapshot-Version"] == new
        assert set(answer.json()) == {*before.json(), *tacos}

    shop.activate(old)
    for api in shop.apis:
        answer = api.user_list(user_id, "order_again")
        assert answer.headers["X-Snapshot-Version"] == old
        assert answer.headers["ETag"] == before.headers["ETag"]
        assert answer.content == before.content


def test_no_run_undoes_a_rollback_that_was_made_while_it_ran(shop: Shop) -> None:
    """Versions are activated again and again, by both APIs in turn, while runs publish."""
    choices = [shop.first_version, shop.published()]
    confirmed: list[str] = []
    stop = threading.Event()

    def roll() -> None:
        for number in itertools.count():
            version = choices[number % 2]
            answer = shop.apis[number // 2 % 2].post(f"/api/snapshots/{version}/activate")
            assert answer.json() == {"active": version, "pinned": False}, answer.text
            confirmed.append(version)
            if stop.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        rolling = pool.submit(roll)
        try:
            jobs = [shop.api.ended_job(shop.api.trigger()) for _ in range(3)]
        finally:
            stop.set()
        rolling.result()

    assert [job["state"] for job in jobs] == ["succeeded"] * 3
    document = shop.api.as_service("/api/snapshots").json()
    assert document["active"] == confirmed[-1]
    states = {item["version"]: item["state"] for item in document["items"]}
    assert {states[job["snapshot_version"]] for job in jobs} == {"held"}
    assert len({job["snapshot_version"] for job in jobs}) == 3
    for api in shop.apis:
        api.follows(confirmed[-1])
    assert len(confirmed) > 6


def test_a_scheduler_follows_its_job_to_the_version_that_it_published(shop: Shop) -> None:
    shop.api.waits_for_idleness()
    answer = shop.api.post("/api/jobs/precompute")
    assert answer.status_code == 202
    assert answer.json()["state"] == "queued"
    assert int(answer.headers["Retry-After"]) > 0
    location = answer.headers["Location"]
    assert location == f"/api/jobs/{answer.json()['id']}"

    job = shop.api.ended_job(answer.json()["id"])
    assert job == shop.apis[1].as_service(location).json()
    assert (job["state"], job["error"], job["progress"]) == ("succeeded", None, 1)
    assert job["origin"] == "api"
    assert job["peak_rss_mb"] > 0
    stages = [stage["name"] for stage in job["stages"]]
    assert stages == ["extract", "matrix", "quality", "ranking", "lists", "projection", "publish"]
    versions = json.loads(command(shop.env, "snapshots", "--json"))
    assert versions["active"] == job["snapshot_version"]
    for api in shop.apis:
        api.follows(job["snapshot_version"])


def test_triggers_at_once_are_one_job(shop: Shop) -> None:
    def trigger(number: int) -> httpx.Response:
        return shop.apis[number % 2].post("/api/jobs/precompute")

    shop.api.waits_for_idleness()
    with ThreadPoolExecutor(TRIGGERS) as threads:
        answers = list(threads.map(trigger, range(TRIGGERS)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sorted(answer.json()["coalesced"] for answer in answers).count(False) == 1
    assert shop.api.ended_job(answers[0].json()["id"])["state"] == "succeeded"
