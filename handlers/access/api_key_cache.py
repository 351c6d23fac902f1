"""Known keys: each is remembered for seconds, and what is looked up for strangers costs those who have one nothing."""

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from handlers.problems import Problem
from persistence.api_keys import ApiKey, ApiKeys

# Seconds that a key is taken for what it was when it was looked up: how long a revoked one may still work.
REMEMBERED = 5.0
# Ids that are looked up for the first time at once, those of them that nobody has in a second, and those remembered.
_AT_ONCE = 8
_GUESSES = 100
_MOST_GUESSES = 10_000


class KnownKeys:
    """The keys that there are, by their ids, as this process knows them."""

    def __init__(self, keys: ApiKeys, *, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock
        # With the time until which this is so. Nobody can add to these but who makes keys.
        self._known: dict[str, tuple[float, ApiKey]] = {}
        # Anybody can add to these.
        self._unknown: dict[str, float] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._second, self._guesses = clock(), 0

    async def find(self, key_id: str) -> ApiKey | None:
        """The key of that id, None when nobody has it.

        Raises Problem (429) for an id that may be a guess, when there were too many of them, and Unavailable.
        """
        if key_id in self._known:
            until, key = self._known[key_id]
            return key if self._clock() < until else await self._look_up(key_id)
        async with self._turns:
            # Others may have waited for the same one.
            if key_id in self._known:
                return self._known[key_id][1]
            if self._clock() < self._unknown.get(key_id, 0.0):
                return None
            self._check_guesses()
            found = await self._look_up(key_id)
            if found is None:
                self._guesses += 1
            return found

    async def _look_up(self, key_id: str) -> ApiKey | None:
        until = self._clock() + REMEMBERED
        key = await run_in_threadpool(self._keys.get, key_id)
        if key:
            self._known[key_id] = until, key
            return key
        self._known.pop(key_id, None)
        if len(self._unknown) >= _MOST_GUESSES:
            self._unknown.clear()
        self._unknown[key_id] = until
        return None

    def _check_guesses(self) -> None:
        if self._clock() - self._second >= 1:
            self._second, self._guesses = self._clock(), 0
        if self._guesses >= _GUESSES:
            detail = "too many API keys that nobody has are being tried, and this one was not used lately; wait 1 s"
            raise Problem("too-many-requests", detail, headers={"Retry-After": "1"})
