"""What every job queue keeps to, on each engine; and what the one through Redis adds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from shared.errors import QueueUnavailable
from shared.jobs.arq_queue import ANSWER_SECONDS, decode_message
from shared.jobs.job import Job
from shared.jobs.opening import open_queue
from shared.jobs.queue import JobQueue
from shared.settings import Settings, load_settings
from tests.services.redis import RedisServer

TOLERANCE_SECONDS = 3.0  # a busy machine


def a_job(number: int = 1, *, tries: int = 0) -> Job:
    return Job(
        id=f"{number:032x}",
        kind="precompute",
        state="queued",
        origin="http",
        progress=0,
        stage=None,
        stages=[],
        peak_rss_mb=None,
        error=None,
        snapshot_version=None,
        created_at=datetime.now(UTC),
        started_at=None,
        finished_at=None,
        tries=tries,
    )


def settings_for(folder: Path, redis_url: str = "", namespace: str = "shop") -> Settings:
    return load_settings(
        {
            "REDIS_URL": redis_url,
            "TASTEMATCH_NAMESPACE": namespace,
            "TASTEMATCH_DATA_DIR": str(folder),
        }
    )


@pytest.fixture(params=["embedded", "arq"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobQueue]:
    url = request.getfixturevalue("redis_url") if request.param == "arq" else ""
    queue = open_queue(settings_for(tmp_path, url))
    yield queue
    await queue.close()


# --- every engine -----------------------------------------------------------------------------


async def test_it_answers(queue: JobQueue) -> None:
    await queue.check()


async def test_waking_for_one_job_many_times_does_no_harm(queue: JobQueue) -> None:
    for _ in range(3):
        await queue.enqueue(a_job())


async def test_waking_for_changes_many_times_does_no_harm(queue: JobQueue) -> None:
    for _ in range(3):
        await queue.wake_refresh()


async def test_fifty_calls_at_once_all_answer(queue: JobQueue) -> None:
    await asyncio.gather(*(queue.enqueue(a_job(number % 5)) for number in range(50)))
    await asyncio.gather(*(queue.check() for _ in range(50)))


async def test_it_may_be_closed_twice(queue: JobQueue) -> None:
    await queue.check()
    await queue.close()
    await queue.close()


# --- through Redis ----------------------------------------------------------------------------


async def test_a_message_is_one_json_document_in_the_namespace(
    redis_url: str, tmp_path: Path
) -> None:
    queue = open_queue(settings_for(tmp_path, redis_url))
    await queue.enqueue(a_job())
    await queue.enqueue(a_job())
    await queue.close()

    with Redis.from_url(redis_url, decode_responses=True) as client:
        message_id = f"{a_job().id}:0"
        key = f"shop:arq:job:{message_id}"
        assert sorted(client.keys("*")) == sorted([key, "shop:arq:queue"])
        assert client.zrange("shop:arq:queue", 0, -1) == [message_id]
        message = json.loads(client.get(key))
    assert message["f"] == "precompute"
    assert message["a"] == [a_job().id]


async def test_a_job_that_came_back_is_a_new_message(redis_url: str, tmp_path: Path) -> None:
    queue = open_queue(settings_for(tmp_path, redis_url))
    await queue.enqueue(a_job(tries=0))
    await queue.enqueue(a_job(tries=1))
    await queue.close()

    with Redis.from_url(redis_url) as client:
        assert client.zcard("shop:arq:queue") == 2


async def test_many_wakes_for_changes_are_one_message(redis_url: str, tmp_path: Path) -> None:
    queue = open_queue(settings_for(tmp_path, redis_url))
    await asyncio.gather(*(queue.wake_refresh() for _ in range(20)))
    await queue.close()

    with Redis.from_url(redis_url) as client:
        (message_id,) = client.zrange("shop:arq:queue", 0, -1)
        message = decode_message(client.get(f"shop:arq:job:{message_id.decode()}"))
    assert (message["f"], message["a"]) == ("refresh_users", [])


async def test_two_shops_share_one_redis(redis_url: str, tmp_path: Path) -> None:
    for namespace in ("one", "two"):
        queue = open_queue(settings_for(tmp_path, redis_url, namespace))
        await queue.enqueue(a_job())
        await queue.close()

    with Redis.from_url(redis_url) as client:
        assert client.zcard("one:arq:queue") == client.zcard("two:arq:queue") == 1
        assert all(key.startswith((b"one:", b"two:")) for key in client.keys("*"))


async def test_a_redis_that_is_away_is_said_within_a_second_and_heals(
    private_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = private_redis()
    queue = open_queue(settings_for(tmp_path, server.url()))
    await queue.check()

    server.kill()
    assert await seconds_until_refused(queue.check()) < ANSWER_SECONDS + TOLERANCE_SECONDS
    assert await seconds_until_refused(queue.enqueue(a_job())) < ANSWER_SECONDS + TOLERANCE_SECONDS

    server.restart()
    await queue.check()
    await queue.enqueue(a_job())
    with server.client() as client:
        assert client.zcard("shop:arq:queue") == 1
    await queue.close()


async def test_a_frozen_redis_is_said_within_a_second_and_heals(
    private_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = private_redis()
    queue = open_queue(settings_for(tmp_path, server.url()))
    await queue.check()

    server.pause()
    started = time.monotonic()
    answers = await asyncio.gather(
        *(queue.enqueue(a_job(number)) for number in range(20)), return_exceptions=True
    )
    seconds = time.monotonic() - started
    server.resume()

    assert [type(answer) for answer in answers] == [QueueUnavailable] * 20
    assert seconds < ANSWER_SECONDS + TOLERANCE_SECONDS
    await queue.check()
    await queue.close()


async def test_a_redis_that_refuses_says_no_address_and_no_password(
    private_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = private_redis()
    server.set_config("requirepass", "right-horse")
    url = server.url().replace("redis://", "redis://:wrong-horse@")
    queue = open_queue(settings_for(tmp_path, url))
    with pytest.raises(QueueUnavailable) as refused:
        await queue.check()
    await queue.close()
    assert "horse" not in refused.value.message
    assert str(server.port) not in refused.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"t":null,"f":"precompute","a":["../../etc"],"k":{},"et":1}',
        b'{"t":null,"f":["precompute"],"a":["%s"],"k":{},"et":1}' % (b"0" * 32),
        b'{"t":null,"f":"other","a":["%s"],"k":{},"et":1}' % (b"0" * 32),
        b'{"t":9,"f":"precompute","a":["%s"],"k":{},"et":1}' % (b"0" * 32),
        b'{"t":null,"f":"precompute","a":["%s"],"k":{"x":1},"et":1}' % (b"0" * 32),
        b'{"t":null,"f":"precompute","a":["%s"],"k":{},"et":"now"}' % (b"0" * 32),
        b'{"t":null,"f":"precompute","a":[],"k":{},"et":1}',
        b'{"t":null,"f":"refresh_users","a":["%s"],"k":{},"et":1}' % (b"0" * 32),
    ],
)
def test_only_own_messages_are_read(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - arq catches any
        decode_message(data)


async def seconds_until_refused(call: object) -> float:
    started = time.monotonic()
    with pytest.raises(QueueUnavailable):
        await call  # type: ignore[misc]
    return time.monotonic() - started
