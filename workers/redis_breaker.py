"""The fail-open circuit breaker for Redis, one in a process: while it is open, callers go on without Redis at once."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

log = logging.getLogger(__name__)

# Seconds between two probes while the breaker is open. A probe of a server that hangs blocks for its timeout of 2 s.
PAUSE = 5.0
# Seconds without a response to any call, after which the server may hang: no other call joins those that wait.
SUSPICIOUS = 1.0
# Seconds between two attempts to make up for skipped calls.
_MAKE_UP_PERIOD = 1.0


class RedisBreaker:
    """Knows from the calls of a whole process whether Redis responds. Safe for many threads.

    It opens when a call gets no response, and closes when a call gets one, even one that refuses something.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._probe_at: float | None = None
        """The time of the next probe; None while the breaker is closed."""
        self._under_way: dict[object, float] = {}
        """The start of each call that has no response yet, the oldest first."""
        self._answered_at = float("-inf")
        self._told: set[str] = set()
        self._skipped = False
        self._make_up_at = float("-inf")
        self.make_up: Callable[[], None] = lambda: None
        """Called, once a second at most, when Redis responds after a call was skipped or failed."""

    @contextmanager
    def tolerated(self, consequence: str) -> Iterator[bool]:
        """Guard a call of Redis that its caller can do without: yields whether to make it, and ignores its failure.

        `consequence` is the effect of a call that is not made; the log states it once.
        """
        call = self._admitted()
        if call is None:
            self._tell(consequence, "it has not answered of late")
            yield False
            return
        try:
            with self._observed(call):
                yield True
        except redis.RedisError as error:
            self._tell(consequence, error)
        else:
            if consequence in self._told:
                self._told.discard(consequence)
                log.info("Redis is back: it is no longer so that %s", consequence)
            self._make_up()

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Observe calls of Redis that are made even while the breaker is open: they close it as soon as Redis responds.

        Raises the errors of these calls.
        """
        call = object()
        with self._lock:
            self._under_way[call] = self._clock()
        with self._observed(call):
            yield
        self._make_up()

    def _make_up(self) -> None:
        if self._skipped and self._clock() >= self._make_up_at:
            self._skipped, self._make_up_at = False, self._clock() + _MAKE_UP_PERIOD
            self.make_up()

    def _admitted(self) -> object | None:
        """Register a call as under way, and return it; None if it may not be made."""
        now, call = self._clock(), object()
        with self._lock:
            if self._probe_at is not None:
                if now < self._probe_at:
                    return None
                self._probe_at = now + PAUSE
            elif now - max(next(iter(self._under_way.values()), now), self._answered_at) > SUSPICIOUS:
                return None
            self._under_way[call] = now
        return call

    @contextmanager
    def _observed(self, call: object) -> Iterator[None]:
        """Learn from the end of a registered call whether Redis responds."""
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError):
            self._end(call, open_=True)
            raise
        except redis.RedisError:
            self._end(call, open_=False)
            raise
        except BaseException:
            # The caller gave up, which says nothing about Redis.
            self._end(call, open_=None)
            raise
        self._end(call, open_=False)

    def _end(self, call: object, *, open_: bool | None) -> None:
        now = self._clock()
        with self._lock:
            del self._under_way[call]
            if open_:
                self._probe_at = now + PAUSE
            elif open_ is not None:
                self._probe_at, self._answered_at = None, now

    def _tell(self, consequence: str, reason: object) -> None:
        self._skipped = True
        if consequence not in self._told:
            self._told.add(consequence)
            log.warning("Redis is away, so %s: %s", consequence, reason)
