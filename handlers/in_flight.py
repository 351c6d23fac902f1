"""In-flight guard: of the callbacks of one request a process takes one at a time, and has the others wait for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from handlers.problems import Problem

# A sender waits 15 s for the response, and a second more for each MB. Sending and storing take some of that, so that
# this is less.
_SECONDS = 10.0
_BYTES_A_SECOND = 2_000_000
# Bytes that one request may hold here, besides two results of any size: their memory is lacking to other requests.
_HELD = 150_000_000
# Seconds after which to come again.
_COME_AGAIN = 5


@dataclass
class _Guard:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    bytes: int = 0


class InFlight:
    """The requests whose results are being stored; for one event loop. Waiting holds no thread.

    A result of many megabytes may be delivered again before it is stored. Each copy would do all of the work again at
    the same time, and make every one of them later.
    """

    def __init__(self) -> None:
        self._guards: dict[str, _Guard] = {}

    @asynccontextmanager
    async def alone(self, request_id: str, size: int) -> AsyncIterator[None]:
        """Around the storing of a result of so many bytes: nobody else stores one of the same request meanwhile.

        Raises Problem (503) when others do so for too long, or too much waits for them already.
        """
        guard = self._guards.setdefault(request_id, _Guard())
        if guard.users > 1 and guard.bytes + size > _HELD:
            raise _busy(request_id)
        guard.users += 1
        guard.bytes += size
        try:
            async with _acquired(guard.lock, request_id, _SECONDS + size / _BYTES_A_SECOND):
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
    detail = f"a result of {request_id} is still being written down; send it again soon"
    return Problem("unavailable", detail, headers={"Retry-After": str(_COME_AGAIN)})
