"""The state of the queue at one moment, and what of `docs/queue.md` does not hold in it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

# AllShards at once, so that nothing changes between two looks. KEYS walks through all keys: for tests only.
_SNAPSHOT = """
local found = {jobs = {}, queues = {}, scheduled = {}, leases = {}, executions = {}, permits = {}, waiting = {},
    concurrency = {}, held = redis.call('ZRANGE', 'datahog:held', 0, -1)}
local function all(pattern, take)
    local name = '^' .. string.gsub(pattern, '%*', '(.*)') .. '$'
    for _, key in ipairs(redis.call('KEYS', pattern)) do take(string.match(key, name), key) end
end
local function members(key) return redis.call('ZRANGE', key, 0, -1) end
all('rq:job:*', function(id, key)
    if redis.call('TYPE', key).ok ~= 'hash' then return end
    local job = redis.call('HMGET', key, 'status', 'origin', 'rate_limit_key', 'execution')
    found.jobs[id] = {status = job[1], origin = job[2], key = job[3], execution = job[4]}
end)
all('rq:queue:*', function(name, key) found.queues[name] = redis.call('LRANGE', key, 0, -1) end)
all('rq:scheduled:*', function(name, key) found.scheduled[name] = members(key) end)
all('rq:wip:*', function(name, key) found.leases[name] = members(key) end)
all('rq:executions:*', function(id, key) found.executions[id] = members(key) end)
all('rq:rl:*:allowed', function(name, key) found.permits[name] = members(key) end)
all('rq:rl:*:rate_limited', function(name, key) found.waiting[name] = members(key) end)
for _, name in ipairs(redis.call('SMEMBERS', 'rq:rl-keys')) do
    found.concurrency[name] = tonumber(redis.call('HGET', 'rq:rl:' .. name, 'concurrency') or 1)
end
return cjson.encode(found)
"""


@dataclass(frozen=True)
class QueueState:
    """The queue as one script has read it."""

    found: Any

    @classmethod
    def read(cls, connection: "redis.Redis") -> "QueueState":
        """The state now."""
        return cls(json.loads(connection.eval(_SNAPSHOT, 0)))

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Of each job its status, origin, key and execution; False for those that it lacks."""
        return dict(self.found["jobs"])

    def members(self, kind: str, name: str) -> set[str]:
        """What is in the list or set of a queue or key."""
        return set(self.found[kind].get(name) or ())

    def is_leased(self, job_id: str) -> bool:
        """Whether a worker holds the job, as one that started it or as one from which it was taken."""
        holders = (lease.rpartition(":")[0] for leases in self.found["leases"].values() for lease in leases)
        return job_id in holders

    def violations(self, *, deleted_by_hand: bool = False) -> list[str]:
        """What does not hold, in words; empty when all does.

        Of jobs that were `deleted_by_hand` an entry may stay, which is passed over once it is due.
        """
        return [*self._jobs_out_of_place(deleted_by_hand), *self.wrong_permits()]

    def _jobs_out_of_place(self, deleted_by_hand: bool) -> Iterator[str]:
        for job_id, job in self.jobs.items():
            origin, key = job["origin"] or "", job["key"] or ""
            lease = f"{job_id}:{job['execution']}"
            there = {
                "scheduled": job_id in self.members("scheduled", origin),
                "rate_limited": job_id in self.members("waiting", key),
                "queued": job_id in self.members("queues", origin),
                "started": lease in self.members("leases", origin) or bool(self.found["executions"].get(job_id)),
            }
            status = job["status"]
            if not there.get(status, True):
                yield f"{job_id} is {status}, and is not there"
            for other in ("scheduled", "rate_limited"):
                if status != other and there[other] and not deleted_by_hand:
                    yield f"{job_id} is {status}, and is among the {other} as well"
            if status == "queued" and key and job_id not in self.members("permits", key):
                yield f"{job_id} is queued without a permit"

    def wrong_permits(self) -> Iterator[str]:
        """What does not hold of the permits."""
        for key, concurrency in self.found["concurrency"].items():
            permits = self.members("permits", key)
            for job_id in permits:
                job = self.jobs.get(job_id)
                entitled = job and job["key"] == key and job["status"] in ("queued", "started")
                if not entitled and not self.is_leased(job_id):
                    yield f"{job_id} holds a permit of {key}, and is {job and job['status']}"
            if len(permits) > concurrency:
                yield f"{key} has {len(permits)} permits out of {concurrency}"
            if self.members("waiting", key) and len(permits) < concurrency and key not in self.found["held"]:
                yield f"jobs wait for {key} although {concurrency - len(permits)} permits are free"
