"""What a worker does to RQ's keys: takes and ends jobs in batches, keeps their leases, takes back those of the dead."""

import json
import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import redis
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.job_lifecycle import record_job_failure
from rq.serializers import JSONSerializer

from workers.scripts import END, RECOVER, TAKE

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taken:
    """A job this worker holds; `member` is its entry in RQ's started registry."""

    job_id: str
    origin: str
    execution: str
    data: bytes

    @property
    def member(self) -> str:
        """As RQ writes it."""
        return f"{self.job_id}:{self.execution}"


@dataclass(frozen=True)
class Ended:
    """A job that has run: gone, to come again after `wait` seconds, or failed for good with an `error`."""

    job: Taken
    wait: float | None = None
    error: str | None = None


class Batches:
    """The jobs of some queues, for one worker. `lease` is the seconds a job stays with a worker that is silent.

    Every method raises redis.RedisError; each may be repeated then.
    """

    def __init__(self, connection: "redis.Redis", queues: Sequence[str], *, worker: str, lease: float) -> None:
        self._connection = connection
        self._queues = queues
        self._worker = worker
        self._lease = lease
        self._take = connection.register_script(TAKE)
        self._end = connection.register_script(END)
        self._recover = connection.register_script(RECOVER)

    def take(self, wanted: int) -> list[Taken]:
        """At most `wanted` jobs that are due, from the queues in their order."""
        now = time.time()
        execution = uuid.uuid4().hex
        arguments: list[str | float] = [wanted, now, now + self._lease, execution, self._worker, *self._queues]
        rows = self._take(keys=[], args=arguments)
        return [Taken(job_id.decode(), origin.decode(), execution, data) for job_id, origin, data in rows]

    def end(self, batch: Sequence[Ended]) -> None:
        """Write down that jobs have run."""
        now = time.time()
        rows = [
            (e.job.origin, e.job.job_id, e.job.execution, "" if e.wait is None else str(now + e.wait))
            for e in batch
            if e.error is None
        ]
        if rows:
            self._end(keys=[], args=[self._worker, json.dumps(rows)])
        for ended in batch:
            if ended.error is not None:
                self._fail(ended.job, ended.error)

    def renew(self, jobs: Iterable[Taken]) -> None:
        """Begin the leases of these jobs anew."""
        lease_ends = time.time() + self._lease
        with self._connection.pipeline(transaction=False) as pipeline:
            for job in jobs:
                pipeline.zadd(_started(job.origin), {job.member: lease_ends}, xx=True)
            pipeline.execute()

    def recover(self) -> int:
        """Put the jobs whose leases have ended back on their queues, and return how many they were."""
        recovered: int = self._recover(keys=[], args=[time.time(), *self._queues])
        return recovered

    def _fail(self, job: Taken, error: str) -> None:
        """Move a poisoned job to RQ's FailedJobRegistry, with the reason."""
        if self._connection.zscore(_started(job.origin), job.member) is None:
            return
        with self._connection.pipeline() as pipeline:
            pipeline.zrem(_started(job.origin), job.member)
            try:
                rq_job = RQJob.fetch(job.job_id, connection=self._connection, serializer=JSONSerializer)
                record_job_failure(rq_job, error, pipeline)
                pipeline.hincrby(f"rq:worker:{self._worker}", "failed_job_count", 1)
            except (NoSuchJobError, ValueError) as unreadable:
                log.error("%s: is gone or broken, no failure is kept: %s", job.job_id, unreadable)
            pipeline.execute()


def _started(queue: str) -> str:
    return f"rq:wip:{queue}"
