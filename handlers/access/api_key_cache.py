"""API key cache: keeps keys for seconds, and limits the lookups that guessed key ids can cause."""

import asyncio
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool

from handlers.problems import Problem
from persistence.api_keys import ApiKey, ApiKeys

# Seconds for which a lookup holds. A revoked key may work for this long.
REMEMBERED = 5.0
# Concurrent lookups of ids that are not in the cache.
_AT_ONCE = 8
# Lookups per second that may find no key.
_GUESSES = 100
# Ids without a key that the cache holds at most.
_MOST_GUESSES = 10_000


class KnownKeys:
    """Caches this process's lookups of API keys by id. `clock` is in seconds."""

    def __init__(self, keys: ApiKeys, *, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock
        # Each entry with its expiry. Only existing keys are added, so its size needs no limit.
        self._known: dict[str, tuple[float, ApiKey]] = {}
        # Expiry of ids without a key. Any caller can add to it, so its size is limited.
        self._unknown: dict[str, float] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._second, self._guesses = clock(), 0

    async def find(self, key_id: str) -> ApiKey | None:
        """Returns the key with that id, or None when there is none.

        Raises Problem (429) for an id that is not in the cache when too many lookups have found no key, and Unavailable
        when the database does not respond.
        """
        if key_id in self._known:
            until, key = self._known[key_id]
            return key if self._clock() < until else await self._look_up(key_id)
        async with self._turns:
            # Another task may have looked up the same id meanwhile.
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
            detail = "too many unknown API keys are being tried, and this key was not used recently; wait 1 s"
            raise Problem("too-many-requests", detail, headers={"Retry-After": "1"})
