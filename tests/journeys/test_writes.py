"""Orders in, fresh lists out: two replicas, their worker and an operator, and what clients saw.

Everything that was answered is recorded and judged afterwards (`judgement.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from shared.settings import Settings, load_settings
from tests.journeys.history import NO_REPLICA, Change, Client, History, Reading, clients
from tests.journeys.judgement import Judgement
from tests.journeys.shop import LISTS, Api, command, running_api
from tests.journeys.stored import Stored, Witness, witness_of
from tests.services.children import wait_until
from tests.services.datasets import TwoTastes, two_tastes_dataset, write_dataset
from tests.services.processes import start_worker

SERVICE_TOKEN = "service-token-of-a-shop-that-takes-orders"
NEWCOMERS = (900_001, 900_002)
PAUSE_SECONDS = 0.1  # of a client, or it takes the processor from those whom it asks
SETTLED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Shop:
    town: TwoTastes
    apis: tuple[Api, Api]
    env: dict[str, str]
    settings: Settings
    witness: Witness

    def precomputed(self) -> str:
        version = self.apis[1].precomputed()
        self.apis[0].follows(version)
        return version

    def follow(self, version: str) -> None:
        for api in self.apis:
            api.follows(version)


@pytest.fixture(params=["machines", "one machine"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """After its first snapshot. With Redis and PostgreSQL each replica has a folder of its own;
    with SQLite and the disk they share one."""
    env = {
        "TASTEMATCH_PRECOMPUTE_CRON": "",
        "TASTEMATCH_KEEP_SNAPSHOTS": "20",
        "TASTEMATCH_SERVICE_TOKEN": SERVICE_TOKEN,
        "TASTEMATCH_JWT_SECRET": "a secret that all machines of the shop share",
    }
    folders = [tmp_path / "data"] * 2
    if request.param == "machines":
        env["DATABASE_URL"] = request.getfixturevalue("postgres_url")
        env["REDIS_URL"] = request.getfixturevalue("redis_url")
        folders = [tmp_path / "one", tmp_path / "other"]
    else:
        env["DATABASE_URL"] = request.getfixturevalue("sqlite_url")
    envs = [env | {"TASTEMATCH_DATA_DIR": str(folder)} for folder in folders]
    town = two_tastes_dataset(tmp_path / "town", users_per_group=15, seed=17)
    command(envs[0], "import", town.folder)
    settings = load_settings(envs[0])
    with ExitStack() as stack:
        witness = stack.enter_context(witness_of(settings))
        stack.enter_context(start_worker(env=envs[0]))
        one, other = (
            stack.enter_context(running_api(each, service_token=SERVICE_TOKEN)) for each in envs
        )
        shop = Shop(town, (one, other), envs[0], settings, witness)
        shop.precomputed()
        yield shop


class Customers:
    """Users who order, hide and take back, each write at the next replica; and their history."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.history = History()
        self.stop = threading.Event()
        town = shop.town
        self.users = [*town.ramen_users[:4], *town.taco_users[:4]]
        self.erased = town.taco_users[5]
        self.watched = [*self.users, *NEWCOMERS, self.erased, town.ramen_users[5]]

    def write(self, users: Sequence[int]) -> None:
        """Until told to stop, one write after the other, and its results at both replicas."""
        with clients(self._shop.apis, self._shop.settings, self.history) as asking:
            number = 0
            while not self.stop.wait(PAUSE_SECONDS):
                user_id = users[number % len(users)]
                own, other = asking[::-1] if number // len(users) % 2 else asking
                self._write_one(own, user_id, number // len(users))
                own.read_user(user_id)
                other.read_user(user_id)
                number += 1

    def _write_one(self, client: Client, user_id: int, turn: int) -> None:
        offered = client.read("discover", user_id).ids
        if turn % 5 == 2:
            ordered = client.read("order_again", user_id).ids
            assert client.hide(user_id, ordered[0] if turn % 2 else offered[0]) == 204
        elif turn % 5 == 4:
            for hidden in self.history.of("hide", user_id=user_id)[-1:]:
                assert client.unhide(user_id, hidden.restaurant_id) == 204
        else:
            # What has just been closed cannot be ordered.
            assert client.order(user_id, offered[turn % 7]) in (201, 422)

    def watch(self, replica: int) -> None:
        """Reads everything at one replica, again and again."""
        with clients(self._shop.apis, self._shop.settings, self.history) as asking:
            while not self.stop.is_set():
                self.look(asking[replica])

    def look(self, client: Client) -> None:
        for user_id in self.watched:
            client.read_user(user_id)
            self.stop.wait(PAUSE_SECONDS)
        for what in ("metadata", "popular"):
            client.read(what)
        client.read("similar", self._shop.town.ramen_restaurants[7])

    def more_orders(self, count: int) -> None:
        wanted = len(self.history.of("order")) + count
        wait_until(
            lambda: len(self.history.of("order")) >= wanted,
            timeout_seconds=30,
            describe=f"{count} more orders",
        )

    def imports_closed(self, restaurant_id: int) -> None:
        """A restaurant closes by a file: neither replica takes that write."""
        row = {"id": restaurant_id, "name": "Closed by a file", "is_active": False}
        folder = write_dataset(self._shop.town.folder / "closed", restaurants=[row])
        began = time.time()
        command(self._shop.env, "import", folder)
        change = Change(NO_REPLICA, "close", began, time.time(), restaurant_id=restaurant_id)
        self.history.changes.append(change)

    def details_agree(self, client: Client) -> None:
        """The detailed form has the ids of the bare one, in its order, whatever closed."""
        api = self._shop.apis[client.replica]
        for user_id in self.watched:
            ids = client.read("for_you", user_id).ids
            detailed = api.as_service(f"/api/users/{user_id}/recommendations/detailed?limit=50")
            assert [item["id"] for item in detailed.json()["items"]] == ids

    def are_settled(self, asking: Sequence[Client]) -> None:
        """Until both replicas say the same of every user, and nothing of what is closed."""
        closed = self.history.of("close")[-1].restaurant_id

        def seen(client: Client) -> list[Reading]:
            readings = [client.read(what, user) for user in self.watched for what in LISTS]
            return readings + [client.read(what) for what in ("metadata", "popular")]

        def is_settled() -> bool:
            found = [seen(client) for client in asking]
            one, other = (
                [(reading.etag, reading.content) for reading in readings] for readings in found
            )
            return one == other and closed not in found[0][-2].ids

        wait_until(
            is_settled,
            timeout_seconds=SETTLED_SECONDS,
            describe="both replicas to say the same",
        )


def test_what_was_answered_was_told_and_nothing_confirmed_is_lost(shop: Shop) -> None:
    customers = Customers(shop)
    history = customers.history
    first = shop.apis[0].version()
    assert first is not None
    with (
        ThreadPoolExecutor(4) as pool,
        clients(shop.apis, shop.settings, history) as asking,
    ):
        one, other = asking
        running = [
            *(pool.submit(customers.write, customers.users[at::2]) for at in range(2)),
            *(pool.submit(customers.watch, replica) for replica in range(2)),
        ]
        try:
            _operated(shop, customers, one, other, first)
        finally:
            customers.stop.set()
        for each in running:
            each.result()
        customers.are_settled(asking)
        for client in asking:
            customers.look(client)
            customers.details_agree(client)

    stored = Stored(shop.settings, shop.witness.told())
    complaints = Judgement(history, stored).complaints()
    assert not complaints, f"{len(complaints)}\n" + "\n".join(complaints[:5])
    _saw_enough(history, stored, versions=len(stored.versions))
    _would_be_told(history, stored, erased=customers.erased)


def _operated(shop: Shop, customers: Customers, one: Client, other: Client, first: str) -> None:
    """What an operator does meanwhile."""
    popular = one.read("popular").ids
    likes = {"cuisines": ["Tacos"], "price_ranges": [1, 2]}
    assert one.prefer(NEWCOMERS[0], {"cuisines": ["Ramen"], "city": "Osaka"}) == 200
    assert other.prefer(NEWCOMERS[1], likes) == 200
    assert one.close(popular[0]) == 200
    customers.more_orders(6)
    second = shop.precomputed()
    assert one.open(popular[0]) == other.close(popular[1]) == 200
    assert other.erase(customers.erased) == 204
    customers.more_orders(4)
    assert one.activate(first) == 200
    shop.follow(first)
    customers.more_orders(6)
    assert other.activate(second) == 200
    shop.follow(second)
    assert other.open(popular[1]) == 200
    assert one.order(NEWCOMERS[1], popular[4]) == 201
    customers.more_orders(6)
    assert other.close(popular[2]) == 200
    if shop.settings.redis_url is not None:
        shop.precomputed()
        customers.imports_closed(popular[3])


def _saw_enough(history: History, stored: Stored, *, versions: int) -> None:
    """A history in which nothing happened would prove nothing."""
    lists = [reading for reading in history.readings if reading.what in LISTS]
    for replica in range(2):
        own = [reading for reading in lists if reading.replica == replica]
        assert len({reading.version for reading in own}) == versions
        assert len({reading.revision for reading in own}) > 3
        assert {reading.source for reading in own} >= {"personal", "preferences"}
    assert stored.count_of_anew > 30
    assert len(history.of("hide")) > 2
    assert len(history.of("unhide")) > 1


def _would_be_told(history: History, stored: Stored, *, erased: int) -> None:
    """Answers that were right once, or elsewhere, are wrong when and where they were not given."""

    def wrong(reading: Reading, given: Reading, said: str) -> None:
        given = given._replace(replica=reading.replica, began=reading.began, ended=reading.ended)
        subject = reading.subject
        others = [x for x in readings if x.subject == subject and x is not reading]
        altered = History([*others, given], history.changes)
        found = Judgement(altered, stored).complaints()
        assert any(said in each for each in found), (said, found[:3])

    readings = sorted(history.readings, key=lambda reading: reading.began)

    def of(what: str, subject: int = 0) -> list[Reading]:
        return [each for each in readings if (each.what, each.subject) == (what, subject)]

    for what in ("order_again", "discover"):
        first, last = _before_and_after_an_order(history, what)
        wrong(last, first, "not known")
    eater = last.subject
    old, new = (of("for_you", eater)[at] for at in (0, -1))
    wrong(new, new._replace(content=old.content, etag=f"{new.etag} "), "of no version")
    best, second, *rest = new.ids
    swapped = orjson.dumps([second, best, *rest])
    wrong(new, new._replace(content=swapped, etag=f"{new.etag} "), "of no version")
    wrong(new, new._replace(content=swapped), "one tag, two answers")
    wrong(of("order_again", erased)[-1], of("order_again", erased)[0], "known after")
    wrong(of("popular")[-1], of("popular")[0], "shown after")
    wrong(of("metadata")[-1], of("metadata")[0], "came back")
    wrong(of("orders", eater)[-1], of("orders", eater)[0], "not listed")


def _before_and_after_an_order(history: History, what: str) -> tuple[Reading, Reading]:
    """Two readings of a list at one replica, in one version, and two more between them."""
    excluded = {change.restaurant_id for change in history.of("hide", "close")}
    readings = sorted(history.readings, key=lambda reading: reading.began)
    for order in history.of("order"):
        of_user = (what, order.user_id, order.replica)
        found = [each for each in readings if (each.what, each.subject, each.replica) == of_user]
        before = [each for each in found if each.ended < order.began][-1:]
        after = [each for each in found if each.began > order.ended][:3]
        is_one_version = len({each.version for each in (*before, *after)}) == 1
        if order.restaurant_id in excluded or not before or len(after) < 3 or not is_one_version:
            continue
        if (order.restaurant_id in after[2].ids) != (order.restaurant_id in before[0].ids):
            return before[0], after[2]
    raise AssertionError("nobody was seen to order for the first time")
