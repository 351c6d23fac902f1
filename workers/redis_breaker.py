"""The fail-open circuit breaker of Redis: one for a process. While it is open, callers go on without Redis at once."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis

log = logging.getLogger(__name__)

# Seconds. While the breaker is open, one call in so many probes; on a server that hangs it waits for two of them.
PAUSE = 5.0
# Seconds. A call has waited for so long without a response to any: the server may hang, and no other call joins it.
SUSPICIOUS = 1.0


class RedisBreaker:
    """Knows whether Redis answers, by the calls of a whole process. Safe for many threads.

    It opens when a call gets no response, and closes when one does: a response that refuses something is one, too.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._probe_at: float | None = None
        """When the next call may probe; None while the breaker is closed."""
        self._under_way: dict[object, float] = {}
        """When each call that has no response yet began, the oldest first."""
        self._answered_at = float("-inf")
        self._told: set[str] = set()

    @contextmanager
    def tolerated(self, consequence: str) -> Iterator[bool]:
        """Around a call of Redis that can be done without: yields whether to make it, and goes on if it fails.

        `consequence` is what comes of it when it is not made, for the log, which says so once.
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

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Around calls of Redis that are made even while the breaker is open: they close it as soon as Redis answers.

        Raises what they do.
        """
        call = object()
        with self._lock:
            self._under_way[call] = self._clock()
        with self._observed(call):
            yield

    def _admitted(self) -> object | None:
        """A call that may be made, now under way; None if it may not."""
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
        """Learn from the end of a call that is under way."""
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError):
            self._end(call, open_=True)
            raise
        except redis.RedisError:
            self._end(call, open_=False)
            raise
        except BaseException:
            # Given up by its caller: nothing is known.
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
        if consequence not in self._told:
            self._told.add(consequence)
            log.warning("Redis is away, so %s: %s", consequence, reason)
