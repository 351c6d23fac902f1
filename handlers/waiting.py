"""Long-polling: look again and again, without holding a thread, until there is an end or the time is up."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

# Seconds between two looks: soon at first, for what ends at once, then at leisure.
_FIRST, _LATER, _GROWTH = 0.05, 1.0, 1.5

Record = TypeVar("Record")


async def wait_until(read: Callable[[], Record], ended: Callable[[Record], bool], seconds: float) -> Record:
    """What `read` returns once `ended` says yes, or else after so many seconds."""
    deadline = time.monotonic() + seconds
    pause = _FIRST
    while True:
        record = await run_in_threadpool(read)
        left = deadline - time.monotonic()
        if ended(record) or left <= 0:
            return record
        await asyncio.sleep(min(pause, left))
        pause = min(pause * _GROWTH, _LATER)
