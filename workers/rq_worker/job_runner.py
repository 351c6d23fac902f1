"""Job runner: calls the function that a job names, and leaves everything beyond that to RQ's own code."""

import asyncio
import json
import logging
import sys
import time
import zlib
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from types import TracebackType
from typing import Any

import redis
from rq import Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException
from rq.utils import import_attribute
from rq.worker.base import BaseWorker

from persistence.errors import Unavailable
from workers.rq_worker.leases import Batches, Ended, Taken
from workers.rq_worker.run_again import RunAgain

log = logging.getLogger(__name__)

# Seconds until a job that found an engine away runs again.
_RETRY_UNAVAILABLE = 2.0
_Settle = Callable[[RQJob, Queue, Execution], None]

_import = lru_cache(maxsize=1024)(import_attribute)


class Runner:
    """Runs jobs for a worker, whose methods RQ's code uses to record outcomes. Safe for many threads."""

    def __init__(self, worker: BaseWorker, batches: Batches, stopping: Callable[[], bool]) -> None:
        self._worker = worker
        self._stopping = stopping
        self._batches = batches

    def run(self, job: Taken) -> Ended:
        """Run a job of any kind to its end."""
        try:
            if not job.plain:
                return self._settle(job, self._perform)
            # RQ's job format: (function, instance, args, kwargs), serialized and compressed.
            function, _, args, kwargs = json.loads(zlib.decompress(job.data))
            return self._end(job, _import(function)(*args, **kwargs))
        except (Unavailable, redis.RedisError) as error:
            log.warning("%s: held for %g s: %s", job.job_id, _RETRY_UNAVAILABLE, error)
            return Ended(job, wait=_RETRY_UNAVAILABLE)
        except JobTimeoutException as error:
            return self.fail_overdue(job, error.__traceback__)
        except BaseException as error:
            # SystemExit is included: a thread that exits would hold its job for ever.
            return self._fail(job, error)

    def fail_overdue(self, job: Taken, at: TracebackType | None = None) -> Ended:
        """Record that a job has not ended within its timeout."""
        error = JobTimeoutException()
        # RQ's callbacks replace the constructor of the class by one that states their own timeout.
        error.args = (f"Task exceeded maximum timeout value ({job.timeout:g} seconds)",)
        return self._fail(job, error.with_traceback(at))

    def _end(self, job: Taken, returned: Any) -> Ended:
        """Decide by what a plain job has returned whether it runs again."""
        match returned:
            case None:
                return Ended(job)
            case bool():
                return Ended(job, answered=returned)
            case RunAgain():
                return Ended(job, wait=returned.wait)
            case Retry():
                return self._settle(job, partial(self._worker._finalize_success, return_value=returned))
            case Coroutine():
                return self._end(job, asyncio.run(returned))
            case _:
                return Ended(job)

    def _fail(self, job: Taken, error: BaseException) -> Ended:
        """Record that a job has failed: RQ tries it again if the job says so, or keeps it with the reason."""
        log.error("%s: failed: %r", job.job_id, error, exc_info=error)

        def settle(rq_job: RQJob, queue: Queue, execution: Execution) -> None:
            self._worker._finalize_failure(rq_job, queue, execution, (type(error), error, error.__traceback__))

        return self._settle(job, settle)

    def _perform(self, rq_job: RQJob, queue: Queue, execution: Execution) -> None:
        try:
            returned = rq_job.perform()
        except JobTimeoutException:
            raise
        except BaseException:
            log.exception("%s: failed", rq_job.id)
            self._worker._finalize_failure(rq_job, queue, execution, sys.exc_info())
        else:
            self._worker._finalize_success(rq_job, queue, execution, returned)

    def _settle(self, job: Taken, settle: _Settle) -> Ended:
        """Have RQ record the job's end as soon as Redis responds, if this worker still holds the job."""
        connection = self._worker.connection
        while True:
            try:
                if self._batches.holds(job):
                    rq_job = self._fetch(job)
                    if rq_job is None:
                        return Ended(job)
                    queue = Queue(job.origin, connection=connection, serializer=JSONSerializer)
                    settle(rq_job, queue, Execution(job.execution, job.job_id, connection, self._worker.name))
                return Ended(job, settled=True)
            except redis.RedisError as error:
                if self._stopping():
                    return Ended(job, wait=0)
                log.warning("%s: queue away: %s", job.job_id, error)
                time.sleep(1)

    def _fetch(self, job: Taken) -> RQJob | None:
        """The job as RQ knows it, or None if it cannot be read."""
        try:
            return RQJob.fetch(job.job_id, connection=self._worker.connection, serializer=JSONSerializer)
        except (NoSuchJobError, ValueError) as unreadable:
            log.error("%s: is gone or broken, its outcome is not kept: %s", job.job_id, unreadable)
            return None
