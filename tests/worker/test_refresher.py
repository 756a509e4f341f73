"""What the refresher tells between two snapshots, on both databases and both stores."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from redis import Redis
from sqlalchemy import delete, select, update

from shared.db import changes
from shared.db.engine import sync_engine
from shared.db.models import Change, JobRow
from shared.jobs import records
from shared.jobs.clock import database_time
from shared.jobs.workers import Worker
from shared.settings import load_settings
from shared.snapshot.format import SOURCE_NONE, SOURCE_PERSONAL, SOURCE_PREFERENCES
from shared.snapshot.overlay import EXCLUSIONS, GONE, UserExclusion, user_key
from tests.services.children import is_alive, wait_until
from tests.services.databases import sqlite_address
from tests.services.in_process import Done
from tests.services.postgres import PostgresDatabases, database_name
from tests.services.processes import start_worker
from tests.services.redis import RedisDatabases, RedisServer
from tests.worker.changed_shop import CITIES, CUISINES, USERS, ChangedShop, work_off
from worker import refresher_rounds
from worker.lookout import Lookout
from worker.refresher_child import RefresherChild
from worker.runner import JobRunner
from worker.threads import Transactions


@pytest.fixture(scope="module")
def disk_shop(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[ChangedShop]:
    """SQLite and files. Each test has users of its own in it, and leaves a snapshot."""
    folder = tmp_path_factory.mktemp("disk")
    shutil.copyfile(sqlite_template, folder / "shop.db")
    with contextlib.ExitStack() as stack:
        env = {"DATABASE_URL": sqlite_address(folder / "shop.db")}
        yield ChangedShop.opened(env, folder, stack)


@pytest.fixture(scope="module")
def redis_shop(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: PostgresDatabases,
    postgres_template: str,
    redis_server: RedisDatabases,
) -> Iterator[ChangedShop]:
    """PostgreSQL and Redis."""
    folder = tmp_path_factory.mktemp("redis")
    with contextlib.ExitStack() as stack:
        url = postgres.create_database(template=postgres_template)
        stack.callback(postgres.drop_database, url)
        env = {"DATABASE_URL": url, "REDIS_URL": redis_server.fresh_url()}
        yield ChangedShop.opened(env, folder, stack)


@pytest.fixture(params=["disk", "redis"])
def shop(request: pytest.FixtureRequest) -> ChangedShop:
    found = request.getfixturevalue(f"{request.param}_shop")
    assert isinstance(found, ChangedShop)
    return found


# --- lists ------------------------------------------------------------------------------------


def test_lists_follow_orders_preferences_and_what_is_taken_back(shop: ChangedShop) -> None:
    published, rounds = shop.published(), shop.rounds()
    regular, quiet, silent = USERS[0], USERS[1], USERS[2]
    ordered = published.lists[regular][1][0]
    revisions = {
        regular: shop.order(regular, ordered),
        quiet: shop.forget_orders(quiet),
        silent: shop.write("user", silent),
    }
    ordering = shop.new_user_id()
    preferring, nobody = shop.new_user_id(), shop.new_user_id()
    shop.add_user(ordering, "halle ")
    revisions[ordering] = shop.order(ordering, 1)
    shop.add_user(preferring, "Atlantis")
    revisions[preferring] = shop.prefer(preferring, cuisines=["sushi"], city="Leipzig")
    revisions[nobody] = shop.add_user(nobody, None)
    work_off(rounds)

    for_you, discover, again = shop.ids(regular, published)
    assert (ordered in again, ordered in discover, ordered in for_you[:10]) == (True, False, True)
    assert shop.ids(silent, published) == published.lists[silent]
    first = shop.ids(ordering, published)
    assert first[2] == [1]
    assert 1 not in first[1]
    assert first[1]
    sushi, _, none = shop.ids(preferring, published)
    by_popularity = published.popular["Leipzig"]
    assert sushi == [place for place in by_popularity if CUISINES[place % 3] == "Sushi"]
    assert none == []
    assert shop.ids(quiet, published) == shop.ids(nobody, published) == ([], [], [])

    codes = list(published.popular)
    told = {user: shop.lists(user) for user in revisions}
    assert {user: each and each.revision for user, each in told.items()} == revisions
    assert {user: each and (each.source, codes[each.city]) for user, each in told.items()} == {
        regular: (SOURCE_PERSONAL, CITIES[0]),
        quiet: (SOURCE_NONE, CITIES[1]),
        silent: (SOURCE_PERSONAL, CITIES[0]),
        ordering: (SOURCE_PERSONAL, "Halle"),
        preferring: (SOURCE_PREFERENCES, "Leipzig"),
        nobody: (SOURCE_NONE, None),
    }
    assert shop.count_open() == 0
    assert shop.exclusion(regular) is None


def test_who_says_a_city_gets_its_lists_and_nothing_is_made_up(shop: ChangedShop) -> None:
    """Between snapshots, and by the next one."""
    said: dict[int, tuple[dict[str, Any], int, str | None]] = {
        shop.new_user_id(): ({"cuisines": ["nothing of that name"]}, SOURCE_NONE, "Halle"),
        shop.new_user_id(): ({"city": "Atlantis"}, SOURCE_NONE, "Leipzig"),
        shop.new_user_id(): ({"city": "halle"}, SOURCE_PREFERENCES, "Halle"),
        shop.new_user_id(): ({"price_ranges": [2]}, SOURCE_PREFERENCES, "Halle"),
        shop.new_user_id(): ({}, SOURCE_NONE, "Leipzig"),
    }
    for user, (preferences, _, city) in said.items():
        shop.add_user(user, "Leipzig")
        stated = {"city": "Halle"} if city == "Halle" else {}
        shop.prefer(user, **{**stated, **preferences})
    published = shop.published()
    work_off(shop.rounds())
    codes = list(published.popular)
    for user, (_, source, city) in said.items():
        told = shop.lists(user)
        assert told is not None
        assert (told.source, codes[told.city]) == (source, city)
    told_ids = {user: shop.ids(user, published) for user in said}
    assert {place % 2 for user in list(said)[2:4] for place in told_ids[user][0]} == {1}

    after = shop.precompute()
    assert {user: after.lists[user] for user in said} == told_ids
    assert {user: after.cities[user] for user in said} == {
        user: city for user, (_, _, city) in said.items()
    }


def test_the_next_snapshot_holds_what_was_told(redis_shop: ChangedShop) -> None:
    """Of users whose orders are as they were when it is made: nothing jumps at the switch."""
    shop = redis_shop
    user = shop.new_user_id()
    shop.add_user(user, "Halle")
    shop.prefer(user, cuisines=["pizza"], price_ranges=[2, 3])
    rounds = shop.rounds()
    work_off(rounds)
    told = shop.ids(user, shop.published())
    published = shop.precompute()
    assert told == published.lists[user]
    assert published.sources[user] == SOURCE_PREFERENCES


def test_what_a_snapshot_contains_is_not_told_again(shop: ChangedShop) -> None:
    user = USERS[3]
    shop.hide(user, 1)
    with shop.engine.begin() as connection:
        then = database_time(connection) - timedelta(hours=1)
        long_ago = update(Change).where(Change.subject_id == user).values(changed_at=then)
        connection.execute(long_ago)
    work_off(shop.rounds())
    assert shop.exclusion(user) is not None
    assert shop.lists(user) is None
    assert shop.count_open() == 0


# --- exclusions -------------------------------------------------------------------------------


def test_hidden_closed_and_erased_are_told_and_taken_back(shop: ChangedShop) -> None:
    published, rounds = shop.published(), shop.rounds()
    hiding, leaving = USERS[4], USERS[5]
    hidden = published.lists[hiding][1][0]
    shop.order(leaving, 2)
    work_off(rounds)
    shop.overlay.append("20200101T000000000000Z-0000", {user_key(leaving): b"old lists"})

    revision = shop.hide(hiding, hidden)
    closing = shop.set_active(7, False)
    leaving_revision = shop.erase(leaving)
    work_off(rounds)
    assert shop.exclusion(hiding) == UserExclusion(revision, False, frozenset({hidden}))
    assert all(hidden not in each for each in shop.ids(hiding, published))
    assert shop.restaurant_record(7) == b'{"form":1,"revision":%d}' % closing
    assert shop.exclusion(leaving) == UserExclusion(leaving_revision, True, frozenset())
    assert shop.ids(leaving, published) == ([], [], [])
    assert shop.records("20200101T000000000000Z-0000") == {user_key(leaving): GONE}

    revision = shop.unhide(hiding)
    shop.set_active(7, True)
    back = shop.add_user(leaving, None)
    work_off(rounds)
    assert shop.exclusion(hiding) == UserExclusion(revision, False, frozenset())
    assert shop.ids(hiding, published) == published.lists[hiding]
    assert shop.restaurant_record(7) == GONE
    assert came_back(shop, leaving) == UserExclusion(back, False, frozenset())


def came_back(shop: ChangedShop, user_id: int) -> UserExclusion:
    """What is told of one who came after an erasure, but for when that was: since the snapshot."""
    told = shop.exclusion(user_id)
    since = shop.store.manifest(shop.version).changes_since
    assert told is not None
    assert since is not None
    assert told.erased_at >= since.timestamp()
    return replace(told, erased_at=0)


def test_what_came_and_went_between_two_rounds_is_told_as_nothing(shop: ChangedShop) -> None:
    """The replica that took the first write would otherwise go on obeying it."""
    user = USERS[6]
    shop.hide(user, 3)
    revision = shop.unhide(user)
    work_off(shop.rounds())
    assert shop.exclusion(user) == UserExclusion(revision, False, frozenset())


def test_a_store_that_lost_all_is_told_everything_again(shop: ChangedShop) -> None:
    rounds = shop.rounds()
    erased, hiding, long_hiding, returning = USERS[7], USERS[8], USERS[19], USERS[23]
    revisions = {erased: shop.erase(erased), hiding: shop.hide(hiding, 9)}
    shop.erase(returning)
    revisions[returning] = shop.add_user(returning, None)  # between two rounds
    seen: list[UserExclusion | None] = []
    shop.hide(long_hiding, 10)
    closing = shop.set_active(8, False)
    work_off(rounds)
    with shop.engine.begin() as connection:  # as of a change that is older than every snapshot
        connection.execute(delete(Change).where(Change.subject_id == long_hiding))
    if shop.settings.redis_url:
        with Redis.from_url(shop.settings.redis_url) as client:
            client.flushdb()
    else:
        shop.overlay.drop(EXCLUSIONS)
    shop.precompute_with(lambda: seen.append(shop.exclusion(hiding)))
    assert seen[-1] is not None, "it is told before there is a snapshot to show"
    work_off(rounds)
    assert shop.exclusion(hiding) == UserExclusion(revisions[hiding], False, frozenset({9}))
    assert shop.exclusion(long_hiding) == UserExclusion(1, False, frozenset({10}))
    assert shop.exclusion(erased) == UserExclusion(revisions[erased], True, frozenset())
    assert came_back(shop, returning) == UserExclusion(revisions[returning], False, frozenset())
    assert shop.restaurant_record(8) == b'{"form":1,"revision":%d}' % closing


# --- two workers ------------------------------------------------------------------------------


def test_nobody_takes_what_another_has_claimed_until_the_claim_lapses(shop: ChangedShop) -> None:
    user = USERS[9]
    shop.order(user, 4)
    rounds = shop.rounds()
    with shop.engine.begin() as connection:
        now = database_time(connection)
        keys = changes.open_changes(now=now, limit=64)
        claim = changes.claim_changes(keys, until=now + timedelta(seconds=15))
        assert user in {row.subject_id for row in connection.execute(claim)}
    shop.order(user, 5)  # a later change is not taken either
    work_off(rounds)
    assert shop.lists(user) is None
    shop.let_claims_lapse()
    work_off(rounds)
    told = shop.lists(user)
    assert told is not None
    assert told.revision == 2


def test_two_workers_at_once_claim_different_changes(redis_shop: ChangedShop) -> None:
    """Without waiting for each other."""
    shop, users = redis_shop, (USERS[21], USERS[22])
    for user in users:
        shop.order(user, 3)
    claimed: list[int] = []
    with shop.engine.connect() as first, shop.engine.connect() as second:
        for connection in (first, second):
            now = database_time(connection)
            keys = changes.open_changes(now=now, limit=1)
            claim = changes.claim_changes(keys, until=now)
            claimed += [row.subject_id for row in connection.execute(claim)]
        assert len(set(claimed)) == 2
        first.rollback()
        second.rollback()
    work_off(shop.rounds())


def test_who_marks_late_makes_the_change_open_again(shop: ChangedShop) -> None:
    user = USERS[10]
    shop.order(user, 4)
    shop.order(user, 5)
    rounds = shop.rounds()
    work_off(rounds)
    assert shop.count_open() == 0
    with shop.engine.begin() as connection:
        late = {"key_subject": "user", "key_id": user, "key_revision": 1}
        connection.execute(changes.publish_changes(version=shop.version), [late])
    assert shop.count_open() == 1
    work_off(rounds)
    assert shop.count_open() == 0


def test_a_killed_refresher_loses_nothing(redis_shop: ChangedShop) -> None:
    shop = redis_shop
    users = [shop.new_user_id() for _ in range(150)]
    for user in users:
        shop.add_user(user, "Halle")

    def told() -> int:
        return len(shop.records(shop.version).keys() & set(map(user_key, users)))

    with shop.refresher() as first:
        wait_until(told, timeout_seconds=20, describe=shop.log)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert shop.count_open() > 0, "it was killed in the middle"
    shop.let_claims_lapse()
    with shop.refresher():
        wait_until(lambda: shop.count_open() == 0, timeout_seconds=20, describe=shop.log)
    assert told() == len(users)
    assert "Traceback" not in shop.log()


def test_a_refresher_outlives_store_and_database(
    private_redis: Callable[..., RedisServer],
    postgres: PostgresDatabases,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    redis = private_redis(arguments=["--appendonly", "yes"])
    env = {"DATABASE_URL": postgres_url, "REDIS_URL": redis.url()}

    def let_in(is_open: bool) -> None:
        name = database_name(postgres_url)
        with contextlib.closing(psycopg2.connect(postgres.admin_url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {is_open}')
                end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                cursor.execute(end, (name,))

    with contextlib.ExitStack() as stack:
        shop = ChangedShop.opened(env, tmp_path, stack)
        with shop.refresher() as child:
            shop.order(USERS[0], 3)
            wait_until(lambda: shop.lists(USERS[0]), timeout_seconds=20, describe=shop.log)
            redis.kill()
            shop.hide(USERS[1], 3)
            wait_until(lambda: "waits" in shop.log(), timeout_seconds=20, describe=shop.log)
            redis.restart()
            wait_until(lambda: shop.exclusion(USERS[1]), timeout_seconds=20, describe=shop.log)

            let_in(False)
            wait_until(
                lambda: shop.log().count("waits") == 2, timeout_seconds=20, describe=shop.log
            )
            let_in(True)
            shop.engine.dispose()
            shop.hide(USERS[2], 3)
            wait_until(lambda: shop.exclusion(USERS[2]), timeout_seconds=20, describe=shop.log)
            assert child.poll() is None
        assert "Traceback" not in shop.log()


# --- versions ---------------------------------------------------------------------------------


def test_lists_hold_for_a_version_gone_back_to(shop: ChangedShop) -> None:
    user = USERS[11]
    rounds = shop.rounds()
    old, published = shop.version, shop.published()
    shop.order(user, published.lists[user][1][0])
    work_off(rounds)
    shop.precompute()
    other = shop.order(user, published.lists[user][1][1])
    work_off(rounds)
    told = shop.lists(user)
    assert told is not None
    assert told.revision == other

    shop.store.activate(old, pin=False)
    work_off(rounds)
    told = shop.lists(user, old)
    assert told is not None
    assert told.revision == other
    assert set(published.lists[user][1][:2]) <= set(shop.ids(user, published)[2])


def test_a_change_during_a_precompute_is_there_when_its_version_is(shop: ChangedShop) -> None:
    user, revisions = USERS[12], []
    published = shop.published()

    def order_meanwhile() -> None:
        revisions.append(shop.order(user, published.lists[user][1][len(revisions)]))

    shop.precompute_with(order_meanwhile)
    assert len(revisions) >= 2, "one when it began to publish, one right before the end"
    told = shop.lists(user)
    assert told is not None
    assert told.revision == revisions[-2]
    assert shop.store.manifest(shop.version).changes_since is not None


def test_what_belongs_to_pruned_versions_goes(shop: ChangedShop) -> None:
    hiding, leaving = USERS[13], shop.new_user_id()
    rounds = shop.rounds()
    shop.hide(hiding, 3)
    shop.add_user(leaving, None)
    shop.erase(leaving)
    shop.set_active(5, False)
    shop.set_active(6, True)
    work_off(rounds)
    old = shop.version
    with shop.engine.begin() as connection:
        then = database_time(connection) - timedelta(hours=1)
        connection.execute(update(Change).values(changed_at=then))
    shop.precompute(TASTEMATCH_KEEP_SNAPSHOTS="1")
    assert old not in shop.overlay.logs()
    assert shop.restaurant_record(5) is None
    assert shop.restaurant_record(6) == GONE
    assert shop.exclusion(hiding) is not None
    with shop.engine.connect() as connection:
        assert connection.execute(select(Change.subject_id)).all() == []
    assert shop.exclusion(leaving) is None
    assert shop.add_user(leaving, None) == 1, "nothing is known of the id any more"
    work_off(shop.rounds())
    told = shop.exclusion(leaving)
    assert told is not None, "a replica may still take the user for erased"
    assert not told.is_erased
    assert shop.exclusion(hiding) is not None


def test_an_imported_version_shows_nobody_and_nothing_that_is_gone(
    shop: ChangedShop, tastematch: Callable[..., Done], tmp_path: Path
) -> None:
    """Though what was known of it was forgotten with the last snapshot that needed it."""
    leaving, returning = USERS[6], USERS[10]
    file = tmp_path / "old.snapshot"
    assert tastematch("snapshots", "export", shop.version, file, env=shop.env).returncode == 0
    shop.set_active(11, False)
    for user in (leaving, returning):
        shop.erase(user)
    shop.add_user(returning, None)
    with shop.engine.begin() as connection:
        connection.execute(delete(Change))
    shop.overlay.drop(EXCLUSIONS)

    done = tastematch("snapshots", "import", file, env=shop.env)
    assert done.returncode == 0
    assert "gone from the database, and not shown: 1 restaurants" in done.stderr
    work_off(shop.rounds())
    assert shop.exclusion(leaving) == UserExclusion(1, True, frozenset())
    assert came_back(shop, returning) == UserExclusion(1, False, frozenset())
    assert shop.restaurant_record(11)
    shop.set_active(11, True)


# --- lists that cannot be refreshed -----------------------------------------------------------


def test_without_its_model_only_exclusions_are_told_and_each_once(shop: ChangedShop) -> None:
    user = USERS[14]
    model, elsewhere = shop.settings.models_dir / shop.version, shop.folder / "elsewhere"
    shutil.move(model, elsewhere)
    rounds = shop.rounds()
    shop.hide(user, 3)
    shop.set_active(4, False)
    work_off(rounds)
    entries = shop.overlay.read(EXCLUSIONS, after=0, limit=100)
    assert shop.exclusion(user) is not None
    assert shop.restaurant_record(4)
    assert shop.lists(user) is None
    assert shop.count_open() == 1
    work_off(rounds)
    assert shop.overlay.read(EXCLUSIONS, after=0, limit=100) == entries

    shutil.move(elsewhere, model)
    work_off(rounds)
    assert shop.lists(user) is not None
    assert shop.count_open() == 0


@pytest.mark.parametrize("damage", ["cut off", "foreign"])
def test_a_model_that_cannot_be_used_is_as_none(disk_shop: ChangedShop, damage: str) -> None:
    shop, user = disk_shop, disk_shop.new_user_id()
    model = shop.settings.models_dir / shop.version
    if damage == "cut off":
        for file in model.glob("*.npy"):
            os.truncate(file, file.stat().st_size // 2)
    else:
        (model / "kept.json").write_text('{"of": "another release"}')
    shop.add_user(user, None)
    shop.hide(user, 3)
    rounds = shop.rounds()
    for _ in range(2):
        work_off(rounds)
    assert shop.exclusion(user) == UserExclusion(2, False, frozenset({3}))
    assert shop.lists(user) is None
    shop.precompute()
    work_off(rounds)
    assert shop.lists(user) is not None
    assert shop.count_open() == 0


def test_a_full_log_takes_no_more_lists_and_asks_for_a_snapshot(
    redis_shop: ChangedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = redis_shop
    monkeypatch.setattr(refresher_rounds, "MAX_LOG_BYTES", 1)
    rounds = shop.rounds(TASTEMATCH_PRECOMPUTE_CRON="0 * * * *")
    shop.order(USERS[15], 3)
    work_off(rounds)
    shop.hide(USERS[16], 3)
    work_off(rounds)
    assert shop.lists(USERS[15]) is not None
    assert shop.lists(USERS[16]) is None
    assert shop.exclusion(USERS[16]) is not None
    with shop.engine.connect() as connection:
        assert connection.execute(select(JobRow.origin, JobRow.state)).all() == [
            ("overlay", "queued")
        ]
        connection.execute(delete(JobRow))
        connection.commit()
    shop.precompute()
    work_off(rounds)
    assert shop.lists(USERS[16]) is not None
    assert shop.count_open() == 0


async def test_a_process_that_says_nothing_is_replaced(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    program = 'printf + >> "$0"; exec cat'  # which ends with its stdin
    child = RefresherChild(["sh", "-c", program, str(starts)], silent_seconds=0.1)
    stop = asyncio.Event()
    child.wake()
    running = asyncio.create_task(child.run(stop))
    await asyncio.to_thread(
        wait_until,
        lambda: starts.exists() and len(starts.read_text()) >= 2,
        timeout_seconds=20,
        describe="a second start",
    )
    stop.set()
    await running
    assert not child.is_running


async def test_without_a_snapshot_a_worker_starts_its_refresher_for_what_is_untold(
    disk_shop: ChangedShop, tmp_path: Path
) -> None:
    """A replica may go on serving the one it has."""
    started, stop = tmp_path / "started", asyncio.Event()
    child = RefresherChild(["sh", "-c", 'touch "$0"; exec cat', str(started)])
    transactions = Transactions(sync_engine(disk_shop.settings))
    worker = Worker(id="a", kind="embedded", host="here", pid=1)
    runner = JobRunner(pretend_to_run)
    settings = load_settings({**disk_shop.env, "TASTEMATCH_DATA_DIR": str(tmp_path)})
    lookout = Lookout(settings, transactions, runner, child, worker=worker)
    disk_shop.set_active(9, True)
    running = asyncio.create_task(child.run(stop))
    await lookout.look()
    await asyncio.to_thread(
        wait_until, started.exists, timeout_seconds=20, describe="the refresher's start"
    )
    stop.set()
    await running
    await transactions.close(timeout_seconds=1)
    work_off(disk_shop.rounds())


async def pretend_to_run(job_id: str) -> None:
    raise AssertionError(job_id)


# --- in a worker ------------------------------------------------------------------------------


def test_a_worker_starts_replaces_and_rests_its_refresher(disk_shop: ChangedShop) -> None:
    """Its budget is too small for refresher and precompute beside each other."""
    shop = disk_shop

    def refresher() -> int | None:
        found = [each for each in worker.descendants() if "worker.refresher" in each.cmdline()]
        return found[0].pid if found else None

    with start_worker(env=shop.env | {"TASTEMATCH_WORKER_MEMORY_MB": "300"}) as worker:
        shop.order(USERS[17], 3)
        wait_until(lambda: shop.lists(USERS[17]), timeout_seconds=20, describe=worker.log_tail)
        first = refresher()
        assert first
        os.kill(first, signal.SIGKILL)
        shop.hide(USERS[18], 3)
        wait_until(lambda: shop.exclusion(USERS[18]), timeout_seconds=20, describe=worker.log_tail)
        second = refresher()
        assert second not in (None, first)

        before = shop.version
        with shop.engine.begin() as connection:
            now = database_time(connection)
            records.trigger(connection, kind="precompute", origin="api", now=now)
        wait_until(lambda: shop.version != before, timeout_seconds=30, describe=worker.log_tail)
        assert "precompute.alone" in worker.stderr()
        assert not psutil.pid_exists(second or 0)
        shop.hide(USERS[20], 3)
        wait_until(lambda: shop.exclusion(USERS[20]), timeout_seconds=20, describe=worker.log_tail)
        children = worker.descendants()
        assert worker.stop() == 0, worker.log_tail()
    assert not any(is_alive(child) for child in children)
