"""The RQ worker: runs many jobs at once on threads, taking and ending them in batches, until it is told to stop."""

import json
import logging
import math
import queue
import signal
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from types import FrameType

import redis
from redis.client import PubSub, PubSubWorkerThread
from rq import Retry, worker_registration
from rq.serializers import JSONSerializer
from rq.utils import import_attribute, now
from rq.worker import WorkerStatus
from rq.worker.base import BaseWorker

from persistence.dynamodb import Unavailable
from workers.batches import Batches, Ended, Taken

log = logging.getLogger(__name__)

# Seconds. An idle worker looks this often, and so is a delayed job late by no more than this.
IDLE_POLL = 0.02
_RETRY_UNAVAILABLE = 2.0
_BATCH = 200
_BEATS_IN_A_LEASE = 5


class Later(Retry):
    """What a job returns that is to run again after `wait` seconds. RQ's stock worker takes it as its own `Retry`."""

    def __init__(self, wait: float) -> None:
        super().__init__(max=1_000_000, interval=math.ceil(wait))
        self.wait = wait


class ConcurrentWorker(BaseWorker):
    """Runs up to `concurrency` jobs at once. A job that returns `Later` is run again.

    `grace` is the seconds that running jobs get to finish once the worker was told to stop; those that have not
    by then are put back on the queue. A job whose worker has been silent for `lease` seconds goes to another.
    """

    def __init__(
        self, queues: Sequence[str], connection: "redis.Redis", *, concurrency: int, grace: float, lease: float = 25
    ) -> None:
        """Waits until Redis answers."""
        self._stopping = False
        self._until_redis_answers(connection.ping)
        super().__init__(list(queues), connection=connection, serializer=JSONSerializer, worker_ttl=60)
        self.birth_date = self.last_heartbeat = now()
        self._concurrency = concurrency
        self._grace = grace
        self._batches = Batches(connection, queues, worker=self.name, lease=lease)
        self._beat_period = lease / _BEATS_IN_A_LEASE
        self._beat_due = 0.0
        self._running: dict[str, Taken] = {}
        self._todo: queue.SimpleQueue[Taken] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._threads = 0
        self._wake = threading.Event()

    def wake(self) -> None:
        """Look at the queue now: there is something on it."""
        self._wake.set()

    def run(self) -> None:
        """Work until SIGTERM, SIGINT or RQ's shutdown command; returns when all is finished or given back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._until_redis_answers(self._sign_on)
        self._until_redis_answers(self.subscribe)
        names = ", ".join(self.queue_names())
        log.info("worker %s: up to %d jobs at once from %s", self.name[:8], self._concurrency, names)
        while not self._stopping:
            try:
                self._beat()
                self._end_batch()
                if not self._take_batch():
                    self._rest()
            except redis.RedisError as error:
                log.warning("queue away: %s", error)
                time.sleep(1)
        self._finish()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Nothing but this: a lock or a log line may be held by the very code that the signal interrupts.
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
        self._wake.wait(IDLE_POLL)
        self._wake.clear()

    # What RQ's tools see of this worker, and say to it.

    def _sign_on(self) -> None:
        """Say all there is to say: Redis may have lost what was said before."""
        with self.connection.pipeline() as pipeline:
            pipeline.hset(self.key, mapping=self.serialize() | {"state": WorkerStatus.BUSY.value})
            worker_registration.register(self, pipeline)
            self.heartbeat(pipeline=pipeline)
            pipeline.execute()

    def _set_connection(self, connection: "redis.Redis") -> "redis.Redis":
        """As it is: RQ would let its sockets wait for the longest of its blocking reads, and this worker has none."""
        return connection

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        """Listen on: RQ would stop for ever when Redis hangs."""
        if not isinstance(exc, redis.RedisError):
            raise exc
        time.sleep(1)

    # On the main thread; each raises redis.RedisError.

    def _beat(self) -> None:
        """When it is time to: say that this worker lives, keep its jobs, and take back those of workers that do not."""
        if time.monotonic() < self._beat_due:
            return
        self._sign_on()
        self._batches.renew(self._running.values())
        if recovered := self._batches.recover():
            log.warning("took back %d jobs of workers that are gone", recovered)
        self._beat_due = time.monotonic() + self._beat_period

    def _take_batch(self) -> bool:
        free = min(self._concurrency - len(self._running), _BATCH)
        if free <= 0:
            return False
        taken = self._batches.take(free)
        for job in taken:
            self._running[job.member] = job
            self._todo.put(job)
        self._add_threads()
        return bool(taken)

    def _end_batch(self) -> None:
        batch = [self._ended.get() for _ in range(min(self._ended.qsize(), _BATCH))]
        try:
            self._batches.end(batch)
        except redis.RedisError:
            # None may be dropped: ending a job twice is harmless.
            for ended in batch:
                self._ended.put(ended)
            raise
        for ended in batch:
            self._running.pop(ended.job.member, None)

    def _finish(self) -> None:
        """Let running jobs finish within the grace period, give the rest back, and sign off."""
        log.info("worker %s: told to stop, taking no more jobs", self.name[:8])
        ends = time.monotonic() + self._grace
        while self._executing() and time.monotonic() < ends:
            try:
                self._beat()
                self._end_batch()
            except redis.RedisError:
                time.sleep(IDLE_POLL)
            self._rest()
        given_back = self._executing()
        for job in self._running.values():
            # Of two ends of one job the first counts.
            self._ended.put(Ended(job, wait=0))
        try:
            while self._running:
                self._end_batch()
            self.unsubscribe()  # type: ignore[no-untyped-call]
            self.register_death()  # type: ignore[no-untyped-call]
            log.info("worker %s: stopped, %d jobs given back", self.name[:8], given_back)
        except redis.RedisError as error:
            log.warning("queue away, %d jobs left to the reconciler: %s", len(self._running), error)

    def _executing(self) -> int:
        """How many jobs have not run to their end."""
        return len(self._running) - self._ended.qsize()

    # On the other threads.

    def _add_threads(self) -> None:
        while self._threads < min(len(self._running), self._concurrency):
            self._threads += 1
            threading.Thread(target=self._work, name=f"job-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._todo.get()
            self._ended.put(_execute(job))
            self._wake.set()


def _execute(job: Taken) -> Ended:
    try:
        # RQ's job format: (function, instance, args, kwargs), serialized and compressed.
        function, _, args, kwargs = json.loads(zlib.decompress(job.data))
        returned = import_attribute(function)(*args, **kwargs)
        return Ended(job, wait=returned.wait if isinstance(returned, Later) else None)
    except (Unavailable, redis.RedisError) as error:
        log.warning("%s: held for %g s: %s", job.job_id, _RETRY_UNAVAILABLE, error)
        return Ended(job, wait=_RETRY_UNAVAILABLE)
    except BaseException as error:
        # SystemExit too: a thread that ends would hold its job for ever.
        log.exception("%s: failed: %r", job.job_id, error)
        return Ended(job, error=traceback.format_exc())
