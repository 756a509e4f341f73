"""`tastematch import` beside other processes: killed, without its database, with other writers."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from tastematch.importer import MERGE_ROWS
from tests.services.children import Child, wait_until
from tests.services.postgres import PostgresServer
from tests.services.processes import REPOSITORY, run_tastematch
from tests.tastematch.importing import Importing

ORDERS = 3 * MERGE_ROWS
COUNTS = "SELECT count(*), sum(id), sum(user_id), sum(restaurant_id), sum(rating) FROM orders"


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
def started(folder: Path, url: str, logs: Path) -> Iterator[Child]:
    child = Child(
        [sys.executable, "-m", "tastematch", "import", folder],
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
        yield child
    finally:
        child.kill()


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


def wait_for_orders(child: Child, url: str, *, more_than: int) -> None:
    def has_more() -> bool:
        assert child.is_running, child.log_tail()
        return int(str(ask(url, "SELECT count(*) FROM orders")[0])) > more_than

    wait_until(has_more, timeout_seconds=60, describe=f"more than {more_than} orders")


def test_an_import_killed_again_and_again_ends_as_a_clean_one(
    importing: Importing, many_orders: Path, tmp_path: Path
) -> None:
    url = importing.url
    for stored in (0, MERGE_ROWS):
        with started(many_orders, url, tmp_path) as child:
            wait_for_orders(child, url, more_than=stored)
        killed_at = int(str(ask(url, "SELECT count(*) FROM orders")[0]))
        assert stored < killed_at < ORDERS

    outcome = importing(many_orders)

    assert outcome.code == 0, outcome.stderr
    assert outcome.summary["restaurants.csv"] == (0, 0, 50, 0)
    imported, updated, unchanged, rejected = outcome.summary["orders.csv"]
    assert (updated, rejected) == (0, 0)
    assert unchanged == killed_at == ORDERS - imported
    file = (many_orders / "orders.csv").read_text().splitlines()[1:]
    rows = [[int(cell) for cell in line.split(",") if cell.isdigit()] for line in file]
    assert ask(url, COUNTS) == (ORDERS, *(sum(column) for column in zip(*rows, strict=True)))
    assert len(importing.ids("users")) == len({row[1] for row in rows})


def test_two_imports_at_once_end_as_one(
    importing: Importing, many_orders: Path, tmp_path: Path
) -> None:
    with started(many_orders, importing.url, tmp_path) as child:
        outcome = importing(many_orders)
        wait_until(lambda: not child.is_running, timeout_seconds=60, describe="the other import")
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
        done = run_tastematch("import", many_orders, env={"DATABASE_URL": sqlite_url})
    finally:
        is_done.set()
        writer.join()
    assert (done.returncode, done.stderr) == (0, "")
    assert beats > 10


def test_a_database_that_dies_in_mid_import_is_one_line(
    private_postgres: Callable[..., PostgresServer], many_orders: Path, tmp_path: Path
) -> None:
    server = private_postgres()
    url = server.create_database()
    assert run_tastematch("migrate", env={"DATABASE_URL": url}).returncode == 0
    with started(many_orders, url, tmp_path) as child:
        wait_for_orders(child, url, more_than=0)
        server.kill()
        wait_until(lambda: not child.is_running, timeout_seconds=30, describe="its end")
        assert child.exit_status == 4
        assert child.stderr().count("\n") == 1, child.stderr()
        assert child.stderr().startswith("tastematch: the database at DATABASE_URL cannot be used")


def test_a_database_that_cannot_be_reached_is_one_line(free_port: int, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("id\n1\n")
    url = f"postgresql://shop:hidden-word@127.0.0.1:{free_port}/shop"
    for words in (("import", str(tmp_path)), ("migrate",)):
        done = run_tastematch(*words, env={"DATABASE_URL": url})
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == (
            "tastematch: the database at DATABASE_URL cannot be used (connection refused)\n"
        )
