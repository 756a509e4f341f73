"""Commands to Redis in bounded time, and what their failures mean to a snapshot store.

The connection address never enters a message, nor do the values of a refused command.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from redis import BlockingConnectionPool, Redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from shared.errors import StoreFull, StoreUnavailable

CONNECT_SECONDS = 1.0
READ_SECONDS = 1.0
WRITE_SECONDS = 5.0
MAX_CONNECTIONS = 8

Command = tuple[Any, ...]

_REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((TimeoutError,), "does not answer in time"),
    ((AuthenticationError, NoPermissionError), "refuses the user, the password or a command"),
    ((BusyLoadingError,), "is still loading its data"),
)


class Memory(NamedTuple):
    """In bytes; `limit` is 0 where there is none, or where the server tells nothing."""

    used: int
    limit: int
    policy: str
    """What a full server does; empty where it tells nothing."""


class RedisConnection:
    """Connects at the first command, and anew after every outage; nothing is tried twice."""

    def __init__(self, url: str) -> None:
        self._reading = _client(url, timeout_seconds=READ_SECONDS)
        self._writing = _client(url, timeout_seconds=WRITE_SECONDS)

    def read(self, *commands: Command) -> list[Any]:
        """One round trip. Raises StoreUnavailable within about two seconds."""
        return _execute(self._reading, commands)

    def write(self, *commands: Command) -> list[Any]:
        """One round trip with more patience. Raises StoreUnavailable, StoreFull."""
        return _execute(self._writing, commands)

    def memory(self) -> Memory:
        with suppress(StoreUnavailable):  # a host may forbid the question
            (answer,) = self.read(("INFO", "memory"))
            return Memory(
                used=int(answer.get("used_memory", 0)),
                limit=int(answer.get("maxmemory", 0)),
                policy=str(answer.get("maxmemory_policy", "")),
            )
        return Memory(used=0, limit=0, policy="")

    def close(self) -> None:
        self._reading.connection_pool.disconnect()
        self._writing.connection_pool.disconnect()


def _client(url: str, *, timeout_seconds: float) -> Redis:
    # The pool that blocks: the plain one raises when all connections are in use.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        lib_name=None,
        lib_version=None,
    )
    return Redis(connection_pool=pool)


def _execute(client: Redis, commands: Iterable[Command]) -> list[Any]:
    with _translated_errors():
        pipeline: Any = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        # By itself redis-py puts the refused command, values and all, into the error.
        results: list[Any] = pipeline.execute(raise_on_error=False)
        for result in results:
            if isinstance(result, Exception):
                raise result
    return results


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise _translation(error) from None


def _translation(error: Exception) -> Exception:
    # Inside a script's error the code stands somewhere in the text.
    if isinstance(error, OutOfMemoryError) or "OOM command" in str(error):
        return StoreFull("Redis is full")
    if isinstance(error, ReadOnlyError) or "READONLY" in str(error):
        return StoreUnavailable("Redis is a read-only replica")
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return StoreUnavailable(f"Redis {reason}")
    if isinstance(error, ResponseError):
        code = str(error).partition(" ")[0]
        return StoreUnavailable(f"Redis refuses a command ({code if code.isupper() else 'error'})")
    return StoreUnavailable("Redis cannot be reached")
