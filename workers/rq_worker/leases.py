"""What a worker does to RQ's keys: takes and ends jobs in batches, keeps their leases, takes back those of the dead."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import redis
from rq.utils import now, utcformat

from workers.rq_worker.scripts import END, RECOVER, TAKE, WAIT_NO_MORE

# What END takes for a job that has only given its place back.
_GOES_ON = "goes on"
# RQ's own, for a job that names none that can be read, seconds.
_DEFAULT_TIMEOUT = 180.0


@dataclass(frozen=True)
class Taken:
    """A job this worker holds; `key` is that of its rate limit, if it has one, `timeout` is in seconds."""

    job_id: str
    origin: str
    execution: str
    data: bytes
    key: str
    timeout: float
    plain: bool
    """Whether nothing is left of it once it has run: no result, callback, dependent or repetition."""

    begun_before: bool
    """Whether a worker had it that did not end it."""

    @property
    def member(self) -> str:
        """Its entry in RQ's started registry."""
        return f"{self.job_id}:{self.execution}"

    @property
    def share(self) -> str:
        """Whose share of a worker it is in: that of its key, or of its queue."""
        return self.key or self.origin


@dataclass(frozen=True)
class Ended:
    """A job that has run: gone, or to come again after `wait` seconds, or written down by RQ's own code (`settled`).

    With `goes_on` it is still running, and gives its place back. `answered` is whether what its key names has answered;
    None when it was not asked.
    """

    job: Taken
    wait: float | None = None
    answered: bool | None = None
    settled: bool = False
    goes_on: bool = False


class Batches:
    """The jobs of some queues, for one worker. `lease` is the seconds a job stays with a worker that is silent.

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
        """At most `wanted` jobs that are due, and at most `most` of one share, or what `rooms` says for it.

        The jobs of the last queue that have no key are not bounded so: there is nobody behind them.
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
        """Write down that jobs have run."""
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
        """Whether the job is still this worker's."""
        return self._connection.zscore(_started(job.origin), job.member) is not None

    def renew(self, jobs: Iterable[Taken]) -> None:
        """Begin the leases of these jobs anew."""
        lease_ends = self._clock() + self._lease
        with self._connection.pipeline(transaction=False) as pipeline:
            for job in jobs:
                pipeline.zadd(_started(job.origin), {job.member: lease_ends}, xx=True)
            pipeline.execute()

    def recover(self) -> int:
        """Put the jobs whose leases have ended back on their queues, and return how many they were."""
        recovered: int = self._recover(keys=[], args=[self._clock(), *self._queues])
        return recovered

    def wait_no_more(self) -> None:
        """After the clock was set back: have all that waits be due, and no lease last longer than a new one."""
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
        # RQ's sign for no end is -1.
        seconds if seconds >= 0 else float("inf"),
        plain=plain == 1,
        begun_before=begun == 1,
    )


def _started(queue: str) -> str:
    return f"rq:wip:{queue}"
