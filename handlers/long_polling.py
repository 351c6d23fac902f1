"""Long polling: reads a record repeatedly, without holding a thread, until it has ended or the time is up."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

# Seconds between the first two reads, seconds between two reads at most, and the factor from each pause to the next.
_FIRST, _LATER, _GROWTH = 0.05, 1.0, 1.5

Record = TypeVar("Record")


class LongPolls:
    """The long polls of one process."""

    def __init__(self) -> None:
        self._ending = False

    def end(self) -> None:
        """Makes all waits return the current record at their next read. A signal handler may call it."""
        self._ending = True

    async def wait_until(self, read: Callable[[], Record], ended: Callable[[Record], bool], seconds: float) -> Record:
        """Returns the first record for which `ended` is true, or the current one after so many `seconds`."""
        deadline = time.monotonic() + seconds
        pause = _FIRST
        while True:
            record = await run_in_threadpool(read)
            left = deadline - time.monotonic()
            if ended(record) or left <= 0 or self._ending:
                return record
            await asyncio.sleep(min(pause, left))
            pause = min(pause * _GROWTH, _LATER)
