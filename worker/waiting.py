"""Waiting for an event, but not longer than so many seconds."""

import asyncio


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for the event, but not longer."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
