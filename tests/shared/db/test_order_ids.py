"""Ids of orders: growing with time whatever the clock does, within what JavaScript holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from shared.db.order_ids import COUNTER_BITS, EPOCH, OrderIds

LAST_YEAR = datetime(2094, 1, 1, tzinfo=UTC).timestamp()


def ids_at(*seconds: float) -> list[int]:
    times: Iterator[float] = iter(seconds)
    ids = OrderIds(lambda: next(times))
    return [ids.next() for _ in seconds]


def test_they_grow_also_where_the_clock_stands_or_is_set_back() -> None:
    now = EPOCH.timestamp() + 1_000_000
    found = ids_at(*[now] * 10_000, now - 3600, now, now + 60, LAST_YEAR)
    assert found == sorted(set(found))
    assert found[-1] < 2**53


def test_an_id_tells_its_millisecond() -> None:
    now = EPOCH.timestamp() + 86_400
    (found,) = ids_at(now)
    assert found >> COUNTER_BITS == 86_400_000
    assert found > 10**11, "data sets count from one"


def test_replicas_seldom_begin_a_millisecond_alike() -> None:
    now = EPOCH.timestamp() + 86_400
    assert len({ids_at(now)[0] for _ in range(100)}) > 80
