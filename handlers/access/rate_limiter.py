"""The rate limit: how many calls a key may make to one API, counted in Redis by all of its processes together."""

import math
import time
from collections.abc import Callable

from limits import RateLimitItemPerSecond
from limits.aio.strategies import RateLimiter

from handlers.access.callers import Caller
from handlers.problems import Problem
from workers.redis_breaker import RedisBreaker

# Seconds over which the rate is averaged: within them a key may spend all of its calls at once.
WINDOW = 10


class RateLimit:
    """Lets each key make `rate` calls a second to the API `name`. While Redis is away it lets everybody in.

    The limiter is meant to be that of fixed windows, which takes one command of Redis and one number for each key, and
    tells exactly when a key may call again. Around the border of two windows twice as many calls may come.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        name: str,
        *,
        rate: int,
        breaker: RedisBreaker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limiter = limiter
        self._name = name
        self._rate = rate
        self._clock = clock
        self._window = RateLimitItemPerSecond(rate * WINDOW, WINDOW, namespace="datahog-rate")
        self._breaker = breaker
        # Whoever calls on and on is refused without asking Redis each time.
        self._refused_until: dict[str, float] = {}

    async def count(self, caller: Caller) -> None:
        """Count one call. Raises Problem (429) when it is one too many."""
        if caller.unlimited:
            return
        key = (self._name, caller.key_id)
        if until := self._refused_until.get(caller.key_id):
            if (left := until - self._clock()) > 0:
                raise self._too_many(left)
            del self._refused_until[caller.key_id]
        allowed, left = True, 0.0
        with self._breaker.tolerated("no rate limit holds") as may_ask:
            if not may_ask:
                return
            allowed = await self._limiter.hit(self._window, *key)
            if not allowed:
                stats = await self._limiter.get_window_stats(self._window, *key)
                # Redis tells it in whole seconds, rounded.
                left = stats.reset_time - time.time() + 1
        if not allowed:
            self._refused_until[caller.key_id] = self._clock() + left
            raise self._too_many(left)

    def _too_many(self, seconds: float) -> Problem:
        wait = max(1, math.ceil(seconds))
        detail = (
            f"this API key may make {self._rate} calls a second, {self._rate * WINDOW} in {WINDOW} s; "
            f"wait {wait} s, then call more slowly"
        )
        return Problem("too-many-requests", detail, headers={"Retry-After": str(wait)})
