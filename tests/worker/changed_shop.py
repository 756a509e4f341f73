"""A shop with a published snapshot, in which users order, hide and leave; what is told of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from shared.db import changes
from shared.db.engine import sync_engine
from shared.db.models import Change, HiddenRestaurant, Order, Preferences, Restaurant, User
from shared.db.operator_writes import Actor, erase_user
from shared.settings import load_settings
from shared.snapshot.opening import open_overlay, open_store
from shared.snapshot.overlay import (
    EXCLUSIONS,
    RefreshedUser,
    UserExclusion,
    decode_refreshed,
    decode_user_exclusion,
    restaurant_key,
    user_key,
)
from tests.services.datasets import write_dataset
from tests.worker.published import HOME, Published, open_published, precompute_here
from tests.worker.test_precompute import load_dataset
from worker.precompute import precompute
from worker.progress import Progress
from worker.refresher_rounds import Rounds

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
RESTAURANTS = range(1, 25)
USERS = range(100, 124)
NEW_USER = 900
CITIES = ("Leipzig", "Halle")
CUISINES = ("Thai", "Pizza|Pasta", "Sushi")


def write_shop(folder: Path) -> Path:
    """Each user ordered at five restaurants of one of two towns."""
    orders = [
        (user, RESTAURANTS[(user % 2 + 2 * (user // 2 + step * step)) % len(RESTAURANTS)], step)
        for user in USERS
        for step in range(5)
    ]
    return write_dataset(
        folder,
        restaurants=[
            {
                "id": place,
                "name": f"Place {place}",
                "cuisine_type": CUISINES[place % 3],
                "price_range": place % 4 + 1,
                "city": CITIES[place % 2],
            }
            for place in RESTAURANTS
        ],
        users=[{"id": user, "city": CITIES[user % 2]} for user in USERS],
        orders=[
            {
                "id": number,
                "user_id": user,
                "restaurant_id": place,
                "order_date": NOW - timedelta(days=step),
            }
            for number, (user, place, step) in enumerate(orders, start=1)
        ],
    )


class ChangedShop:
    """Writes as the API does: the change is noted in the transaction of the write."""

    def __init__(self, env: Mapping[str, str], folder: Path, stack: contextlib.ExitStack) -> None:
        self.env = dict(env)
        self.folder = folder
        self.settings = load_settings(env)
        self.engine = sync_engine(self.settings)
        stack.callback(self.engine.dispose)
        self.store = open_store(self.settings)
        stack.callback(self.store.close)
        self.overlay = open_overlay(self.settings)
        stack.callback(self.overlay.close)
        self.stack = stack
        self._new_users = itertools.count(NEW_USER)

    @classmethod
    def opened(
        cls, env: Mapping[str, str], folder: Path, stack: contextlib.ExitStack
    ) -> ChangedShop:
        """With a first snapshot."""
        env = {
            "TASTEMATCH_DATA_DIR": str(folder / "data"),
            "TASTEMATCH_PRECOMPUTE_CRON": "",
            **env,
        }
        load_dataset(env, write_shop(folder / "set"))
        shop = cls(env, folder, stack)
        with shop.engine.begin() as connection:  # long known
            connection.execute(update(User).values(created_at=NOW))
        shop.precompute()
        return shop

    # --- snapshots ---

    def precompute(self, **settings: str) -> Published:
        precompute_here({**self.env, **settings})
        return self.published()

    def precompute_with(self, check: Callable[[], None]) -> None:
        """`check` is called when it begins to publish, and right before the end."""
        precompute(
            self.settings,
            now=datetime.now(UTC),
            activate=True,
            check=check,
            progress=Progress(lambda event: None),
        )

    def published(self) -> Published:
        return open_published(self.env, self.folder / "parts" / str(self.version))

    @property
    def version(self) -> str:
        version = self.store.pointer().version
        assert version is not None
        return version

    # --- the refresher ---

    def rounds(self, **settings: str) -> Rounds:
        return Rounds(
            load_settings({**self.env, **settings}) if settings else self.settings,
            engine=self.engine,
            store=self.store,
            overlay=self.overlay,
            on_done=lambda done: None,
        )

    @contextlib.contextmanager
    def refresher(self) -> Iterator[subprocess.Popen[bytes]]:
        """The process as a worker starts it."""
        path = os.environ.get("PATH", os.defpath)
        with (self.folder / "refresher.err").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "worker.refresher"],
                cwd=HOME,
                env={
                    "PATH": path,
                    "PYTHONPATH": str(HOME),
                    "HOME": str(self.folder),
                    "OPENBLAS_NUM_THREADS": "1",
                    **self.env,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        with child:  # which closes its stdin and waits
            yield child

    def log(self) -> str:
        return (self.folder / "refresher.err").read_text()

    # --- writes ---

    def write(self, subject: changes.Subject, subject_id: int, *statements: Any) -> int:
        """Returns the revision."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(statement)
            return self._noted(connection, subject, subject_id)

    def order(self, user_id: int, restaurant_id: int) -> int:
        values = {
            "id": select(func.max(Order.id) + 1).scalar_subquery(),
            "user_id": user_id,
            "restaurant_id": restaurant_id,
            "order_date": datetime.now(UTC),
        }
        return self.write("user", user_id, insert(Order).values(values))

    def new_user_id(self) -> int:
        return next(self._new_users)

    def add_user(self, user_id: int, city: str | None) -> int:
        return self.write("user", user_id, insert(User).values(id=user_id, city=city))

    def prefer(self, user_id: int, **preferences: Any) -> int:
        row = {"cuisines": [], "price_ranges": [], "city": None, **preferences}
        return self.write("user", user_id, insert(Preferences).values(user_id=user_id, **row))

    def hide(self, user_id: int, restaurant_id: int) -> int:
        row = {"user_id": user_id, "restaurant_id": restaurant_id, "hidden_at": NOW}
        return self.write("user", user_id, insert(HiddenRestaurant).values(row))

    def unhide(self, user_id: int) -> int:
        hidden = delete(HiddenRestaurant).where(HiddenRestaurant.user_id == user_id)
        return self.write("user", user_id, hidden)

    def forget_orders(self, user_id: int) -> int:
        return self.write("user", user_id, delete(Order).where(Order.user_id == user_id))

    def erase(self, user_id: int) -> int:
        with self.engine.begin() as connection:
            return erase_user(connection, user_id, actor=Actor("service", "a request"))

    def set_active(self, restaurant_id: int, is_active: bool) -> int:
        row = update(Restaurant).where(Restaurant.id == restaurant_id)
        return self.write("restaurant", restaurant_id, row.values(is_active=is_active))

    def _noted(self, connection: Connection, subject: changes.Subject, subject_id: int) -> int:
        noted = changes.note_changes(subject, [subject_id], dialect=self.engine.dialect)
        ((_, revision),) = connection.execute(noted).all()
        assert isinstance(revision, int)
        return revision

    # --- what is told ---

    def records(self, log: str) -> dict[str, bytes]:
        found, place = {}, 0
        while entries := self.overlay.read(log, after=place, limit=500):
            found.update((entry.key, entry.record) for entry in entries)
            place = entries[-1].place
        return found

    def lists(self, user_id: int, version: str | None = None) -> RefreshedUser | None:
        record = self.records(version or self.version).get(user_key(user_id))
        return None if record is None else decode_refreshed(record)

    def ids(self, user_id: int, published: Published) -> tuple[list[int], ...]:
        """for_you, discover and order_again as told."""
        user = self.lists(user_id)
        assert user is not None
        return tuple([published.restaurants[ordinal] for ordinal in each] for each in user.lists)

    def exclusion(self, user_id: int) -> UserExclusion | None:
        record = self.records(EXCLUSIONS).get(user_key(user_id))
        return None if record is None else decode_user_exclusion(record)

    def restaurant_record(self, restaurant_id: int) -> bytes | None:
        return self.records(EXCLUSIONS).get(restaurant_key(restaurant_id))

    def count_open(self) -> int:
        with self.engine.connect() as connection:
            count, _ = connection.execute(changes.count_open_changes()).one()
            return int(count)

    def let_claims_lapse(self) -> None:
        """As time does."""
        with self.engine.begin() as connection:
            connection.execute(update(Change).values(claimed_until=None))


def work_off(rounds: Rounds) -> None:
    """Until nothing is left: on a slow machine one round ends before that."""
    while rounds.round():
        pass
