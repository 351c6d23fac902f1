"""Long-polling: look again and again, without holding a thread, until there is an end or the time is up."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

# Seconds between two looks: soon at first, for what ends at once, then at leisure.
_FIRST, _LATER, _GROWTH = 0.05, 1.0, 1.5

Record = TypeVar("Record")


class LongPolls:
    """The reads of one process that wait for an end."""

    def __init__(self) -> None:
        self._ending = False

    def end(self) -> None:
        """Answer all that wait with what there is, soon: the process is to stop. May be called by a signal handler."""
        self._ending = True

    async def wait_until(self, read: Callable[[], Record], ended: Callable[[Record], bool], seconds: float) -> Record:
        """What `read` returns once `ended` says yes, or else after so many seconds."""
        deadline = time.monotonic() + seconds
        pause = _FIRST
        while True:
            record = await run_in_threadpool(read)
            left = deadline - time.monotonic()
            if ended(record) or left <= 0 or self._ending:
                return record
            await asyncio.sleep(min(pause, left))
            pause = min(pause * _GROWTH, _LATER)
