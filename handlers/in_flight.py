"""In-flight guard: a process stores one callback per request at a time, and makes the others wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from handlers.problems import Problem

# Seconds that a callback waits, and bytes of its result that add one second more. A sender waits 15 s for the response
# and one second more per MB; sending and storing take a part of that, so the wait here is shorter.
_SECONDS = 10.0
_BYTES_PER_SECOND = 2_000_000
# Bytes that the waiting results of one request may hold, besides two results of any size. Other requests need the rest
# of the memory.
_MOST_BYTES = 150_000_000
_RETRY_AFTER_SECONDS = 5


@dataclass
class _Guard:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    bytes: int = 0


class InFlight:
    """Guards the requests whose results are being stored, in one event loop. Waiting holds no thread.

    A result of many megabytes may be delivered again before it is stored. Without the guard each copy would repeat all
    of the work at the same time, and slow down all others.
    """

    def __init__(self) -> None:
        self._guards: dict[str, _Guard] = {}

    @asynccontextmanager
    async def alone(self, request_id: str, size: int) -> AsyncIterator[None]:
        """Holds the guard of a request while a result of `size` bytes is stored.

        Raises Problem (503) when others hold the guard for too long, or too many bytes wait for it.
        """
        guard = self._guards.setdefault(request_id, _Guard())
        if guard.users > 1 and guard.bytes + size > _MOST_BYTES:
            raise _busy(request_id)
        guard.users += 1
        guard.bytes += size
        try:
            async with _acquired(guard.lock, request_id, _SECONDS + size / _BYTES_PER_SECOND):
                yield
        finally:
            guard.users -= 1
            guard.bytes -= size
            if not guard.users:
                del self._guards[request_id]


@asynccontextmanager
async def _acquired(lock: asyncio.Lock, request_id: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            await lock.acquire()
    except TimeoutError:
        raise _busy(request_id) from None
    try:
        yield
    finally:
        lock.release()


def _busy(request_id: str) -> Problem:
    detail = f"another result of request {request_id} is still being stored; send this one again soon"
    return Problem("unavailable", detail, headers={"Retry-After": str(_RETRY_AFTER_SECONDS)})
