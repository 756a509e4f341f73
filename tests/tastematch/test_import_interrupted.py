"""`tastematch import` beside other processes: killed, without its database, with other writers."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from shared.db.migration import migrate
from shared.settings import load_settings
from tastematch import importer
from tests.services.children import Child, wait_until
from tests.services.in_process import Done
from tests.services.postgres import PostgresServer
from tests.services.processes import REPOSITORY, run_tastematch
from tests.tastematch.importing import Importing

BLOCK_ROWS = 100
MERGE_ROWS = 4 * BLOCK_ROWS
ORDERS = 10 * MERGE_ROWS
COUNTS = "SELECT count(*), sum(id), sum(user_id), sum(restaurant_id), sum(rating) FROM orders"

# Stops itself (SIGSTOP) at one known moment: "block 10" is when it stages the tenth block of
# orders, "merge 2" when the second merge of them is written and not committed, "" is never.
STOPS = f"""
import os, signal, sys
from collections import Counter
from sqlalchemy import event
from sqlalchemy.engine import Engine
from shared.db.upserts import Staging
from tastematch import importer
from tastematch.cli import run

importer.BLOCK_ROWS, importer.MERGE_ROWS = {BLOCK_ROWS}, {MERGE_ROWS}
moment, folder = sys.argv[1:]
counts = Counter()

def comes(what):
    counts[what] += 1
    if f"{{what}} {{counts[what]}}" == moment:
        os.kill(os.getpid(), signal.SIGSTOP)

@event.listens_for(Engine, "after_cursor_execute")
def see(connection, cursor, statement, parameters, context, is_many):
    if statement.startswith("INSERT INTO orders"):
        comes("merge")

def add(self, rows, add=Staging.add):
    if self._target.table.name == "orders":
        comes("block")
    add(self, rows)

Staging.add = add
sys.exit(run(["import", folder]))
"""


@pytest.fixture(autouse=True)
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process as in the others: few rows are many merges."""
    monkeypatch.setattr(importer, "BLOCK_ROWS", BLOCK_ROWS)
    monkeypatch.setattr(importer, "MERGE_ROWS", MERGE_ROWS)


