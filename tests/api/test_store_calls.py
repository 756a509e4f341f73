"""Store calls of operators: late ones are answered, and do not pile up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from api.store_calls import MAX_CALLS, call_store
from shared.errors import SnapshotDamaged, StoreUnavailable


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What keeps a store call from ending."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_call_gives_what_the_store_gives() -> None:
    assert await call_store(lambda: 7) == 7

    def damaged() -> None:
        raise SnapshotDamaged("a part differs")

    with pytest.raises(SnapshotDamaged):
        await call_store(damaged)


async def test_a_late_call_is_answered_and_few_are_left_behind(gate: threading.Event) -> None:
    begun = []

    def hang() -> None:
        begun.append(1)
        gate.wait()

    late = [call_store(hang, deadline_seconds=0.05) for _ in range(MAX_CALLS + 5)]
    outcomes = await asyncio.gather(*late, return_exceptions=True)

    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    assert len(begun) == MAX_CALLS
    with pytest.raises(StoreUnavailable, match="busy"):
        await call_store(lambda: 7)

    gate.set()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await call_store(lambda: 7) == 7
                break
            except StoreUnavailable:
                await asyncio.sleep(0.01)
