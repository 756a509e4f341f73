"""A real PostgreSQL for the test run: servers, and the databases on one.

`TASTEMATCH_TEST_DATABASE_URL` puts a server that already runs in the place of the shared one; its
user must be allowed to create databases.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
from psycopg2 import sql

from tests.services.children import SYSTEM_ENVIRONMENT, Child, unused_port, wait_until
from tests.services.postgres_binaries import (
    copy_wheel,
    find_bin_folder,
    give,
    is_runnable,
    run_binary,
)

URL_VARIABLE = "TASTEMATCH_TEST_DATABASE_URL"
FOLDER_PREFIX = "tastematch-postgres-"
# A database is some 300 small files: on a disk its copy takes 0.1 to 0.2 s, in memory 0.02 s.
MEMORY_FOLDER = Path("/dev/shm")
MEMORY_FREE_BYTES = 2 << 30
START_SECONDS = 30.0
STOP_SECONDS = 10.0
# Nothing need outlive the machine. What is committed outlives a kill of the server, so
# synchronous_commit stays on: without fsync it costs next to nothing.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "listen_addresses": "127.0.0.1",
}


@dataclass(frozen=True, slots=True)
class PostgresDatabases:
    """The databases of one server; `admin_url` names a database from which others are made."""

    admin_url: str

    @property
    def host(self) -> str:
        return urlsplit(self.admin_url).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        return urlsplit(self.admin_url).port or 5432

    def url(self, database: str) -> str:
        """Returns the URL of a database, which need not exist, on this server."""
        return urlsplit(self.admin_url)._replace(path=f"/{database}").geturl()

    def create_database(self, *, prefix: str = "test", template: str | None = None) -> str:
        """Creates an empty database or a copy of `template`, under a new name. Returns its URL."""
        name = f"{prefix}_{secrets.token_hex(6)}"
        # template0 is named outright, since somebody may be connected to template1.
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template or "template0")
        )
        self._execute(statement)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drops a database whatever is still connected to it."""
        name = sql.Identifier(database_name(url))
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def _execute(self, statement: sql.Composable) -> None:
        with contextlib.closing(psycopg2.connect(self.admin_url, connect_timeout=5)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)


class PostgresServer:
    """A PostgreSQL of the test run's own, which may be frozen, killed and started again.

    `settings` goes on top of SETTINGS, for example `{"max_connections": "8"}`.
    """

    def __init__(
        self,
        *,
        bin_folder: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = port or unused_port()
        self.databases = PostgresDatabases(
            f"postgresql://postgres@{self.host}:{self.port}/postgres"
        )
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        # In /tmp whatever TMPDIR says: the path of the server's Unix socket must stay short, and
        # another user must get through to it.
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/tmp"))
        self.data_folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=_data_place()))
        self._bin_folder = bin_folder
        self._settings = {**SETTINGS, "unix_socket_directories": str(self.folder)}
        self._settings.update(settings or {})
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        assert self._child is not None, "the server was never started"
        return self._child

    def url(self, database: str) -> str:
        return self.databases.url(database)

    def create_database(self, *, template: str | None = None) -> str:
        return self.databases.create_database(template=template)

    def start(self) -> None:
        """Starts the server, with what it held before, and waits until it takes connections."""
        if not (self.data_folder / "PG_VERSION").exists():
            self._initialise()
        options = [
            word for key, value in self._settings.items() for word in ("-c", f"{key}={value}")
        ]
        assert self._bin_folder is not None
        self._child = Child(
            [
                self._bin_folder / "postgres",
                "-D",
                self.data_folder,
                "-p",
                str(self.port),
                *options,
            ],
            name="postgres",
            folder=self.folder,
            environment=SYSTEM_ENVIRONMENT,
            working_folder=Path("/"),
            account=self._account,
        )
        wait_until(
            self._is_ready,
            timeout_seconds=START_SECONDS,
            describe=lambda: f"PostgreSQL to answer\n{self.child.log_tail()}",
        )

    def pause(self) -> None:
        self.child.pause()

    def resume(self) -> None:
        self.child.resume()

    def kill(self) -> None:
        self.child.kill()

    def restart(self) -> None:
        """Starts the server again, ending it first where it runs."""
        self._end()
        self.start()

    def stop(self) -> None:
        """Ends the server and removes all that it held."""
        try:
            self._end()
        finally:
            shutil.rmtree(self.data_folder)
            shutil.rmtree(self.folder)

    def _end(self) -> None:
        if self._child is not None:
            self._child.stop(number=signal.SIGINT, timeout_seconds=STOP_SECONDS)

    def _initialise(self) -> None:
        give(self.data_folder, self._account)
        give(self.folder, self._account)
        bin_folder = self._bin_folder or find_bin_folder(self._account)
        if not is_runnable(bin_folder, self._account):
            bin_folder = copy_wheel(bin_folder, self.folder / "binaries", self._account)
        self._bin_folder = bin_folder
        options = ["-A", "trust", "--locale=C", "-E", "UTF8", "-N", "-U", "postgres"]
        done = run_binary(
            [str(bin_folder / "initdb"), *options, "-D", str(self.data_folder)], self._account
        )
        assert done.returncode == 0, f"initdb failed:\n{done.stdout}"

    def _is_ready(self) -> bool:
        assert self.child.is_running, f"PostgreSQL ended at its start\n{self.child.log_tail()}"
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(self.databases.admin_url, connect_timeout=2).close()
            return True
        return False


def database_name(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _data_place() -> Path:
    is_usable = os.access(MEMORY_FOLDER, os.W_OK | os.X_OK)
    if is_usable and shutil.disk_usage(MEMORY_FOLDER).free >= MEMORY_FREE_BYTES:
        return MEMORY_FOLDER
    return Path("/tmp")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresDatabases]:
    """The shared server. Freeze or kill only one of `private_postgres`."""
    if url := os.environ.get(URL_VARIABLE):
        yield PostgresDatabases(url)
        return
    with contextlib.ExitStack() as stack:
        server = PostgresServer()
        stack.callback(server.stop)
        server.start()
        yield server.databases


@pytest.fixture
def private_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """A function that starts a server of the test's own; it takes `port` and `settings`."""
    with contextlib.ExitStack() as stack:

        def start(
            *, port: int | None = None, settings: Mapping[str, str] | None = None
        ) -> PostgresServer:
            server = PostgresServer(port=port, settings=settings)
            stack.callback(server.stop)
            server.start()
            return server

        yield start
