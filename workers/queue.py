"""The queue: turns steps into RQ jobs, and enqueues many in one round trip. It is a hint; DynamoDB is the truth."""

import json
import logging
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

import redis
from rq.utils import now, utcformat

from persistence.records.job import Attempt
from persistence.records.request import Request
from persistence.records.retrieval import NextStep, Retrieval
from persistence.records.timestamps import from_text
from providers.model import Provider
from workers.redis_breaker import RedisBreaker
from workers.rq_worker.scripts import DROP, PUT, SWEEP

log = logging.getLogger(__name__)

# In the order in which a worker claims from them: steps that end a request come before those that begin one.
QUEUES = ("datahog-deliver", "datahog-submit", "datahog-fetch")
_DELIVER, _SUBMIT, _FETCH = QUEUES

# Seconds: RQ's limit for a job. No provider's total timeout is longer than an hour.
_JOB_TIMEOUT = 4000
# Jobs that one script enqueues. Redis does nothing else meanwhile, so that many more would make other calls wait.
_BATCH = 500
# Steps that a process keeps while Redis is away; older ones are left to the reconciler.
_MOST_LEFT = 10_000


@dataclass(frozen=True)
class Step:
    """One step that is due at a time (None: now). Its id names the attempt: enqueueing it twice enqueues it once.

    The concurrency limit of `provider` applies to it; `description` is for people who look at the queue.
    """

    queue: str
    function: str
    args: tuple[str | float, ...]
    job_id: str
    at: datetime | None
    provider: str | None = None
    description: str = ""


def fetch_step(attempt: Attempt, known_at: datetime, at: datetime | None = None) -> Step:
    """The attempt to fetch from a provider; `known_at` is the time at which the record agreed with it."""
    args = (*astuple(attempt), known_at.timestamp())
    description = f"fetch {attempt.provider} for {attempt.request_id}, attempt {attempt.made + 1}"
    return Step(_FETCH, "fetch", args, fetch_job_id(attempt), at, attempt.provider, description)


def fetch_job_id(attempt: Attempt) -> str:
    """The id of the job that makes the attempt.

    RQ allows letters, digits, `_` and `-` in an id, and a request's id may contain them all. The request's id is
    therefore the only part that is not a number, so that two different attempts never have the same id.
    """
    return f"fetch-{attempt.request_id}-{attempt.index}-{attempt.revision}-{attempt.made}"


def fetch_steps(request: Request, known_at: datetime) -> list[Step]:
    """The next attempt of each job that has not ended, at its time."""
    jobs = [job for job in request.jobs if job.ended_at is None]
    return [fetch_step(request.attempt(job), known_at, _moment(job.next_attempt_at)) for job in jobs]


def needless_job_ids(request: Request) -> list[str]:
    """The ids of the jobs that may still be on the queue although the request was closed."""
    return [fetch_job_id(request.attempt(job)) for job in request.jobs if not job.result]


def deliver_step(
    request: Request, *, attempts: int | None = None, at: datetime | None = None, outcome: str | None = None
) -> Step:
    """The next attempt to deliver a result, after `attempts` made so far in this round.

    With an `outcome` (see `workers.delivery_outcome`) the attempt is made already, and the step only writes that.
    """
    delivery = request.delivery
    made = delivery.attempts if attempts is None else attempts
    job_id = f"deliver-{request.request_id}-{delivery.round}-{made}"
    args = (request.request_id, outcome) if outcome else (request.request_id,)
    return Step(_DELIVER, "deliver", args, job_id, at or _moment(delivery.next_attempt_at))


def submit_step(retrieval: Retrieval) -> Step:
    """The next attempt to submit a retrieval to the aggregator, to cancel it there, or to check it there."""
    kind = retrieval.next_step
    made = retrieval.checks if kind is NextStep.CHECK else retrieval.submission.attempts
    job_id = f"{kind}-{retrieval.request_id}-{made}"
    return Step(_SUBMIT, "submit", (retrieval.request_id,), job_id, _moment(retrieval.next_step_at))


