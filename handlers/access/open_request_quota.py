"""Quota of open requests per tenant, counted in Redis and corrected from DynamoDB."""

import math
import time
from collections.abc import Callable, Sequence

import redis

from handlers.access.callers import Caller
from handlers.problems import Problem
from workers.redis_breaker import RedisBreaker

# Requests per lookup: the most that one BatchGetItem reads.
_BATCH_SIZE = 100
# Lookups for one call: they bound the time for which a caller waits.
_MOST_BATCHES = 5
# Requests of one tenant that are looked up per second, however often the tenant calls.
_LOOKUPS_PER_SECOND = 2000
# Seconds after which a tenant's set expires: longer than any deadline, so no request of the tenant is open by then.
_EXPIRY_SECONDS = 31 * 86_400
_CONSEQUENCE = "no quota of open requests holds"

# KEYS: the tenant's requests (sorted set: id, time of its next lookup in seconds since 1970)
# ARGV: id, quota, now, time of the next lookup, ids to return at most, seconds until the set expires
# Returns nil when the request is counted, else the ids to look up. Their next lookup is set, so that no other caller
# looks them up at the same time.
_COUNT = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return nil end
if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
    redis.call('EXPIRE', KEYS[1], ARGV[6])
    return nil
end
local ids = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[3], 'BYSCORE', 'LIMIT', 0, ARGV[5])
-- A time too far in the future was written before the clock was set back.
if #ids == 0 then ids = redis.call('ZRANGE', KEYS[1], ARGV[4] + 60, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[5]) end
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], ARGV[4], id) end
return ids
"""

StillOpen = Callable[[str, Sequence[str]], set[str]]


class OpenRequests:
    """Lets each tenant have `quota` requests open at the API `name`. Enforces no quota while Redis is away.

    A request is counted before it is written. When a tenant's quota is full, `still_open` looks up the requests that
    were counted longest ago, up to 100 at a time, and the ended ones are removed. So code that ends a request does not
    update the quota, a killed process leaves no lasting wrong count, and each request is read about once.

    `still_open` takes a tenant and request ids, and returns the ids of those that are open. `clock` is in seconds since
    1970.
    """

    def __init__(
        self,
        connection: "redis.Redis",
        still_open: StillOpen,
        name: str,
        *,
        quota: int,
        breaker: RedisBreaker,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._still_open = still_open
        self._name = name
        self._quota = quota
        self._clock = clock
        self._count = connection.register_script(_COUNT)
        # In seconds. Longer than a write takes, so that a request that is counted and not written yet is not removed.
        self._pause = max(1.0, quota / _LOOKUPS_PER_SECOND)
        self._breaker = breaker

    def count(self, caller: Caller, request_id: str) -> None:
        """Counts a request before it is opened. Counting the same request again changes nothing.

        Raises Problem (429) when the tenant's quota is full, and `persistence.errors.Unavailable`.
        """
        if caller.unlimited:
            return
        for _ in range(_MOST_BATCHES):
            candidates = self._counted(caller.tenant, request_id)
            if candidates is None:
                return
            if not candidates:
                break
            self._forget(caller.tenant, set(candidates) - self._still_open(caller.tenant, candidates))
        raise self._too_many()

    def _counted(self, tenant: str, request_id: str) -> list[str] | None:
        """Returns None when the request is counted, else the ids of requests that may have ended."""
        now = self._clock()
        found: list[bytes] | None = None
        with self._breaker.tolerated(_CONSEQUENCE) as may_ask:
            if not may_ask:
                return None
            next_lookup = now + self._pause
            arguments: list[str | float] = [request_id, self._quota, now, next_lookup, _BATCH_SIZE, _EXPIRY_SECONDS]
            found = self._count(keys=[self._key(tenant)], args=arguments)
        return None if found is None else [member.decode() for member in found]

    def _forget(self, tenant: str, request_ids: set[str]) -> None:
        if not request_ids:
            return
        with self._breaker.tolerated(_CONSEQUENCE) as may_ask:
            if may_ask:
                self._connection.zrem(self._key(tenant), *request_ids)

    def _key(self, tenant: str) -> str:
        return f"datahog:open:{self._name}:{tenant}"

    def _too_many(self) -> Problem:
        wait = math.ceil(self._pause)
        detail = (
            f"{self._quota} requests are open, and no more may be at once; wait for some to end, or cancel some: "
            f"what has ended by then makes room within {wait} s"
        )
        return Problem("too-many-open-requests", detail, headers={"Retry-After": str(wait)})
