"""The queue through Redis: wakes an arq worker, for a job or for changes that lists have to follow.

arq's keys all begin with `arq:`, fixed; here they get the namespace in front, as in
`shop:arq:queue`. A message is JSON, never a pickle, and what is read from Redis is taken only in
exactly the form that `ArqQueue` writes.
"""

import asyncio
import json
import re
from collections.abc import Coroutine
from typing import Any

from arq import ArqRedis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from shared.errors import QueueUnavailable
from shared.jobs.job import Job
from shared.settings import Settings

QUEUE = "arq:queue"
FUNCTION = "precompute"
REFRESH = "refresh_users"
ANSWER_SECONDS = 1.0
CONNECTIONS = 4
MESSAGE_ID = re.compile(rb"[0-9a-f]{32}:[0-9]{1,6}|refresh_users")

_OUR_KEYS = "arq:"
_MANY_KEYS = frozenset({"DEL", "EXISTS", "UNLINK", "WATCH"})
_JOB_ID = re.compile(r"[0-9a-f]{32}")
_MESSAGE_FIELDS = {"t", "f", "a", "k", "et"}


class ArqQueue:
    """A `JobQueue`. Every call answers, or raises QueueUnavailable, within ANSWER_SECONDS."""

    def __init__(self, settings: Settings) -> None:
        self._redis = arq_redis(settings, answer_seconds=ANSWER_SECONDS)

    async def check(self) -> None:
        await _answered(self._redis.execute_command("PING"))

    async def enqueue(self, job: Job) -> None:
        # arq refuses an id that it knows: the tries make a job that came back a new message.
        message_id = f"{job.id}:{job.tries}"
        await _answered(self._redis.enqueue_job(FUNCTION, job.id, _job_id=message_id))

    async def wake_refresh(self) -> None:
        # Always the same id: while the message waits, or is being heard, arq takes no second one.
        await _answered(self._redis.enqueue_job(REFRESH, _job_id=REFRESH))

    async def close(self) -> None:
        await self._redis.aclose(close_connection_pool=True)


class NamespacedRedis(ArqRedis):
    """arq's client with the namespace in front of arq's keys."""

    def __init__(self, pool: BlockingConnectionPool, *, namespace: str) -> None:
        super().__init__(
            pool,
            job_serializer=encode_message,
            job_deserializer=decode_message,
            default_queue_name=QUEUE,
        )
        self._namespace = namespace

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        words = _with_namespace(self._namespace, args)
        return await super().execute_command(*words, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _NamespacedPipeline(self, transaction, shard_hint, namespace=self._namespace)


class _NamespacedPipeline(Pipeline):
    def __init__(
        self, redis: ArqRedis, transaction: bool, shard_hint: str | None, *, namespace: str
    ) -> None:
        super().__init__(redis.connection_pool, redis.response_callbacks, transaction, shard_hint)
        self._namespace = namespace

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return super().execute_command(*_with_namespace(self._namespace, args), **options)


def arq_redis(settings: Settings, *, answer_seconds: float) -> NamespacedRedis:
    """A client whose every step ends within `answer_seconds`. Connects at its first command."""
    assert settings.redis_url is not None, "a queue through Redis has an address"
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=CONNECTIONS,
        timeout=answer_seconds,
        socket_timeout=answer_seconds,
        socket_connect_timeout=answer_seconds,
    )
    return NamespacedRedis(pool, namespace=settings.namespace)


def encode_message(message: dict[str, Any]) -> bytes:
    # What cannot be written, such as the error of a message arq gave up on, is never read again.
    return json.dumps(message, default=repr, separators=(",", ":")).encode()


def decode_message(data: bytes) -> dict[str, Any]:
    """Raises ValueError for anything but a message of `ArqQueue`."""
    message = json.loads(data)
    if (
        not isinstance(message, dict)
        or set(message) != _MESSAGE_FIELDS
        or message["t"] is not None
        or message["k"] != {}
        or type(message["et"]) is not int
        or not _is_call(message["f"], message["a"])
    ):
        raise ValueError("not a message of this queue")
    return message


def _is_call(function: object, arguments: object) -> bool:
    if function == REFRESH:
        return arguments == []
    return (
        function == FUNCTION
        and isinstance(arguments, list)
        and len(arguments) == 1
        and isinstance(arguments[0], str)
        and _JOB_ID.fullmatch(arguments[0]) is not None
    )


async def _answered(call: Coroutine[Any, Any, Any]) -> None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await call
    except (RedisError, OSError, TimeoutError) as error:
        raise QueueUnavailable(f"the queue does not answer ({type(error).__name__})") from None


def _with_namespace(namespace: str, words: tuple[Any, ...]) -> tuple[Any, ...]:
    """The words of a command with its keys moved into the namespace; other words stay."""
    keys = len(words) if words[0] in _MANY_KEYS else 2
    return tuple(
        f"{namespace}:{word}"
        if 0 < place < keys and isinstance(word, str) and word.startswith(_OUR_KEYS)
        else word
        for place, word in enumerate(words)
    )