@pytest.fixture(scope="module")
def many_orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ORDERS orders of 300 users, which their own file does not list, at 50 restaurants."""
    folder = tmp_path_factory.mktemp("many")
    chance = random.Random(1)
    (folder / "restaurants.csv").write_text(
        "id,name\n" + "".join(f"{number},Place {number}\n" for number in range(1, 51))
    )
    with (folder / "orders.csv").open("w") as file:
        file.write("id,user_id,restaurant_id,order_date,rating\n")
        file.writelines(
            f"{number},{chance.randint(1, 300)},{chance.randint(1, 50)},2026-01-01T00:00:00Z,"
            f"{chance.randint(1, 5)}\n"
            for number in range(1, ORDERS + 1)
        )
    return folder


@contextlib.contextmanager
def stopped_at(moment: str, folder: Path, url: str, logs: Path) -> Iterator[Child]:
    """An import that has come to the moment. Killed at the end."""
    child = Child(
        [sys.executable, "-c", STOPS, moment, folder],
        name="import",
        folder=logs,
        environment={
            "PYTHONPATH": str(REPOSITORY),
            "DATABASE_URL": url,
            "TASTEMATCH_DATA_DIR": str(logs / "home"),
        },
        working_folder=REPOSITORY,
    )
    try:
        wait_until(
            lambda: not child.is_running or is_stopped(child) or not moment,
            timeout_seconds=60,
            describe=child.log_tail,
        )
        assert child.is_running, child.log_tail()
        yield child
    finally:
        child.kill()


def is_stopped(child: Child) -> bool:
    return psutil.Process(child.pid).status() == psutil.STATUS_STOPPED


def until_ended(child: Child) -> None:
    wait_until(lambda: not child.is_running, timeout_seconds=60, describe=child.log_tail)


def ask(url: str, statement: str) -> tuple[object, ...]:
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=10)
    else:
        connection = psycopg2.connect(url)
    with contextlib.closing(connection):
        cursor = connection.cursor()
        cursor.execute(statement)
        row: tuple[object, ...] = cursor.fetchone()
        return tuple(row)


def count_orders(url: str) -> int:
    return int(str(ask(url, "SELECT count(*) FROM orders")[0]))


def test_an_import_killed_again_and_again_ends_as_a_clean_one(
    importing: Importing, many_orders: Path, tmp_path: Path
) -> None:
    url = importing.url
    for moment, stored in (("merge 2", MERGE_ROWS), ("block 10", 2 * MERGE_ROWS)):
        with stopped_at(moment, many_orders, url, tmp_path):
            pass
        assert count_orders(url) == stored

    outcome = importing(many_orders)

    assert outcome.code == 0, outcome.stderr
    assert outcome.summary["restaurants.csv"] == (0, 0, 50, 0)
    imported, updated, unchanged, rejected = outcome.summary["orders.csv"]
    assert (updated, rejected) == (0, 0)
    assert unchanged == 2 * MERGE_ROWS == ORDERS - imported
    file = (many_orders / "orders.csv").read_text().splitlines()[1:]
    rows = [[int(cell) for cell in line.split(",") if cell.isdigit()] for line in file]
    assert ask(url, COUNTS) == (ORDERS, *(sum(column) for column in zip(*rows, strict=True)))
    assert len(importing.ids("users")) == len({row[1] for row in rows})


def test_two_imports_at_once_end_as_one(
    importing: Importing, many_orders: Path, tmp_path: Path
) -> None:
    with stopped_at("merge 2", many_orders, importing.url, tmp_path) as child:

        def go_on(*_of_the_statement: object) -> None:
            child.send(signal.SIGCONT)

        event.listen(Engine, "before_cursor_execute", go_on)
        try:
            outcome = importing(many_orders)
        finally:
            event.remove(Engine, "before_cursor_execute", go_on)
        until_ended(child)
        assert (outcome.code, child.exit_status) == (0, 0), outcome.stderr + child.stderr()
    assert len(importing.ids("orders")) == ORDERS


def test_other_writers_of_a_sqlite_file_make_it_wait(
    sqlite_url: str, many_orders: Path, tmp_path: Path
) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    is_done = threading.Event()
    beats = 0

    def beat() -> None:
        nonlocal beats
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
            while not is_done.wait(0.005):
                with connection:
                    connection.execute("UPDATE alembic_version SET version_num = version_num")
                beats += 1

    writer = threading.Thread(target=beat)
    writer.start()
    try:
        with stopped_at("", many_orders, sqlite_url, tmp_path) as child:
            until_ended(child)
    finally:
        is_done.set()
        writer.join()
    assert (child.exit_status, child.stderr()) == (0, "")
    assert beats > 10


def test_a_database_that_dies_in_mid_import_is_one_line(
    private_postgres: Callable[..., PostgresServer], many_orders: Path, tmp_path: Path
) -> None:
    server = private_postgres()
    url = server.create_database()
    migrate(load_settings({"DATABASE_URL": url, "TASTEMATCH_DATA_DIR": str(tmp_path)}))
    for moment in ("merge 2", "block 6"):
        logs = tmp_path / moment
        logs.mkdir()
        with stopped_at(moment, many_orders, url, logs) as child:
            server.kill()
            child.send(signal.SIGCONT)
            until_ended(child)
            assert child.exit_status == 4
            assert child.stderr().count("\n") == 1, child.stderr()
            said = "tastematch: the database at DATABASE_URL cannot be used"
            assert child.stderr().startswith(said)
        server.restart()


def test_a_database_that_cannot_be_reached_is_one_line(
    tastematch: Callable[..., Done], free_port: int, tmp_path: Path
) -> None:
    (tmp_path / "users.csv").write_text("id\n1\n")
    url = f"postgresql://shop:hidden-word@127.0.0.1:{free_port}/shop"
    for run, words in ((run_tastematch, ("import", str(tmp_path))), (tastematch, ("migrate",))):
        done = run(*words, env={"DATABASE_URL": url})
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == (
            "tastematch: the database at DATABASE_URL cannot be used (connection refused)\n"
        )
