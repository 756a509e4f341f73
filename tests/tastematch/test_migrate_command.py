"""`tastematch migrate`: one schema on both databases, whatever happens to the process."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, inspect

import shared.db
from shared.db.engine import sync_engine
from shared.db.models import Order
from shared.db.schema import COMPATIBILITY, REVISION
from shared.settings import load_settings
from tests.services.children import Child, wait_until
from tests.services.databases import sqlite_address
from tests.services.in_process import Done
from tests.services.processes import (
    COMMAND,
    REPOSITORY,
    run_tastematch,
    start_serve,
    start_worker,
)

Command = Callable[..., Done]

# Indexes on expressions are not reflected on SQLite: they are known by what walks along them.
pytestmark = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression")

DIES_AT_STATEMENT = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tastematch.cli import run

left = int(sys.argv[1])

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, parameters, context, is_many):
    global left
    if statement.lstrip().startswith(("CREATE", "INSERT INTO alembic_version", "UPDATE")):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.exit(run(["migrate"]))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_address(tmp_path / "deeper" / "tastematch.db")
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@contextlib.contextmanager
def engine_of(url: str, folder: Path) -> Iterator[Engine]:
    engine = sync_engine(
        load_settings({"DATABASE_URL": url, "TASTEMATCH_DATA_DIR": str(folder / "home")})
    )
    yield engine
    engine.dispose()


def described(url: str, folder: Path) -> dict[str, object]:
    """Columns, keys, indexes and checks of each table; empty for an empty database."""
    with engine_of(url, folder) as engine:
        found = inspect(engine)
        return {
            table: (
                [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)],
                found.get_pk_constraint(table)["constrained_columns"],
                sorted(str(key["constrained_columns"]) for key in found.get_foreign_keys(table)),
                sorted((str(i["name"]), i["unique"]) for i in found.get_indexes(table)),
                sorted(str(check["name"]) for check in found.get_check_constraints(table)),
            )
            for table in found.get_table_names()
        }


def start(url: str, folder: Path, name: str, *arguments: str) -> Child:
    return Child(
        arguments or (*COMMAND, "migrate"),
        name=name,
        folder=folder,
        environment={
            "PYTHONPATH": str(REPOSITORY),
            "DATABASE_URL": url,
            "TASTEMATCH_DATA_DIR": str(folder / f"home-{name}"),
        },
        working_folder=REPOSITORY,
    )


def test_an_empty_database_gets_every_table_once(
    tastematch: Command, empty_url: str, tmp_path: Path
) -> None:
    run = run_tastematch if empty_url.startswith("sqlite") else tastematch
    first = run("migrate", env={"DATABASE_URL": empty_url})
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == f"database migrated from empty to {REVISION}\n"
    schema = described(empty_url, tmp_path)
    assert set(schema) == {*Order.metadata.tables, "alembic_version", COMPATIBILITY.name}
    second = tastematch("migrate", env={"DATABASE_URL": empty_url})
    assert second.stdout == f"database is at {REVISION}, nothing to do\n"
    assert described(empty_url, tmp_path) == schema


def test_two_at_once_succeed(empty_url: str, tmp_path: Path) -> None:
    children = [start(empty_url, tmp_path, f"migrate-{number}") for number in range(2)]
    try:
        wait_until(
            lambda: not any(child.is_running for child in children),
            timeout_seconds=60,
            describe="their ends",
        )
        logs = "\n".join(child.log_tail() for child in children)
        assert [child.exit_status for child in children] == [0, 0], logs
        said = sorted(child.stdout() for child in children)
        assert said == [
            f"database is at {REVISION}, nothing to do\n",
            f"database migrated from empty to {REVISION}\n",
        ]
        assert not any(child.stderr() for child in children), logs
    finally:
        for child in children:
            child.kill()


@pytest.mark.parametrize("statements", [4, 25], ids=["first", "fourth"])
def test_one_that_is_killed_leaves_nothing_behind(
    tastematch: Command, empty_url: str, tmp_path: Path, statements: int
) -> None:
    """In the first migration, and in the fourth: those before are whole, or gone on SQLite."""
    child = start(
        empty_url, tmp_path, "dying", sys.executable, "-c", DIES_AT_STATEMENT, str(statements)
    )
    wait_until(lambda: not child.is_running, timeout_seconds=60, describe="its death")
    assert child.exit_status == -signal.SIGKILL, child.log_tail()
    is_empty = statements == 4 or empty_url.startswith("sqlite")
    left = described(empty_url, tmp_path)
    assert ("restaurant_terms" in left, "changes" in left) == (not is_empty, False)
    assert bool(left) != is_empty

    done = tastematch("migrate", env={"DATABASE_URL": empty_url})

    before = "empty" if is_empty else "0003"
    assert done.stdout == f"database migrated from {before} to {REVISION}\n"
    schema = described(empty_url, tmp_path)
    assert "uq_jobs_active_kind" in str(schema["jobs"])
    assert "ix_changes_open" in str(schema["changes"])


NEXT_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{revision}"
branch_labels = None
depends_on = None
works_with = "{works_with}"


def upgrade():
    op.add_column("restaurants", sa.Column("next", sa.Text))
    op.create_table("next", sa.Column("id", sa.Integer, primary_key=True))
"""


