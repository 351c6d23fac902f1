"""Outages of Redis: what only counts goes on without it, says so once, and asks again after a pause."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

log = logging.getLogger(__name__)

# Seconds. A server that hangs costs whoever asks it two of them, which must not be everybody.
PAUSE = 5.0


class Outage:
    """Whether Redis is away, for one purpose; `consequence` is what comes of it, for the log."""

    def __init__(self, consequence: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._consequence = consequence
        self._clock = clock
        self._lasts = False
        self._ask_after = 0.0

    def may_ask(self) -> bool:
        """Whether to ask Redis now; during an outage one caller may, once in a while."""
        now = self._clock()
        if self._lasts:
            if now < self._ask_after:
                return False
            self._ask_after = now + PAUSE
        return True

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        """Around what asks Redis: goes on behind it when there is no answer, with what was known before."""
        try:
            yield
        except redis.RedisError as error:
            if not self._lasts:
                log.warning("Redis is away, so %s: %s", self._consequence, error)
            self._lasts, self._ask_after = True, self._clock() + PAUSE
        else:
            if self._lasts:
                log.info("Redis is back: it is no longer so that %s", self._consequence)
            self._lasts = False
