"""The queue: which RQ jobs stand for which steps, put there in one round trip. It is a hint; DynamoDB is the truth."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import redis
import rq
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from persistence.records import Job, Request
from persistence.retrieval_record import Retrieval
from persistence.times import from_text

log = logging.getLogger(__name__)

# In the order in which a worker takes from them: what ends a request comes before what begins one.
QUEUES = ("datahog-deliver", "datahog-submit", "datahog-fetch")
_DELIVER, _SUBMIT, _FETCH = QUEUES

# RQ's own limit for a job under its stock worker, seconds: no provider's total timeout can be longer than an hour.
_JOB_TIMEOUT = 4000
_WAITING = frozenset({b"queued", b"scheduled", b"started"})


@dataclass(frozen=True)
class Step:
    """One step that is due at a moment (None: now). Its id names the very attempt, so that putting it twice is once."""

    queue: str
    function: str
    args: tuple[str, ...]
    job_id: str
    at: datetime | None


def fetch_step(request: Request, job: Job, *, attempts: int | None = None, at: datetime | None = None) -> Step:
    """The next attempt to fetch from a provider, after `attempts` made so far (as the record says, if not given)."""
    made = job.attempts if attempts is None else attempts
    job_id = f"fetch-{request.request_id}-{job.provider}-{request.revision}-{made}"
    return Step(_FETCH, "fetch", (request.request_id, job.provider), job_id, at)


def fetch_steps(request: Request) -> list[Step]:
    """The next attempt of each job that has not ended, at its time."""
    jobs = [job for job in request.jobs if job.ended_at is None]
    return [fetch_step(request, job, at=_moment(job.next_attempt_at)) for job in jobs]


def deliver_step(request: Request, *, attempts: int | None = None, at: datetime | None = None) -> Step:
    """The next attempt to deliver a result, after `attempts` made so far in this round."""
    delivery = request.delivery
    made = delivery.attempts if attempts is None else attempts
    job_id = f"deliver-{request.request_id}-{delivery.round}-{made}"
    return Step(_DELIVER, "deliver", (request.request_id,), job_id, at or _moment(delivery.next_attempt_at))


def submit_step(retrieval: Retrieval) -> Step:
    """The next attempt to bring the aggregator in line with what the client wrote down."""
    wish = "cancel" if retrieval.cancel_requested_at else "submit"
    job_id = f"{wish}-{retrieval.request_id}-{retrieval.submission.attempts}"
    return Step(_SUBMIT, "submit", (retrieval.request_id,), job_id, _moment(retrieval.submission.next_attempt_at))


class Queue:
    """Puts steps on RQ's queues. `functions` is the module in which RQ finds a step's function by name.

    `wake` is called after each put, so that a worker in the same process looks at once.
    """

    def __init__(self, connection: "redis.Redis", functions: str) -> None:
        self._connection = connection
        self._functions = functions
        self._queues = {
            name: rq.Queue(name, connection=connection, serializer=JSONSerializer, default_timeout=_JOB_TIMEOUT)
            for name in QUEUES
        }
        self.wake: Callable[[], None] = lambda: None

    def put(self, *steps: Step) -> None:
        """Put the steps on the queue, at their times. Without Redis they are left to the reconciler."""
        try:
            self._put(steps)
        except redis.RedisError as error:
            log.warning("queue away, %d steps left to the reconciler: %s", len(steps), error)

    def put_missing(self, steps: Iterable[Step]) -> int:
        """Put those of the steps that are not on the queue, waiting or running, and return how many they were.

        Raises redis.RedisError.
        """
        candidates = list(steps)
        pipeline = self._connection.pipeline(transaction=False)
        for step in candidates:
            pipeline.hget(RQJob.key_for(step.job_id), "status")
        statuses = pipeline.execute()
        missing = [step for step, status in zip(candidates, statuses, strict=True) if status not in _WAITING]
        self._put(missing)
        return len(missing)

    def _put(self, steps: Sequence[Step]) -> None:
        if not steps:
            return
        pipeline = self._connection.pipeline()
        for step in steps:
            queue = self._queues[step.queue]
            function = f"{self._functions}.{step.function}"
            job = queue.create_job(function, args=step.args, job_id=step.job_id, description=step.job_id, result_ttl=0)
            if step.at is None:
                queue.enqueue_job(job, pipeline=pipeline)
            else:
                queue.schedule_job(job, step.at, pipeline=pipeline)
                # RQ cuts the time to whole seconds; a job must not come early.
                registry = queue.scheduled_job_registry.key
                pipeline.zadd(registry, {step.job_id: step.at.timestamp()})
        pipeline.execute()
        self.wake()


def _moment(text: str | None) -> datetime | None:
    return from_text(text) if text else None