def migrate_as_the_next_release(url: str, folder: Path, *, works_with: str) -> None:
    scripts = folder / "migrations"
    shutil.copytree(Path(shared.db.__path__[0]) / "migrations", scripts)
    migration = NEXT_MIGRATION.format(revision=REVISION, works_with=works_with)
    (scripts / "versions" / "9999_next.py").write_text(migration)
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    with engine_of(url, folder) as engine, engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def test_a_newer_schema_that_this_release_does_not_know_is_refused(
    tastematch: Command, database_url: str, tmp_path: Path
) -> None:
    migrate_as_the_next_release(database_url, tmp_path, works_with="9999")
    (tmp_path / "users.csv").write_text("id\n1\n")
    for words in (("migrate",), ("import", str(tmp_path))):
        done = tastematch(*words, env={"DATABASE_URL": database_url})
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "tastematch: the database schema is newer than this release of TasteMatch\n"
        )


def test_processes_work_beside_those_of_the_next_release(
    tastematch: Command, database_url: str, tmp_path: Path
) -> None:
    """Those that were running when its migration came, and those started after it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "restaurants.csv").write_text("id,name\n1,Nonna\n2,Mori\n")
    env = {"DATABASE_URL": database_url, "TASTEMATCH_DATA_DIR": str(tmp_path / "home")}

    with start_serve(env=env) as serving, httpx.Client(base_url=serving.url) as api:

        def has_worker() -> bool:
            checks: dict[str, object] = api.get("/ready").json()["checks"]
            return (checks["database"], checks["worker"]) == ("ok", "ok")

        assert api.get("/api/restaurants").json()["items"] == []
        migrate_as_the_next_release(database_url, tmp_path, works_with=REVISION)
        for words, said in (
            (("migrate",), "database is at 9999, nothing to do\n"),
            (("import", str(data)), "restaurants.csv: imported 2"),
        ):
            done = tastematch(*words, env=env)
            assert (done.returncode, said in done.stdout) == (0, True), done.stderr
        with start_worker(env=env):
            wait_until(has_worker, timeout_seconds=20, describe="a worker")
        assert api.get("/api/restaurants?q=m").json()["items"][0]["id"] == 2
        assert "next" in described(database_url, tmp_path)


def test_a_file_that_is_no_database_is_one_line(tastematch: Command, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but longer than the header of one\n" * 50)
    (tmp_path / "users.csv").write_text("id\n1\n")
    for words in (("migrate",), ("import", str(tmp_path))):
        done = tastematch(*words, env={"DATABASE_URL": sqlite_address(path)})
        assert done.returncode == 4
        assert done.stderr == (
            "tastematch: the database at DATABASE_URL cannot be used (the file is no database)\n"
        )
    assert path.read_text().startswith("not a database")
