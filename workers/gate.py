"""The gate before each provider: its concurrency limit and its circuit breaker, shared by all workers over Redis."""

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from workers.providers import Provider

# Waiting jobs come back at random within this many seconds of the time they were told.
_SPREAD = 0.25

# KEYS: places (sorted set of token by the time its lease ends), breaker (hash)
# ARGV: now, places in all, end of the lease, token, failures that open the breaker
# Returns 0 to go on, or the seconds to wait, as text because Lua numbers come back cut to integers.
_ENTER = """
local now = tonumber(ARGV[1])
local breaker = redis.call('HMGET', KEYS[2], 'failures', 'openUntil', 'probeUntil')
local failures = tonumber(breaker[1] or 0)
local open_until, probe_until = tonumber(breaker[2] or 0), tonumber(breaker[3] or 0)
if open_until > now then return tostring(open_until - now) end
local half_open = failures >= tonumber(ARGV[5])
if half_open and probe_until > now then return '1' end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return '0.2' end
if half_open then redis.call('HSET', KEYS[2], 'probeUntil', ARGV[3]) end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[3]) - now) + 60)
return '0'
"""

# KEYS: as above. ARGV: token, 1 when the provider answered or 0, failures that open the breaker, open until
_LEAVE = """
redis.call('ZREM', KEYS[1], ARGV[1])
if ARGV[2] == '1' then return redis.call('DEL', KEYS[2]) end
if redis.call('HINCRBY', KEYS[2], 'failures', 1) >= tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[2], 'openUntil', ARGV[4])
    redis.call('HDEL', KEYS[2], 'probeUntil')
end
redis.call('EXPIRE', KEYS[2], 172800)
return 0
"""


class Closed(Exception):
    """The provider must not be asked now; `wait` is the seconds after which to come again."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"wait {wait:.1f} s")
        self.wait = wait


@dataclass
class Visit:
    """One attempt that has entered; set `answered` when the provider did its work."""

    answered: bool = False


class Gate:
    """Lets attempts through to providers. Without Redis it lets all through: a limit must not stop the work."""

    def __init__(
        self, connection: "redis.Redis", *, rng: random.Random, clock: Callable[[], float] = time.time
    ) -> None:
        self._enter = connection.register_script(_ENTER)
        self._leave = connection.register_script(_LEAVE)
        self._rng = rng
        self._clock = clock

    @contextmanager
    def visit(self, name: str, provider: Provider) -> Iterator[Visit]:
        """Hold a place with the provider for one attempt. Raises Closed.

        A place is leased for the attempt's longest time, so that a worker that dies gives its places back.
        """
        keys = [f"datahog:places:{name}", f"datahog:breaker:{name}"]
        token = uuid.uuid4().hex
        now = self._clock()
        lease_ends = now + provider.total_timeout + provider.connect_timeout + 5
        try:
            arguments: list[str | float] = [now, provider.concurrency, lease_ends, token, provider.breaker.failures]
            wait = float(self._enter(keys=keys, args=arguments))
        except redis.RedisError:
            wait = 0
        if wait > 0:
            raise Closed(wait + self._rng.uniform(0, max(_SPREAD, wait / 10)))
        visit = Visit()
        try:
            yield visit
        finally:
            open_until = self._clock() + provider.breaker.open_seconds
            try:
                outcome: list[str | float] = [token, int(visit.answered), provider.breaker.failures, open_until]
                self._leave(keys=keys, args=outcome)
            except redis.RedisError:
                pass
