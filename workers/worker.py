"""The RQ worker: runs many jobs at once on threads, and takes and ends them in batches, on RQ's own keys."""

import json
import logging
import math
import queue
import signal
import threading
import time
import traceback
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

import redis
from rq import Queue as RQQueue
from rq import Retry
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer
from rq.utils import import_attribute
from rq.worker import WorkerStatus
from rq.worker.base import BaseWorker

from persistence.dynamodb import Unavailable
from workers.scripts import END, RECOVER, TAKE

log = logging.getLogger(__name__)

# Seconds. An idle worker looks this often, and so is a delayed job late by no more than this.
IDLE_POLL = 0.02
HEARTBEAT = 5.0
# A job whose worker has not been heard of for so long goes back on the queue.
LEASE = 25.0
_RETRY_UNAVAILABLE = 2.0
_BATCH = 200


class Later(Retry):
    """What a job returns that is to run again after `wait` seconds. RQ's stock worker takes it as its own `Retry`."""

    def __init__(self, wait: float) -> None:
        super().__init__(max=1_000_000, interval=math.ceil(wait))
        self.wait = wait


@dataclass(frozen=True)
class Taken:
    """A job this worker holds; `member` is its entry in RQ's started registry."""

    job_id: str
    origin: str
    member: str
    data: bytes


@dataclass(frozen=True)
class Ended:
    """A job that has run: gone, or to come again after `wait` seconds."""

    job: Taken
    wait: float | None = None
    error: str | None = None


class ConcurrentWorker(BaseWorker):
    """Runs up to `concurrency` jobs at once. A job that returns `Later` is run again.

    `grace` is the seconds that running jobs get to finish once the worker was told to stop; those that have not
    by then are put back on the queue.
    """

    def __init__(self, queues: Sequence[str], connection: "redis.Redis", *, concurrency: int, grace: float) -> None:
        """Waits until Redis answers."""
        self._stop = threading.Event()
        self._until_redis_answers(connection.ping)
        super().__init__(list(queues), connection=connection, serializer=JSONSerializer, worker_ttl=60)
        self._concurrency = concurrency
        self._grace = grace
        self._take_script = connection.register_script(TAKE)
        self._end_script = connection.register_script(END)
        self._recover_script = connection.register_script(RECOVER)
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
        self._until_redis_answers(self.register_birth)
        self.subscribe()  # type: ignore[no-untyped-call]
        self._until_redis_answers(lambda: self.set_state(WorkerStatus.BUSY))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        log.info(
            "worker %s: up to %d jobs at once from %s", self.name[:8], self._concurrency, ", ".join(self.queue_names())
        )
        beat_due = 0.0
        while not self._stop.is_set():
            try:
                if time.monotonic() >= beat_due:
                    self._beat()
                    beat_due = time.monotonic() + HEARTBEAT
                self._end_batch()
                if self._take_batch():
                    continue
            except redis.RedisError as error:
                log.warning("queue away: %s", error)
                self._stop.wait(1)
            self._wake.wait(IDLE_POLL)
            self._wake.clear()
        self._finish()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("worker %s: %s, taking no more jobs", self.name[:8], signal.Signals(number).name)
        self._stop.set()
        self._wake.set()

    def _until_redis_answers(self, call: Callable[[], object]) -> None:
        while True:
            try:
                call()
                return
            except redis.RedisError as error:
                log.warning("queue away: %s", error)
                if self._stop.wait(1):
                    return

    # One round trip each.

    def _take_batch(self) -> bool:
        free = min(self._concurrency - len(self._running), _BATCH)
        if free <= 0:
            return False
        now = time.time()
        execution = uuid.uuid4().hex
        rows = self._take_script(keys=[], args=[free, now, now + LEASE, execution, self.name, *self.queue_names()])
        for job_id, origin, data in rows:
            job = Taken(job_id.decode(), origin.decode(), f"{job_id.decode()}:{execution}", data)
            self._running[job.member] = job
            self._todo.put(job)
        self._add_threads()
        return bool(rows)

    def _end_batch(self) -> None:
        batch: list[Ended] = []
        try:
            while len(batch) < _BATCH:
                batch.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        if not batch:
            return
        try:
            now = time.time()
            rows = [
                [e.job.origin, e.job.job_id, e.job.member, "" if e.wait is None else str(now + e.wait)]
                for e in batch
                if e.error is None
            ]
            if rows:
                self._end_script(keys=[], args=[json.dumps(rows)])
            for ended in batch:
                if ended.error is not None:
                    self._fail(ended.job, ended.error)
        except redis.RedisError:
            # None may be dropped: ending a job twice is harmless.
            for ended in batch:
                self._ended.put(ended)
            raise
        for ended in batch:
            self._running.pop(ended.job.member, None)

    def _beat(self) -> None:
        """Say that this worker lives, renew the leases of its jobs, and take back those of workers that do not."""
        now = time.time()
        with self.connection.pipeline(transaction=False) as pipeline:
            self.heartbeat(pipeline=pipeline)
            for job in list(self._running.values()):
                pipeline.zadd(f"rq:wip:{job.origin}", {job.member: now + LEASE}, xx=True)
            self._recover_script(keys=[], args=[now, *self.queue_names()], client=pipeline)
            recovered = pipeline.execute()[-1]
        if recovered:
            log.warning("took back %d jobs of workers that are gone", recovered)

    def _fail(self, job: Taken, error: str) -> None:
        """Move a poisoned job to RQ's FailedJobRegistry, with the reason."""
        self.connection.zrem(f"rq:wip:{job.origin}", job.member)
        origin = RQQueue(job.origin, connection=self.connection, serializer=JSONSerializer)
        rq_job = RQJob.fetch(job.job_id, connection=self.connection, serializer=JSONSerializer)
        self.handle_job_failure(rq_job, origin, exc_string=error)

    # On the threads.

    def _add_threads(self) -> None:
        while self._threads < min(len(self._running), self._concurrency):
            self._threads += 1
            threading.Thread(target=self._work, name=f"job-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self._todo.get()
            self._ended.put(_execute(job))
            self._wake.set()

    def _finish(self) -> None:
        """Let running jobs finish within the grace period, give the rest back, and sign off."""
        ends = time.monotonic() + self._grace
        try:
            while self._running and time.monotonic() < ends:
                self._end_batch()
                self._wake.wait(IDLE_POLL)
                self._wake.clear()
            for job in list(self._running.values()):
                self._ended.put(Ended(job, wait=0))
            given_back = len(self._running)
            while self._running:
                self._end_batch()
            log.info("worker %s: stopped, %d jobs given back", self.name[:8], given_back)
            self.unsubscribe()  # type: ignore[no-untyped-call]
            self.register_death()  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            log.warning("queue away, %d jobs left to the reconciler: %s", len(self._running), error)


def _execute(job: Taken) -> Ended:
    try:
        # RQ's job format: (function, instance, args, kwargs), serialized and compressed.
        function, _, args, kwargs = json.loads(zlib.decompress(job.data))
        returned = import_attribute(function)(*args, **kwargs)
        return Ended(job, wait=returned.wait if isinstance(returned, Later) else None)
    except (Unavailable, redis.RedisError) as error:
        log.warning("%s: held for %g s: %s", job.job_id, _RETRY_UNAVAILABLE, error)
        return Ended(job, wait=_RETRY_UNAVAILABLE)
    except Exception as error:
        log.exception("%s: failed: %r", job.job_id, error)
        return Ended(job, error=traceback.format_exc())
