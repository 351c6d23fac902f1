"""The RQ worker: claims jobs in batches, runs many at once on threads and completes them, until it is told to stop."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import redis
from redis.client import PubSub, PubSubWorkerThread
from rq import Queue, worker_registration
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.utils import now
from rq.worker import WorkerStatus
from rq.worker.base import BaseWorker

from workers.redis_breaker import RedisBreaker
from workers.rq_worker.job_runner import Runner
from workers.rq_worker.leases import Batches
from workers.rq_worker.thread_pool import Pool

log = logging.getLogger(__name__)

# Seconds between two polls of an idle worker; a delayed job is late by no more than this.
IDLE_POLL = 0.02
# Seconds for each running job, and at most, that a busy worker waits for more jobs to end before it calls Redis. Fewer
# calls, with more in each, leave more time for jobs.
_GATHER, _GATHER_MOST = 0.000_1, 0.01
# Seconds of that wait when no thread is free.
_GATHER_FULL = 0.001
# Jobs that one call claims or completes.
_BATCH = 200
_BEATS_IN_A_LEASE = 5
# Seconds between two searches for jobs past their timeout.
_OVERDUE_PERIOD = 0.5
# Seconds until the next heartbeat after a full Redis refused one.
_FULL_PAUSE = 1.0
# Seconds. A clock that loses more between two heartbeats was set back; a gradual correction loses less.
_SET_BACK = 2.0


class ConcurrentWorker(BaseWorker):
    """Runs up to `concurrency` jobs at once. A job that returns `RunAgain` is run again.

    `grace` is the seconds that running jobs get to finish once the worker is told to stop; jobs that have not finished
    by then are put back on the queue. A job whose worker is silent for `lease` seconds goes to another worker.

    An RQ rate limit bounds how many of its jobs run over all workers. Each worker keeps a part of its slots for other
    fairness groups and for the queues behind. A job with a limit may return whether its provider responded: see
    `workers.rq_worker.scripts`.
    """

    # RQ's callbacks of jobs run on threads, which receive no signals.
    death_penalty_class = TimerDeathPenalty

    def __init__(
        self,
        queues: Sequence[str],
        connection: "redis.Redis",
        *,
        concurrency: int,
        grace: float,
        lease: float = 20,
        breaker: RedisBreaker | None = None,
    ) -> None:
        """Wait until Redis responds. `breaker` is the circuit breaker of the process."""
        self._stopping = False
        self._breaker = breaker or RedisBreaker()
        self._until_redis_answers(connection.ping)
        super().__init__(
            list(queues), connection=connection, serializer=JSONSerializer, worker_ttl=max(60, math.ceil(lease))
        )
        self.birth_date = self.last_heartbeat = now()
        self._grace = grace
        self._batches = Batches(connection, queues, worker=self.name, lease=lease)
        self._beat_period = lease / _BEATS_IN_A_LEASE
        self._beaten = -lease
        self._beat_due = 0.0
        self._wall_clock_ahead = _wall_clock_ahead()
        self._overdue_looked = 0.0
        self._wake = threading.Event()
        runner = Runner(self, self._batches, lambda: self._stopping)
        self._pool = Pool(concurrency, runner.run, runner.fail_overdue, self._wake, lambda: self._stopping)

    def wake(self) -> None:
        """Poll the queue now: there is something on it."""
        self._wake.set()

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or RQ's shutdown command; returns when each job is finished or put back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._until_redis_answers(self.subscribe)
        names = ", ".join(self.queue_names())
        log.info("worker %s: up to %d jobs at once from %s", self.name[:8], self._pool.size, names)
        while not self._stopping:
            try:
                with self._breaker.observed():
                    self._beat()
                    self._end_batch()
                    idle = self._take_batch()
                if idle:
                    self._rest()
            except redis.RedisError as error:
                log.warning("queue away: %s", error)
                time.sleep(1)
        self._finish()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # It does nothing else: the code that the signal interrupts may hold a lock, even that of the log.
        self._stopping = True

    def _until_redis_answers(self, call: Callable[[], object]) -> None:
        while not self._stopping:
            try:
                call()
                return
            except redis.RedisError as error:
                log.warning("queue away: %s", error)
                time.sleep(1)

    def _rest(self) -> None:
        if self._wake.wait(IDLE_POLL):
            executing = self._pool.executing
            if self._pool.free:
                time.sleep(min(_GATHER * executing, _GATHER_MOST))
            elif executing > self._pool.size // 2:
                # The next job to end makes room for another.
                time.sleep(_GATHER_FULL)
        self._wake.clear()

    # RQ's tools see and command this worker through these methods.

    def _sign_on(self) -> None:
        """Register the worker with all its fields: Redis may have lost them."""
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize() | {"state": WorkerStatus.BUSY.value})
            worker_registration.register(self, pipeline)
            self.heartbeat(pipeline=pipeline)
            pipeline.execute()

    def _set_connection(self, connection: "redis.Redis") -> "redis.Redis":
        """Return the connection as it is: RQ would set a long timeout for blocking reads, which are not used here."""
        return connection

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        """Keep listening: RQ would stop for ever when Redis hangs."""
        if not isinstance(exc, redis.RedisError):
            raise exc
        time.sleep(1)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Keep every reason: RQ would lose one that UTF-8 cannot encode."""
        sayable = exc_string.encode(errors="backslashreplace").decode()
        super().handle_job_failure(job, queue, started_job_registry, sayable, execution)

    # Each of these methods raises redis.RedisError.

    def _beat(self) -> None:
        """If it is time, write the heartbeat, renew this worker's leases, and recover the jobs of dead workers."""
        moment = time.monotonic()
        if moment - self._overdue_looked >= _OVERDUE_PERIOD:
            self._overdue_looked = moment
            self._pool.end_overdue()
        if moment < self._beat_due:
            return
        try:
            self._mind_the_clock()
            self._sign_on()
            self._batches.renew(self._pool.jobs)
        except redis.exceptions.OutOfMemoryError as error:
            # Claiming and completing jobs frees memory, and needs none.
            log.warning("Redis is full, jobs are only claimed and completed until there is room: %s", error)
            self._beat_due = moment + _FULL_PAUSE
            return
        # While Redis was away, the leases of live workers ended, too: they get a heartbeat's time to renew them.
        if moment - self._beaten < 2 * self._beat_period and (recovered := self._batches.recover()):
            log.warning("took back %d jobs of dead workers", recovered)
        self._beaten, self._beat_due = moment, moment + self._beat_period

    def _mind_the_clock(self) -> None:
        """Detect that the wall clock was set back: jobs on the queue would wait for so much longer."""
        ahead = _wall_clock_ahead()
        if ahead < self._wall_clock_ahead - _SET_BACK:
            log.warning("the clock was set back by %.0f s: all waiting jobs are due", self._wall_clock_ahead - ahead)
            self._batches.wait_no_more()
        self._wall_clock_ahead = ahead

    def _take_batch(self) -> bool:
        """Claim the jobs that can run; returns whether the worker can rest, as there are no more."""
        free = self._pool.free
        if free <= 0:
            return True
        wanted = min(free, _BATCH)
        shares = self._pool.shares
        taken = self._batches.take(wanted, most=shares.most(), rooms=shares.rooms())
        for job in taken:
            self._pool.submit(job)
        return len(taken) < wanted

    def _end_batch(self) -> None:
        batch = self._pool.ended(_BATCH)
        try:
            self._batches.end(batch)
        except redis.RedisError:
            # No end may be lost; to complete a job twice is harmless.
            self._pool.put_back(batch)
            raise
        self._pool.confirm(batch)

    def _finish(self) -> None:
        """Let running jobs finish within the grace period, put the others back, and sign off."""
        log.info("worker %s: told to stop, claims no more jobs", self.name[:8])
        ends = time.monotonic() + self._grace
        while self._pool.executing and time.monotonic() < ends:
            try:
                self._beat()
                self._end_batch()
            except redis.RedisError:
                time.sleep(IDLE_POLL)
            self._rest()
        given_back = self._pool.executing
        self._pool.give_up()
        try:
            while self._pool.jobs:
                self._end_batch()
            self.unsubscribe()  # type: ignore[no-untyped-call]
            self.register_death()  # type: ignore[no-untyped-call]
            log.info("worker %s: stopped, %d jobs put back", self.name[:8], given_back)
        except redis.RedisError as error:
            log.warning("queue away, %d jobs left to the reconciler: %s", len(self._pool.jobs), error)


def _wall_clock_ahead() -> float:
    """Seconds by which the wall clock, which can be set, is ahead of the monotonic clock."""
    return time.time() - time.monotonic()
