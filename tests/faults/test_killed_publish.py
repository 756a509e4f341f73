"""A publish that is killed at a known step: readers have the old version or the new, each whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from shared.settings import load_settings
from shared.snapshot.layout import Keys
from shared.snapshot.opening import open_store
from shared.snapshot.verification import verify_parts
from tests.faults.gate import Gate
from tests.faults.leases import leases_run_out
from tests.faults.readers import Whole, read_whole, reading
from tests.journeys.shop import Api, running_api, write_orders
from tests.services.children import Child, is_alive
from tests.services.datasets import TwoTastes, two_tastes_dataset
from tests.services.processes import start_worker, wait_until
from tests.services.redis import RedisServer
from tests.worker.published import precompute_here, start_precompute
from tests.worker.test_precompute import load_dataset

SERVICE_TOKEN = "service-token-of-a-shop-whose-publishes-are-killed"
STEP_SECONDS = 20.0
NAMESPACE = "tastematch"

_SET = rb"\r\nSET\r\n\$\d+\r\n\S+:"
FIRST_CHUNK = _SET + rb"part:"
LISTS_CHUNK = _SET + rb"part:[^:]+:lists:0\r"
MANIFEST = _SET + rb"manifest:"
SWITCH = rb"\r\nEVAL(SHA)?\r\n"
# A publish that is killed between two chunks is swept, too: see the one whose worker is killed.
STEPS_BEFORE_THE_SWITCH = (FIRST_CHUNK, MANIFEST, SWITCH)

Env = dict[str, str]


@dataclass(frozen=True, slots=True)
class Shop:
    """An API that serves `version`. `gated` is the environment of those behind the gate."""

    town: TwoTastes
    redis: RedisServer
    api: Api
    gate: Gate
    env: Env
    gated: Env
    version: str
    paths: tuple[str, ...]

    def orders_arrive(self, folder: Path) -> None:
        """The next version differs from this one in what it answers."""
        user_id, tacos = self.town.ramen_users[0], self.town.taco_restaurants[:3]
        load_dataset(self.env, write_orders(folder, user_id, tacos, first_id=500_001))

    def is_held(self) -> None:
        wait_until(
            self.gate.is_reached.is_set,
            timeout_seconds=STEP_SECONDS,
            describe="the publish to reach its step",
        )

    def whole(self) -> Whole:
        return read_whole(self.api, self.paths)

    def stored(self) -> tuple[str | None, set[str]]:
        """The active version and the complete ones, every byte of which is verified."""
        store = open_store(load_settings(self.env))
        try:
            entries = store.versions()
            for entry in entries:
                verify_parts(store, entry.manifest)
            return store.pointer().version, {entry.manifest.version for entry in entries}
        finally:
            store.close()

    def versions_with_keys(self) -> set[str]:
        """Complete or not."""
        with self.redis.client() as client:
            keys = Keys(NAMESPACE)
            found = {keys.version_of(name.decode()) for name in client.scan_iter(count=500)}
        return {version for version in found if version is not None}


@pytest.fixture
def start_shop(
    private_redis: Callable[..., RedisServer], sqlite_url: str, tmp_path: Path
) -> Callable[..., object]:
    @contextmanager
    def start(**settings: str) -> Iterator[Shop]:
        # What Redis had confirmed outlives its end, so that it returns with half a publish.
        redis = private_redis(arguments=["--appendonly", "yes", "--appendfsync", "always"])
        town = two_tastes_dataset(tmp_path / "town", users_per_group=20, seed=9)
        env = {
            "DATABASE_URL": sqlite_url,
            "REDIS_URL": redis.url(),
            "TASTEMATCH_DATA_DIR": str(tmp_path / "data"),
            "TASTEMATCH_PRECOMPUTE_CRON": "",
            "TASTEMATCH_SERVICE_TOKEN": SERVICE_TOKEN,
            "HOME": str(tmp_path),
            **settings,
        }
        load_dataset(env, town.folder)
        version = precompute_here(env)[0].version
        paths = (
            f"/api/users/{town.ramen_users[0]}/recommendations?list=order_again&limit=50",
            f"/api/users/{town.ramen_users[0]}/recommendations?limit=50",
            f"/api/users/{town.taco_users[0]}/recommendations?list=discover&limit=50",
            "/api/lists/popular?limit=50",
        )
        with (
            Gate(host=redis.host, port=redis.port) as gate,
            running_api(env, service_token=SERVICE_TOKEN) as api,
        ):
            gated = env | {"REDIS_URL": f"redis://127.0.0.1:{gate.port}/0"}
            api.follows(version)
            yield Shop(town, redis, api, gate, env, gated, version, paths)

    return start


def killed_at(shop: Shop, step: bytes) -> None:
    """Runs a precompute to that step of its publish and kills it there."""
    shop.gate.hold_at(step)
    with start_precompute(shop.gated) as child:
        shop.is_held()
        assert child.poll() is None
        child.kill()


def computing(worker: Child) -> list[psutil.Process]:
    """The process of a run; a worker has others besides."""
    found = worker.descendants()
    return [process for process in found if "worker.precompute" in process.cmdline()]


def test_a_publish_killed_at_any_step_leaves_one_whole_version(
    start_shop: Callable[..., object], tmp_path: Path
) -> None:
    with start_shop(TASTEMATCH_KEEP_SNAPSHOTS="1") as shop:
        wholes = {shop.version: shop.whole()}
        shop.orders_arrive(tmp_path / "news")
        with reading(shop.api, shop.paths) as readings:
            for step in STEPS_BEFORE_THE_SWITCH:
                killed_at(shop, step)
                assert shop.stored() == (shop.version, {shop.version})
                assert len(shop.versions_with_keys()) == 2, "the one before was swept"
            assert shop.api.version() == shop.version

            # The old version's keys go last, when nobody reads them any more.
            killed_at(shop, rb"\r\nUNLINK\r\n\$\d+\r\n\S+:" + shop.version.encode())
            new, complete = shop.stored()
            assert new is not None
            assert new > shop.version
            assert complete == {new}
            assert shop.versions_with_keys() == {shop.version, new}
            shop.api.follows(new)
            wholes[new] = shop.whole()

            last = precompute_here(shop.env)[0].version
            assert shop.stored() == (last, {last})
            assert shop.versions_with_keys() == {last}
            shop.api.follows(last)
            wholes[last] = shop.whole()
        readings.are_whole(wholes)
        assert wholes[shop.version] != wholes[new]


def test_another_worker_takes_over_from_one_that_was_killed_in_mid_publish(
    start_shop: Callable[..., object], tmp_path: Path
) -> None:
    with start_shop() as shop:
        wholes = {shop.version: shop.whole()}
        shop.orders_arrive(tmp_path / "news")
        with reading(shop.api, shop.paths) as readings:
            with start_worker(env=shop.gated, ready="queue.connected") as worker:
                shop.gate.hold_at(LISTS_CHUNK)
                job_id = shop.api.trigger()
                shop.is_held()
                shop.gate.hold_at(MANIFEST)
                (child,) = computing(worker)
                child.kill()  # alone: its worker tries again

                shop.is_held()
                descendants = worker.descendants()
                assert descendants
                worker.kill()
                assert not any(map(is_alive, descendants))
            assert shop.stored() == (shop.version, {shop.version})
            assert shop.api.as_service(f"/api/jobs/{job_id}").json()["state"] == "running"
            leases_run_out(load_settings(shop.env))

            with start_worker(env=shop.env, ready="queue.connected"):
                job = shop.api.ended_job(job_id)
                assert job["state"] == "succeeded", job
                new = job["snapshot_version"]
                shop.api.follows(new)
            assert shop.stored() == (new, {shop.version, new})
            assert shop.versions_with_keys() == {shop.version, new}
            wholes[new] = shop.whole()
        readings.are_whole(wholes)
        assert wholes[shop.version] != wholes[new]


def test_a_redis_killed_in_mid_publish_fails_the_job_and_nothing_else(
    start_shop: Callable[..., object], tmp_path: Path
) -> None:
    with start_shop() as shop, start_worker(env=shop.gated, ready="queue.connected") as worker:
        wholes = {shop.version: shop.whole()}
        shop.orders_arrive(tmp_path / "news")
        with reading(shop.api, shop.paths) as readings:
            shop.gate.hold_at(MANIFEST)
            job_id = shop.api.trigger()
            shop.is_held()
            shop.redis.kill()
            job = shop.api.ended_job(job_id)
            assert job["state"] == "failed"
            assert "Redis" in job["error"]
            assert job["snapshot_version"] is None

            shop.redis.restart()
            assert shop.stored() == (shop.version, {shop.version})
            assert len(shop.versions_with_keys()) == 2
            wait_until(
                lambda: shop.api.post("/api/jobs/precompute").status_code == 202,
                timeout_seconds=STEP_SECONDS,
                describe="a trigger to be accepted again",
            )
            new = shop.api.precomputed()
            assert worker.is_running
            active, complete = shop.stored()
            assert active == new
            assert shop.versions_with_keys() == complete
            wholes[new] = shop.whole()
        readings.are_whole(wholes)
        assert wholes[shop.version] != wholes[new]