class Queue:
    """Enqueues steps on RQ's queues. `functions` is the module in which RQ finds a step's function by name.

    `provider_of` returns the provider of a name, for its limits. `wake` is called after each put, so that a worker in
    the same process polls at once. `breaker` is the circuit breaker of the process. `docs/queue.md` states the
    invariants of the queue.
    """

    def __init__(
        self,
        connection: "redis.Redis",
        functions: str,
        provider_of: Callable[[str], Provider | None],
        breaker: RedisBreaker | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._connection = connection
        self._functions = functions
        self._provider_of = provider_of
        self._breaker = breaker or RedisBreaker()
        self._breaker.make_up = self._put_left
        self._left: deque[Step] = deque(maxlen=_MOST_LEFT)
        self._clock = clock
        self._put_script = connection.register_script(PUT)
        self._drop_script = connection.register_script(DROP)
        self._sweep_script = connection.register_script(SWEEP)
        self.wake: Callable[[], None] = lambda: None

    def put(self, *steps: Step) -> None:
        """Enqueue the steps, each at its time. Without Redis, they are left to the reconciler.

        A step that a worker runs is not touched, and runs once more after it has completed. This process keeps the
        newest of the steps that it could not enqueue, and enqueues them once Redis responds.
        """
        if steps and not self._tolerantly(steps, only_missing=False):
            self._left.extend(steps)

    def _put_left(self) -> None:
        left = [self._left.popleft() for _ in range(len(self._left))]
        if left and not self._tolerantly(left, only_missing=True):
            self._left.extend(left)

    def _tolerantly(self, steps: Sequence[Step], *, only_missing: bool) -> bool:
        """Enqueue the steps if Redis responds; returns whether it has."""
        done = False
        with self._breaker.tolerated("steps are left to the reconciler") as may_ask:
            if may_ask:
                self._put(steps, only_missing=only_missing)
                done = True
        return done

    def put_missing(self, steps: Iterable[Step]) -> int:
        """Enqueue those steps that are neither waiting nor running; returns how many there were.

        One script checks and enqueues, so that any number of processes may do this at once. Raises redis.RedisError.
        """
        with self._breaker.observed():
            return self._put(list(steps), only_missing=True)

    def sweep(self) -> int:
        """Repair all permits; returns how many permits it took back, plus how many jobs it put back.

        It takes permits from jobs without a right to them, which Datahog itself never leaves behind; deleting jobs in
        Redis by hand, or by RQ's tools, does.
        Raises redis.RedisError.
        """
        keys: Any = self._connection.smembers("rq:rl-keys")
        mended = 0
        for key in keys:
            taken, put_back = self._sweep_script(keys=[], args=[key, *QUEUES])
            if taken or put_back:
                log.warning("%s: %d permits taken back, %d jobs put back", key.decode(), taken, put_back)
            mended += taken + put_back
        return mended

    def drop(self, *job_ids: str) -> None:
        """Remove those jobs from the queue that no worker has claimed. Without Redis, they find nothing to do later."""
        if not job_ids:
            return
        with self._breaker.tolerated("needless jobs stay on the queue") as may_ask:
            if may_ask:
                self._drop_script(keys=[], args=job_ids)

    def _put(self, steps: Sequence[Step], *, only_missing: bool) -> int:
        put = 0
        for first in range(0, len(steps), _BATCH):
            put += self._put_batch(steps[first : first + _BATCH], only_missing)
        if put:
            self.wake()
        return put

    def _put_batch(self, steps: Sequence[Step], only_missing: bool) -> int:
        limits = {}
        arguments: list[str | float | bytes] = []
        for step in steps:
            provider = self._provider_of(step.provider) if step.provider else None
            if step.provider and provider:
                limits[step.provider] = _limits(provider)
            arguments += [
                step.queue,
                step.job_id,
                self._data(step),
                step.description or step.job_id,
                "" if step.at is None else step.at.timestamp(),
                step.provider if step.provider and provider else "",
            ]
        moment = self._clock()
        head = (moment, utcformat(now()), _JOB_TIMEOUT, int(only_missing), json.dumps(limits))
        put: int = self._put_script(keys=[], args=[*head, *arguments])
        return put

    def _data(self, step: Step) -> bytes:
        """RQ's job format: (function, instance, args, kwargs), serialized and compressed."""
        return zlib.compress(json.dumps([f"{self._functions}.{step.function}", None, step.args, {}]).encode(), 1)


def _limits(provider: Provider) -> tuple[int, dict[str, float]]:
    policy = {
        "failures": provider.breaker.failures,
        "openSeconds": provider.breaker.open_seconds,
        "probeSeconds": provider.connect_timeout + provider.total_timeout,
    }
    return provider.concurrency, policy


def _moment(text: str | None) -> datetime | None:
    return from_text(text) if text else None
