"""Waiting for events, but not longer than so many seconds."""

import asyncio


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for the event, but not longer."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Waits for any of the events; not longer than so many seconds, where any are given."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
