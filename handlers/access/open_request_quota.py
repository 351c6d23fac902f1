"""Open requests: how many a tenant may have at once, counted in Redis and put right from DynamoDB."""

import math
import time
from collections.abc import Callable, Sequence

import redis

from handlers.access.callers import Caller
from handlers.problems import Problem
from workers.redis_breaker import RedisBreaker

# As many as one BatchGetItem takes, and as one caller has to wait for at most.
_LOOK_AT, _MOST_LOOKS = 100, 5
# How many requests of one tenant are looked at in a second at most, however often it calls.
_LOOKS_PER_SECOND = 2000
# No deadline is further away, days; a tenant that asks for nothing for so long has nothing open.
_FORGET_AFTER = 31 * 86_400
_CONSEQUENCE = "no quota of open requests holds"

# KEYS: the tenant's requests (sorted set of ids by the time from which on they may be looked at)
# ARGV: id, quota, now, time to look next, how many to look at, seconds to keep it all
# Returns nothing when the request is counted; else the ids to look at, which nobody else is told for a while.
_COUNT = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return nil end
if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[2]) then
    redis.call('ZADD', KEYS[1], ARGV[4], ARGV[1])
    redis.call('EXPIRE', KEYS[1], ARGV[6])
    return nil
end
local ids = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[3], 'BYSCORE', 'LIMIT', 0, ARGV[5])
-- Those that were to be looked at much later than is possible were counted before the clock was set back.
if #ids == 0 then ids = redis.call('ZRANGE', KEYS[1], ARGV[4] + 60, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[5]) end
for _, id in ipairs(ids) do redis.call('ZADD', KEYS[1], ARGV[4], id) end
return ids
"""

StillOpen = Callable[[str, Sequence[str]], set[str]]


class OpenRequests:
    """Lets each tenant have `quota` requests open at the API `name`. While Redis is away, it lets it have any number.

    A request is counted before it is written down, and stays so for as long as there is room. When there is none,
    those counted longest ago are looked up, up to 100 at a time (`still_open`), and the ended ones make room. So
    nothing that ends a request has to know of this, a process that dies leaves nothing behind that stays, and each
    request is read about once.
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
        # Longer than a write takes, so that what is counted and not there yet is not taken for gone.
        self._pause = max(1.0, quota / _LOOKS_PER_SECOND)
        self._breaker = breaker

    def count(self, caller: Caller, request_id: str) -> None:
        """Count a request that is to be opened, once.

        Raises Problem (429) when the tenant has too many open, and `persistence.errors.Unavailable`.
        """
        if caller.unlimited:
            return
        for _ in range(_MOST_LOOKS):
            candidates = self._counted(caller.tenant, request_id)
            if candidates is None:
                return
            if not candidates:
                break
            self._forget(caller.tenant, set(candidates) - self._still_open(caller.tenant, candidates))
        raise self._too_many()

    def _counted(self, tenant: str, request_id: str) -> list[str] | None:
        """None when the request is counted, else the requests that may have ended."""
        now = self._clock()
        found: list[bytes] | None = None
        with self._breaker.tolerated(_CONSEQUENCE) as may_ask:
            if not may_ask:
                return None
            arguments: list[str | float] = [request_id, self._quota, now, now + self._pause, _LOOK_AT, _FORGET_AFTER]
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
