"""Leases: claims and completes jobs in batches, renews their leases, and recovers the jobs of dead workers."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import redis
from rq.utils import now, utcformat

from workers.rq_worker.scripts import END, RECOVER, TAKE, WAIT_NO_MORE

# The argument of END for a job that still runs and only releases its permit.
_GOES_ON = "goes on"
# Seconds: RQ's default, for a job whose timeout cannot be read.
_DEFAULT_TIMEOUT = 180.0


@dataclass(frozen=True)
class Taken:
    """A job that this worker has claimed; `key` is that of its rate limit, or "", `timeout` is in seconds."""

    job_id: str
    origin: str
    execution: str
    data: bytes
    key: str
    timeout: float
    plain: bool
    """Whether nothing is left of the job once it has run: no result, callback, dependent or repetition."""

    begun_before: bool
    """Whether a worker has claimed the job before and not completed it."""

    @property
    def member(self) -> str:
        """The job's entry in RQ's started registry."""
        return f"{self.job_id}:{self.execution}"

    @property
    def share(self) -> str:
        """The job's fairness group: that of its key, or else that of its queue."""
        return self.key or self.origin


@dataclass(frozen=True)
class Ended:
    """A job that has run: it is gone, runs again after `wait` seconds, or was recorded by RQ's own code (`settled`).

    With `goes_on` the job is still running, and releases its permit. `answered` is whether the provider that its key
    names has responded; None when it was not called.
    """

    job: Taken
    wait: float | None = None
    answered: bool | None = None
    settled: bool = False
    goes_on: bool = False


class Batches:
    """The jobs of some queues, for one worker. `lease` is the seconds that a job stays with a silent worker.

    Every method raises redis.RedisError; each may be repeated then.
    """

    def __init__(
        self,
        connection: "redis.Redis",
        queues: Sequence[str],
        *,
        worker: str,
        lease: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._queues = queues
        self._worker = worker
        self._lease = lease
        self._take = connection.register_script(TAKE)
        self._end = connection.register_script(END)
        self._recover = connection.register_script(RECOVER)
        self._wait_no_more = connection.register_script(WAIT_NO_MORE)

    def take(self, wanted: int, *, most: int | None = None, rooms: Mapping[str, int] | None = None) -> list[Taken]:
        """Claim at most `wanted` jobs that are due, and of one fairness group at most `most`, or what `rooms` says.

        Jobs of the last queue without a key have no such limit: no queue waits behind them.
        """
        moment = self._clock()
        execution = uuid.uuid4().hex
        arguments: list[str | float] = [
            wanted,
            moment,
            utcformat(now()),
            moment + self._lease,
            execution,
            self._worker,
            wanted if most is None else most,
            json.dumps(rooms or {}),
            *self._queues,
        ]
        rows = self._take(keys=[], args=arguments)
        return [_taken(execution, *row) for row in rows]

    def end(self, batch: Sequence[Ended]) -> None:
        """Complete jobs that have run, or have them run again."""
        moment = self._clock()
        rows = [
            (
                ended.job.origin,
                ended.job.job_id,
                ended.job.execution,
                ended.job.key,
                _GOES_ON if ended.goes_on else "" if ended.wait is None else moment + ended.wait,
                "" if ended.answered is None else int(ended.answered),
            )
            for ended in batch
            if not ended.settled
        ]
        if rows:
            self._end(keys=[], args=[moment, self._worker, json.dumps(rows)])

    def holds(self, job: Taken) -> bool:
        """Whether this worker still holds the job."""
        return self._connection.zscore(_started(job.origin), job.member) is not None

    def renew(self, jobs: Iterable[Taken]) -> None:
        """Renew the leases of these jobs."""
        lease_ends = self._clock() + self._lease
        with self._connection.pipeline(transaction=False) as pipeline:
            for job in jobs:
                pipeline.zadd(_started(job.origin), {job.member: lease_ends}, xx=True)
            pipeline.execute()

    def recover(self) -> int:
        """Put the jobs whose leases have ended back on their queues; returns how many there were."""
        recovered: int = self._recover(keys=[], args=[self._clock(), *self._queues])
        return recovered

    def wait_no_more(self) -> None:
        """Make all waiting jobs due, and no lease longer than a new one, after the clock was set back."""
        moment = self._clock()
        self._wait_no_more(keys=[], args=[moment, moment + self._lease, *self._queues])


def _taken(
    execution: str, job_id: bytes, origin: bytes, data: bytes, key: bytes, timeout: bytes, plain: int, begun: int
) -> Taken:
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = _DEFAULT_TIMEOUT
    return Taken(
        job_id.decode(),
        origin.decode(),
        execution,
        data,
        key.decode(),
        # RQ writes -1 for a job without a timeout.
        seconds if seconds >= 0 else float("inf"),
        plain=plain == 1,
        begun_before=begun == 1,
    )


def _started(queue: str) -> str:
    return f"rq:wip:{queue}"
